"""What a study tells Prometheus, with a stand-in for Ray's gauges."""

from __future__ import annotations

from typing import Any

import pytest

from asd_ray.study import gauges
from asd_ray.study.folder import TrialRecord
from asd_ray.study.gauges import EPOCH, StudyGauges

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def series(monkeypatch: pytest.MonkeyPatch) -> Series:
    """(Metric, labels) -> value of everything that was set."""
    values: Series = {}

    class Gauge:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
            self.name, self.labels = name, set(tag_keys)
            assert description.endswith(".")

        def set(self, value: float, tags: dict[str, str]) -> None:
            assert set(tags) == self.labels  # Ray drops a value whose labels are not the declared ones
            values[self.name, frozenset(tags.items())] = value

    monkeypatch.setattr(gauges, "Gauge", Gauge)
    return values


def labels(**pairs: Any) -> frozenset[tuple[str, str]]:
    return frozenset({"study": "s", **{key: str(value) for key, value in pairs.items()}}.items())


def row(machine: str, split: str, auc: float) -> dict[str, Any]:
    return {
        "split": split,
        "machine": machine,
        "id": "00",
        "domain": "none",
        "n_normal": 2,
        "n_anomaly": 2,
        "auc": auc,
        "pauc": auc / 2,
    }


def test_an_epochs_metrics_are_set_and_what_it_lacks_is_not(series: Series) -> None:
    StudyGauges("s").epoch(3, 1, {"epoch": 2, "loss": 0.5, "knn_auc": float("nan"), "stage": "pretrain", "lr": 0.1})
    of_trial = {name: value for (name, tags), value in series.items() if ("trial", "3") in tags}
    assert of_trial == {"asd_ray_epoch": 2, "asd_ray_loss": 0.5}
    assert ("asd_ray_loss", labels(trial=3, repeat=1)) in series


def test_an_ended_trial_shows_its_objective_and_every_machine(series: Series) -> None:
    results = [row("fan", "select", 0.8), row("fan", "holdout", 0.7), row("pump", "select", 0.6)]
    StudyGauges("s").ended(TrialRecord(0, {}, 0, "complete", objective=0.75, results=results))
    assert series["asd_ray_objective", labels(trial=0, repeat=0)] == 0.75
    assert series["asd_ray_auc", labels(trial=0, repeat=0, split="holdout", machine="fan")] == pytest.approx(0.7)
    assert series["asd_ray_pauc", labels(trial=0, repeat=0, split="select", machine="pump")] == pytest.approx(0.3)


def test_trials_are_counted_by_status(series: Series) -> None:
    study = StudyGauges("s")

    def counts() -> dict[str, float]:
        return {status: series["asd_ray_trials", labels(status=status)] for status in gauges.STATUSES}

    study.started(0, 0)
    study.started(1, 0)
    study.started(1, 0)  # again, after a lost worker
    assert counts() == {"running": 2, "complete": 0, "pruned": 0, "failed": 0}
    study.ended(TrialRecord(0, {}, 0, "complete", objective=0.5))
    study.ended(TrialRecord(1, {}, 0, "failed", reason="out of memory"))
    study.started(0, 1)
    assert counts() == {"running": 1, "complete": 1, "pruned": 0, "failed": 1}
    series.clear()
    study.epoch(0, 1, {})  # Ray forgets a value that is not set again
    assert counts() == {"running": 1, "complete": 1, "pruned": 0, "failed": 1}


def test_a_trial_has_few_series_however_long_it_trains(series: Series) -> None:
    study = StudyGauges("s")
    for epoch in range(50):
        study.epoch(0, 0, dict.fromkeys(EPOCH, epoch))
    results = [row(machine, split, 0.5) for machine in ("fan", "pump") for split in ("select", "holdout")]
    study.ended(TrialRecord(0, {}, 0, "complete", objective=0.5, results=results))
    assert len(series) == len(EPOCH) + 1 + 2 * 4 + len(gauges.STATUSES)
