from __future__ import annotations

import json

import pytest

from asd_ray.bench.table import Benchmark, Comparison, Measured, interleaved, rate


def measured(*values: float) -> Measured:
    return Measured(values, "clips/s")


def test_a_ratio_is_of_medians_and_is_held_against_its_target() -> None:
    line = Comparison("reading", measured(9, 30, 12), measured(4, 6, 5), "a loop", limit=2.4)
    assert line.value == pytest.approx(2.4)
    assert line.met is True
    assert Comparison("start", measured(0.2), limit=0.1, at_most=True).met is False
    assert Comparison("start", measured(0.2)).met is None


def test_the_table_names_both_sides_and_the_missed_target() -> None:
    table = Benchmark("b", [Comparison("reading", measured(9), measured(5), "a loop", limit=2, note="cold")]).table()
    assert "9 clips/s" in table
    assert "5 clips/s: a loop" in table
    assert table.splitlines()[2].split("|")[-2].strip() == "no"
    assert table.endswith("reading: cold")


def test_json_has_every_repeat_and_the_machine() -> None:
    text = json.dumps(Benchmark("b", [Comparison("reading", measured(1, 2), measured(1), "a loop")]).as_dict())
    document = json.loads(text)
    assert document["lines"][0]["ours"] == [1, 2]
    assert document["machine"]["cores"] >= 1


def test_rates_count_what_was_done() -> None:
    assert all(value > 0 for value in rate(lambda: 5, 3).values)
    calls: list[str] = []

    def work(name: str) -> int:
        calls.append(name)
        return 1

    one, other = interleaved([lambda: work("a"), lambda: work("b")], 2)
    assert calls == ["a", "b", "a", "b"]
    assert len(one.values) == len(other.values) == 2
