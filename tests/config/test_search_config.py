from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from asd_ray.config import Distribution, SearchConfig
from tests.conditional_spaces import active, spaces

HEAD, MARGIN, SCALE = "method.head", "method.margin", "method.scale"


def config(space: dict[str, Any], **other: Any) -> SearchConfig:
    return SearchConfig.model_validate({"space": space, **other})


def test_a_condition_takes_a_value_or_a_list_and_survives_a_round_trip() -> None:
    one = Distribution.model_validate({"uniform": [0.1, 0.7], "when": {HEAD: "arcface"}})
    several = Distribution.model_validate({"type": "uniform", "low": 0.1, "high": 0.7, "when": {HEAD: ["arcface"]}})
    assert one == several
    assert one.model_dump() == {"uniform": [0.1, 0.7], "when": {HEAD: ["arcface"]}}
    assert Distribution.model_validate(one.model_dump()) == one
    assert str(one) == "0.1 to 0.7 (when method.head is arcface)"
    assert "when" not in Distribution.model_validate({"int": [1, 2]}).model_dump()


def test_a_key_under_conditions_is_drawn_where_all_of_them_hold() -> None:
    found = Distribution.model_validate({"int": [1, 2], "when": {HEAD: ["arcface", "cosface"], SCALE: 3}})
    assert found.applies({HEAD: "cosface", SCALE: 3, "other": 1})
    assert not found.applies({HEAD: "linear", SCALE: 3})
    assert not found.applies({HEAD: "arcface", SCALE: 2})
    assert not found.applies({HEAD: "arcface"})  # what is not drawn meets no condition


HEADS = {"choice": ["arcface", "linear"]}


@pytest.mark.parametrize(
    ("space", "other", "message"),
    [
        ({MARGIN: {"uniform": [0, 1], "when": {HEAD: "arcface"}}}, {}, "which is not searched"),
        (
            {HEAD: {"uniform": [0, 1]}, MARGIN: {"uniform": [0, 1], "when": {HEAD: 0.5}}},
            {},
            "a condition takes choice, int or logint",
        ),
        ({HEAD: HEADS, MARGIN: {"uniform": [0, 1], "when": {HEAD: "softmax"}}}, {}, "with the value softmax; expected"),
        ({HEAD: HEADS, MARGIN: {"uniform": [0, 1], "when": {HEAD: []}}}, {}, "with no value; expected values of one"),
        ({SCALE: {"int": [1, 4]}, MARGIN: {"uniform": [0, 1], "when": {SCALE: 2.5}}}, {}, "with the value 2.5"),
        ({SCALE: {"int": [1, 4], "when": {SCALE: 1}}}, {}, "method.scale needs method.scale"),
        (
            {HEAD: {**HEADS, "when": {SCALE: 1}}, SCALE: {"int": [1, 4], "when": {HEAD: "linear"}}},
            {},
            "conditions go in a circle: method",
        ),
        (
            {HEAD: HEADS, MARGIN: {"uniform": [0, 1], "when": {HEAD: "linear"}}},
            {"sampler": "cmaes"},
            "cmaes cannot draw keys under a condition, but method.margin has one",
        ),
        ({HEAD: HEADS, MARGIN: {"when": {HEAD: "linear"}}}, {}, "expected one of {uniform: "),
    ],
)
def test_conditions_that_cannot_work_are_refused(space: dict[str, Any], other: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        config(space, **other)
    assert message in str(error.value)


def test_without_conditions_keys_keep_the_order_of_the_file() -> None:
    keys = [f"method.k{number}" for number in (3, 1, 2, 0)]
    assert config({key: {"int": [0, 1]} for key in keys}).ordered() == keys


@settings(deadline=None, max_examples=60)
@given(spaces())
def test_a_grid_is_every_point_that_the_conditions_leave_once(space: dict[str, Any]) -> None:
    finite = {key: found for key, found in space.items() if Distribution.model_validate(found).values() is not None}
    finite = {
        key: {**found, "when": {other: values for other, values in found.get("when", {}).items() if other in finite}}
        for key, found in finite.items()
    }
    search = config(finite, sampler="grid")
    axes = [search.space[key].values() or [] for key in finite]
    every = [active(finite, dict(zip(finite, point, strict=True))) for point in itertools.product(*axes)]
    expected = {frozenset(point.items()) for point in every}
    grid = [frozenset(point.items()) for point in search.grid()]
    assert set(grid) == expected
    assert len(grid) == len(expected)


@settings(deadline=None, max_examples=60)
@given(spaces())
def test_a_point_has_the_keys_whose_conditions_hold_in_any_order_of_the_file(space: dict[str, Any]) -> None:
    values = {key: Distribution.model_validate(found).examples()[-1] for key, found in space.items()}
    point = config(space).point(values.__getitem__)
    assert point == active(space, values)
    assert point == config(dict(reversed(space.items()))).point(values.__getitem__)
