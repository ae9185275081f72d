from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from asd_ray.errors import AsdRayError
from asd_ray.scoring import Embedded, domain_codes


def embedded(label, **changed) -> Embedded:
    n = len(label)
    columns = {"embedding": np.ones((n, 4), np.float32), "logits": np.zeros((n, 3), np.float32)}
    return Embedded(**{**columns, "label": np.asarray(label, dtype=np.int64), **changed})


def test_domains_are_numbers_that_can_be_left_out() -> None:
    assert embedded([0, 1, -1]).domain.tolist() == [0, 0, 0]
    domain = domain_codes(["source", "target", "none"])
    assert domain.tolist() == [1, 2, 0]
    clips = embedded([0, 1, 2], domain=domain)
    assert clips.domain is domain
    np.testing.assert_array_equal(Embedded(**dataclasses.asdict(clips)).domain, domain)
    assert len(embedded([]).domain) == 0
    with pytest.raises(AsdRayError, match="one of none, source, target; found 'Source'"):
        domain_codes(["source", "Source"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e13, -1e13])
@pytest.mark.parametrize("name", ["embedding", "logits"])
def test_what_diverged_is_refused(name: str, value: float) -> None:
    array = np.ones((4, 3), np.float32)
    array[2, 1] = value
    with pytest.raises(AsdRayError, match=rf"{name} of 1 of 4 clips hold NaN.*clip number 2\).*diverged"):
        embedded([0, 1, 2, 0], **{name: array})


def test_arrays_must_fit_together() -> None:
    with pytest.raises(AsdRayError, match="Labels must lie in -1 to 2, found 0 to 3"):
        embedded([0, 3])
    with pytest.raises(AsdRayError, match="Domains must lie in 0 to 2, found 0 to 3"):
        embedded([0, 1], domain=np.array([0, 3]))
    with pytest.raises(AsdRayError, match="2 labels need as many"):
        embedded([0, 1], embedding=np.ones((1, 4), np.float32))
    with pytest.raises(AsdRayError, match=r"and domains, .* and \(3,\)"):
        embedded([0, 1], domain=np.zeros(3, np.int64))
