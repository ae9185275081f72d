from __future__ import annotations

import json

import pytest

from asd_ray.bench.table import Benchmark, Comparison, Measured, described, duration, interleaved, rate, seconds_of


def measured(*values: float) -> Measured:
    return Measured(values, "clips/s")


def test_a_ratio_is_of_medians_and_is_held_against_its_target() -> None:
    line = Comparison("reading", measured(9, 30, 12), measured(4, 6, 5), "a loop", limit=2.4)
    assert line.value == pytest.approx(2.4)
    assert line.met is True
    assert Comparison("start", measured(0.2), limit=0.1, at_most=True).met is False
    assert Comparison("start", measured(0.2)).met is None


def test_a_ratio_of_pairs_is_free_of_what_changes_the_speed_of_both() -> None:
    line = Comparison("workers", measured(18, 38, 9.5), measured(10, 20, 5), "one", limit=1.9, paired=True)
    assert line.value == pytest.approx(1.9)  # of medians: 1.8
    assert line.met is True


def test_the_table_names_both_sides_and_the_missed_target() -> None:
    table = Benchmark("b", [Comparison("reading", measured(9), measured(5), "a loop", limit=2, note="cold")]).table()
    assert "9 clips/s" in table
    assert "5 clips/s: a loop" in table
    assert table.splitlines()[2].split("|")[-2].strip() == "no"
    assert table.endswith("reading: cold")


def test_the_table_says_why_there_is_no_reference() -> None:
    table = Benchmark("b", [Comparison("reading", measured(9), reference_is="librosa is not installed")]).table()
    assert "librosa is not installed" in table


def test_what_could_not_be_measured_is_neither_met_nor_missed() -> None:
    line = Comparison("memory", Measured((), "GiB"), reference_is="psutil is not installed", limit=2, at_most=True)
    assert line.met is None
    benchmark = Benchmark("b", [line])
    assert "not measured" in benchmark.table()
    json.dumps(benchmark.as_dict(), allow_nan=False)  # NaN is no JSON


def test_the_machine_is_called_busy_when_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for load, busy in ((0.1, False), (2.0, True)):
        found = {"processor": "P", "cores": 2, "gpu": None, "load": load}
        monkeypatch.setattr("asd_ray.bench.table.machine", lambda found=found: found)
        assert described().startswith("P, 2 cores")
        assert ("busy" in described()) is busy


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (91, "2 min"), (600, "10 min")])
def test_forecasts(seconds: float, text: str) -> None:
    assert duration(seconds) == f"about {text}"


def test_seconds_of_every_repeat() -> None:
    found = seconds_of(lambda: None, 3)
    assert (len(found.values), found.unit) == (3, "s")


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
