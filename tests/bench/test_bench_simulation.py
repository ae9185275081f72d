from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from asd_ray.bench import simulation, stub_study
from asd_ray.bench.simulation import Observed, Watched
from asd_ray.bench.stub_study import BEST, DETECTORS, Detectors
from asd_ray.study.folder import TrialRecord


@pytest.fixture(scope="module")
def detectors() -> Detectors:
    return Detectors.make()


def test_detectors_become_better_and_are_what_their_scores_say(detectors: Detectors) -> None:
    ranks = pd.Series(detectors.objectives).corr(pd.Series(range(DETECTORS)), method="spearman")
    assert ranks > 0.98
    rows = pd.DataFrame(detectors.results[-1])
    assert len(rows) == 2 * 6 * 2  # splits, machines, IDs
    select = rows[rows["split"] == "select"]
    assert detectors.objectives[-1] == pytest.approx((select["auc"].mean() + select["pauc"].mean()) / 2)


def test_trials_nearer_to_the_hidden_point_are_better(detectors: Detectors) -> None:
    far = {key: best * 2 for key, best in BEST.items()}
    assert min(detectors.of(number, BEST) for number in range(50)) > max(detectors.of(n, far) for n in range(50))


def test_a_stub_studys_folder_is_as_a_study_leaves_it(tmp_path: Path) -> None:
    folder = stub_study.write_study(tmp_path / "study", stub_study.FAIL_EVERY)
    finished = folder.finished()
    status = pd.Series([record.status for record in finished.values()]).value_counts().to_dict()
    assert status == {"complete": 32, "pruned": 7, "failed": 1}
    assert folder.started().keys() == finished.keys()
    space = folder.study().search.space
    assert all(space[key].contains(value) for record in finished.values() for key, value in record.values.items())
    assert len(folder.history(0)) == finished[0].epochs == 20
    assert len(folder.history(4)) == finished[4].epochs == 4


def test_seconds_per_trial_are_means_over_a_span_of_ends() -> None:
    seen = Observed(wall=[2.0, 3.0, 5.0, 9.0], cpu=[1.0, 1.5, 2.0, 2.5])
    assert seen.per_trial(1, 2) == 1.5
    assert seen.per_trial(3, 4) == 3.0
    assert seen.per_trial(2, 4, "cpu") == 0.5


def test_a_watched_study_notes_every_end_and_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psutil")
    now = iter([10.0, 11.0, 13.0])
    monkeypatch.setattr(simulation.time, "perf_counter", lambda: next(now))
    view = Watched(2, concurrency=1)
    for number in range(2):
        view.trial_started(number, 0, {})
        view.trial_finished(TrialRecord(number, {}, 7, "complete", 0.5))
    assert view.observed.wall == [1.0, 3.0]
    assert view.observed.memory.keys() == {2}
    assert view.observed.memory[2] > 1
