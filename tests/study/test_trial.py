"""What a trial does when its process, its storage or its values fail."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from asd_ray.config.study_file import parse_study
from asd_ray.errors import AsdRayError, StorageError
from asd_ray.study import trial as trials
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.search import StudySearch
from asd_ray.study.trial import run_trial

STUDY = parse_study({"name": "s", "search": {"space": {"method.pretrain.alpha": {"uniform": [0.1, 0.6]}}}}, "f")
CONFIG = {"trial": 0, "values": {"method.pretrain.alpha": 0.4}}


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "out")
    folder.open(STUDY)
    return folder


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is reported to Ray Tune."""
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(trials.ray.tune, "report", reports.append)
    return reports


def inputs(folder: StudyFolder) -> Any:
    return SimpleNamespace(study=STUDY, folder=folder, sets=None, stages=None, claims=None)


def fails_with(error: Exception) -> Any:
    def train(*arguments: Any) -> Any:
        raise error

    return train


def test_the_log_of_a_shared_process_names_each_trial_and_its_values(
    folder: StudyFolder,
    reported: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(trials, "_train", fails_with(AsdRayError("no matter")))
    run_trial(CONFIG, inputs(folder))
    run_trial({**CONFIG, "trial": 1}, inputs(folder))
    assert capsys.readouterr().out.splitlines() == [
        's-trial-00000 {"method.pretrain.alpha": 0.4}',
        's-trial-00001 {"method.pretrain.alpha": 0.4}',
    ]


def test_a_trial_that_has_its_record_reports_it_and_trains_nothing(
    folder: StudyFolder, reported: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process was lost between its end and Tune's hearing of it, and Tune has started it again."""
    folder.finish_trial(TrialRecord(0, CONFIG["values"], 1, "complete", 0.75))
    path = folder.trial(0) / "trial.json"
    before = path.stat().st_ino, path.stat().st_mtime_ns
    monkeypatch.setattr(trials, "_train", fails_with(AssertionError("trained")))
    run_trial(CONFIG, inputs(folder))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before
    assert [(report["objective"], report["status"]) for report in reported] == [(0.75, "complete")]


def test_values_that_fail_are_a_record_and_storage_that_fails_is_none(
    folder: StudyFolder, reported: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "_train", fails_with(StorageError("/there: the disk is full")))
    with pytest.raises(StorageError):
        run_trial(CONFIG, inputs(folder))
    assert folder.record(0) is None
    assert reported == []
    monkeypatch.setattr(trials, "_train", fails_with(AsdRayError("too few clips")))
    run_trial(CONFIG, inputs(folder))
    record = folder.record(0)
    assert record is not None
    assert (record.status, record.reason) == ("failed", "too few clips")
    assert reported[0]["status"] == "failed"


def test_optuna_is_told_the_record_of_a_trial_whose_process_was_lost_after_its_end(folder: StudyFolder) -> None:
    search = StudySearch(STUDY, folder)
    configs = [search.suggest(name) for name in ("a", "b")]
    assert all(configs)
    folder.finish_trial(TrialRecord(0, dict(configs[0] or {})["values"], 1, "complete", 0.75))
    for name in ("a", "b"):
        search.on_trial_complete(name, error=True)
    states = [(trial.state, trial.values) for trial in search.optuna_study.get_trials()]
    assert states == [(optuna.trial.TrialState.COMPLETE, [0.75]), (optuna.trial.TrialState.FAIL, None)]
