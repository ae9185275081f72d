from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest

from asd_ray.config import StudyConfig
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.search import StudySearch, default_point
from asd_ray.study_file import parse_study

SPACE = {
    "method.pretrain.alpha": {"uniform": [0.1, 0.6]},
    "method.pretrain.queue_size": {"logint": [64, 8192]},
    "method.pretrain.projection": {"choice": ["linear", "mlp"]},
}
WARM = {"method.pretrain.alpha": 0.5, "method.pretrain.queue_size": 100, "method.pretrain.projection": "linear"}


@pytest.fixture
def study() -> StudyConfig:
    search = {"space": SPACE, "warm_start": [WARM], "startup_trials": 2}
    return parse_study({"name": "s", "search": search}, "f")


@pytest.fixture
def folder(study: StudyConfig, tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "out")
    folder.open(study)
    return folder


def finish(search: StudySearch, folder: StudyFolder, trial_id: str, config: dict[str, Any], objective: float) -> None:
    folder.finish_trial(TrialRecord(config["trial"], config["values"], 0, "complete", objective))
    search.on_trial_complete(trial_id, {"objective": objective})


def states(folder: StudyFolder) -> list[str]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder.path / 'optuna.db'}")
    return [trial.state.name for trial in optuna.load_study(study_name="s", storage=storage).get_trials()]


def test_defaults_come_first_then_warm_starts_then_points_of_the_space(study: StudyConfig, folder: StudyFolder) -> None:
    search = StudySearch(study, folder)
    configs = []
    for number in range(6):
        config = search.suggest(f"t{number}")
        assert config is not None
        configs.append(config)
        finish(search, folder, f"t{number}", config, 0.5 + number / 100)
    assert configs[0]["values"] == default_point(study)
    assert configs[1]["values"] == WARM
    assert [config["trial"] for config in configs] == list(range(6))
    for config in configs:
        for key, distribution in study.search.space.items():
            assert distribution.contains(config["values"][key])


def test_the_same_seed_gives_the_same_points(study: StudyConfig, tmp_path: Path) -> None:
    def points(name: str) -> list[Any]:
        folder = StudyFolder(tmp_path / name)
        folder.open(study)
        search = StudySearch(study, folder)
        values = []
        for number in range(5):
            config = search.suggest(f"t{number}")
            assert config is not None
            values.append(config["values"])
            finish(search, folder, f"t{number}", config, number / 10)
        return values

    assert points("a") == points("b")


def test_a_trial_without_a_finite_objective_is_a_failed_one(study: StudyConfig, folder: StudyFolder) -> None:
    search = StudySearch(study, folder)
    for trial_id, result, error in [
        ("nan", {"objective": math.nan}, False),
        ("none", {"objective": None}, False),
        ("missing", {"epoch": 3}, False),
        ("crashed", {"objective": 0.9}, True),
        ("good", {"objective": 0.9}, False),
    ]:
        search.suggest(trial_id)
        search.on_trial_result(trial_id, {"epoch": 1, "training_iteration": 1})
        search.on_trial_complete(trial_id, result, error)
    assert states(folder) == ["FAIL", "FAIL", "FAIL", "FAIL", "COMPLETE"]


def test_a_killed_study_goes_on_with_what_was_under_way(study: StudyConfig, folder: StudyFolder) -> None:
    killed = StudySearch(study, folder)
    first, second = killed.suggest("a"), killed.suggest("b")
    assert first is not None
    assert second is not None
    finish(killed, folder, "a", first, 0.7)
    third = killed.suggest("c")
    assert third is not None
    # The third trial's record was written, but the study was killed before Optuna heard of it.
    folder.finish_trial(TrialRecord(third["trial"], third["values"], 0, "complete", 0.6))

    resumed = StudySearch(study, folder)
    again = resumed.suggest("d")
    assert again == second
    assert states(folder)[:3] == ["COMPLETE", "FAIL", "COMPLETE"]
    new = resumed.suggest("e")
    assert new is not None
    assert new["trial"] == 3
    assert new["values"] not in (first["values"], second["values"], third["values"])


def test_a_warm_start_that_a_killed_study_never_began_still_comes(study: StudyConfig, folder: StudyFolder) -> None:
    killed = StudySearch(study, folder)
    first = killed.suggest("a")
    resumed = StudySearch(study, folder)
    values = [(resumed.suggest(name) or {})["values"] for name in ("b", "c")]
    assert first is not None
    assert sorted(map(str, values)) == sorted(map(str, [first["values"], WARM]))


def test_tune_can_save_the_search(study: StudyConfig, folder: StudyFolder, tmp_path: Path) -> None:
    search = StudySearch(study, folder)
    search.suggest("a")
    search.save(str(tmp_path / "state"))
    assert (tmp_path / "state").stat().st_size > 0
