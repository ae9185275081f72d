from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.search import Searcher

from asd_ray.config import StudyConfig
from asd_ray.config.study_file import parse_study
from asd_ray.errors import StorageError
from asd_ray.study import trials
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.trials import Repeats, StudyCallback, missing_repeats


def opened(tmp_path: Path, **search: Any) -> tuple[StudyConfig, StudyFolder]:
    study = parse_study({"name": "s", "search": search}, "f")
    folder = StudyFolder(tmp_path / "out")
    folder.open(study)
    return study, folder


def test_the_best_and_the_default_are_repeated_with_every_other_seed(tmp_path: Path) -> None:
    study, folder = opened(tmp_path, num_trials=5, seeds=3, repeat_best=2)
    for number, objective in enumerate((0.5, 0.9, None, 0.8)):
        folder.finish_trial(TrialRecord(number, {"x": number}, 1, "complete" if objective else "failed", objective))
    assert missing_repeats(study, folder) == []  # the search has not ended
    folder.finish_trial(TrialRecord(4, {"x": 4}, 1, "pruned"))
    wanted = [(1, 1), (1, 2), (3, 1), (3, 2), (0, 1), (0, 2)]
    missing = missing_repeats(study, folder)
    assert [(run["trial"], run["repeat"]) for run in missing] == wanted
    assert missing[0]["values"] == {"x": 1}
    folder.finish_trial(TrialRecord(3, {"x": 3}, 2, "complete", 0.7, repeat=1))
    assert [(run["trial"], run["repeat"]) for run in missing_repeats(study, folder)] == [
        pair for pair in wanted if pair != (3, 1)
    ]


def test_one_seed_repeats_nothing(tmp_path: Path) -> None:
    study, folder = opened(tmp_path, num_trials=1)
    folder.finish_trial(TrialRecord(0, {}, 1, "complete", 0.5))
    assert missing_repeats(study, folder) == []


def test_repeats_are_handed_out_once_each() -> None:
    search = Repeats([{"trial": 0}, {"trial": 1}])
    assert [search.suggest(str(number)) for number in range(3)] == [{"trial": 0}, {"trial": 1}, Searcher.FINISHED]


class View:
    finished: tuple[TrialRecord, ...] = ()

    def __init__(self) -> None:
        self.ended: list[TrialRecord] = []
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def trial_started(self, number: int, repeat: int, values: dict[str, Any]) -> None:
        assert (number, repeat) == (3, 0)

    def trial_progress(self, number: int, repeat: int, result: dict[str, Any]) -> None:
        pass

    def trial_finished(self, record: TrialRecord) -> None:
        self.ended.append(record)


class NoGauges:
    def __init__(self, study: str) -> None:
        pass

    def started(self, trial: int, repeat: int) -> None:
        pass

    def epoch(self, trial: int, repeat: int, values: dict[str, Any]) -> None:
        pass

    def ended(self, record: TrialRecord) -> None:
        pass


@pytest.fixture
def callback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyCallback:
    monkeypatch.setattr(trials, "StudyGauges", NoGauges)
    study, folder = opened(tmp_path)
    return StudyCallback(study, folder, View())  # type: ignore[arg-type]


TRIAL = SimpleNamespace(trial_id="t", config={"trial": 3, "values": {"x": 1}})


def test_a_stopped_trial_is_pruned_with_what_stopped_it(callback: StudyCallback) -> None:
    callback.on_trial_start(0, [], TRIAL)
    for epoch, extra in ((1, {}), (2, {"knn_auc": 0.61})):
        result = {"stage": "pretrain", "epoch": epoch, "epochs": 4, "loss": 1.0, "config": {}, "pid": 7, **extra}
        callback.on_trial_result(0, [], TRIAL, result)
    (callback.folder.trial(3) / "checkpoints").mkdir(parents=True)
    callback.on_trial_complete(0, [], TRIAL)
    record = callback.folder.record(3)
    assert record is not None
    assert (record.status, record.objective, record.epochs) == ("pruned", None, 2)
    assert "after epoch 2 with a k-NN AUC of 0.6100" in record.reason
    second = {"stage": "pretrain", "epoch": 2, "epochs": 4, "loss": 1.0, "knn_auc": 0.61}
    assert callback.folder.history(3)[1] == second
    assert not (callback.folder.trial(3) / "checkpoints").exists()


def broken(tmp_path: Path, error: str) -> SimpleNamespace:
    """A Tune trial with its file of errors."""
    (tmp_path / "error.txt").write_text(f"Failure # 1\nTraceback\n  {error}\n\n")
    return SimpleNamespace(**vars(TRIAL), error_file=str(tmp_path / "error.txt"))


def test_a_trial_that_vanished_is_failed_with_the_last_line_of_its_error(
    callback: StudyCallback, tmp_path: Path
) -> None:
    callback.on_trial_start(0, [], TRIAL)
    callback.on_trial_error(0, [], broken(tmp_path, "killed by the kernel"))
    record = callback.folder.record(3)
    assert record is not None
    assert (record.status, record.reason) == ("failed", "killed by the kernel")


def test_a_trial_that_vanished_after_its_end_keeps_its_record(callback: StudyCallback, tmp_path: Path) -> None:
    ended = TrialRecord(3, {"x": 1}, 1, "complete", 0.7)
    callback.folder.finish_trial(ended)
    callback.on_trial_start(0, [], TRIAL)
    callback.on_trial_error(0, [], broken(tmp_path, "killed by the kernel"))
    assert callback.folder.record(3) == ended
    assert callback.progress.ended == [ended]


def test_storage_that_fails_is_no_result_of_a_trial(callback: StudyCallback, tmp_path: Path) -> None:
    callback.on_trial_start(0, [], TRIAL)
    error = "asd_ray.errors.StorageError: /there: the disk is full; free some space."
    with pytest.raises(StorageError, match=r"^/there: the disk is full; free some space.$"):
        callback.on_trial_error(0, [], broken(tmp_path, error))
    assert callback.folder.record(3) is None


def test_a_lost_process_and_a_lost_worker_are_one_line_each(callback: StudyCallback, tmp_path: Path) -> None:
    callback.on_trial_start(0, [], TRIAL)
    callback.on_trial_recover(0, [], broken(tmp_path, "the node\tdied. There are some potential root causes. (1)"))
    callback.on_trial_result(0, [], TRIAL, {"lost": "worker 1 (killed)"})
    assert callback.progress.said == [
        "s-trial-00003: interrupted: the node died; it goes on from its last checkpoint.",
        "s-trial-00003: lost worker 1 (killed); its workers go on from the last checkpoint.",
    ]
