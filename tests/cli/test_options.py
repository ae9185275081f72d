from __future__ import annotations

import pytest

from asd_ray.cli.options import parse_overrides
from asd_ray.errors import ConfigError


def test_values_of_set_options_are_yaml() -> None:
    options = ["search.num_trials=7", "method.pretrain.momentum=0.5", "data.machines=[fan, pump]", "data.root=a=b"]
    assert parse_overrides(options) == {
        "search.num_trials": 7,
        "method.pretrain.momentum": 0.5,
        "data.machines": ["fan", "pump"],
        "data.root": "a=b",
    }
    assert parse_overrides(None) == {}


@pytest.mark.parametrize(("option", "expected"), [("seed", "expected KEY=VALUE"), ("seed=[", "not a YAML value")])
def test_a_set_option_that_is_none_says_so(option: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_overrides([option])
