from __future__ import annotations

import json
from pathlib import Path

import pytest

from asd_ray.config import StudyConfig
from asd_ray.config.study_file import parse_study
from asd_ray.errors import ConfigError
from asd_ray.study.folder import StudyFolder, TrialRecord


def study(**changes: object) -> StudyConfig:
    return parse_study({"name": "s", **changes}, "f")


def test_a_folder_is_opened_again_by_the_same_study_alone(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "out")
    assert folder.open(study()) is False
    assert folder.open(study()) is True
    assert folder.study() == study()
    folder.start_trial(0, {})
    with pytest.raises(
        ConfigError, match=r"holds another study: method.pretrain.alpha is 0.4 there and 0.2 here"
    ) as error:
        folder.open(study(method={"pretrain": {"alpha": 0.2}}))
    assert error.value.exit_code == 2


def test_a_study_without_trials_can_still_be_put_right(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "out")
    folder.open(study())
    assert folder.open(study(data={"skip_bad": True})) is True
    assert folder.study().data.skip_bad


def test_trials_can_be_added_and_resources_changed(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "out")
    folder.open(study())
    assert folder.open(study(search={"num_trials": 99}, resources={"workers": 4})) is True
    assert folder.study().search.num_trials == 99


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="is not empty and holds no study"):
        StudyFolder(tmp_path).open(study())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ConfigError, match="holds no study"):
        StudyFolder(tmp_path).status()


def test_status_counts_what_ended_and_what_is_under_way(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "out")
    folder.open(study(search={"num_trials": 6}))
    for number in range(5):
        folder.start_trial(number, {"method.pretrain.alpha": 0.1 * number})
    folder.finish_trial(TrialRecord(0, {}, 7, "complete", 0.6, results=[{"machine": "fan", "auc": 0.5}]))
    folder.finish_trial(TrialRecord(1, {}, 7, "complete", 0.8))
    folder.finish_trial(TrialRecord(2, {}, 7, "failed", reason="pretrain: loss is nan"))
    folder.finish_trial(TrialRecord(3, {}, 7, "pruned", reason="stopped"))
    folder.finish_trial(TrialRecord(0, {}, 8, "complete", 0.9, repeat=1))  # a repeat is no trial
    assert folder.status() == {
        "name": "s",
        "asked": 6,
        "ended": 4,
        "complete": 2,
        "pruned": 1,
        "failed": 1,
        "unfinished": 1,
        "best": 1,
        "objective": 0.8,
    }
    assert folder.finished()[0].results == [{"machine": "fan", "auc": 0.5}]
    assert [(record.trial, record.repeat) for record in folder.repeats()] == [(0, 1)]


def test_the_environment_names_versions_hardware_and_features(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "out")
    folder.open(study())
    folder.write_environment("cafe", {"CPU": 2.0, "node:1": 1.0}, synthetic=True)
    document = json.loads((folder.path / "env.json").read_text())
    assert document["packages"]["torch"]
    assert document["packages"]["ray"]
    assert document["features_hash"] == "cafe"
    assert document["synthetic_data"] is True
    assert document["ray_resources"] == {"CPU": 2.0}
