from __future__ import annotations

import math
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from asd_ray.config import StudyConfig
from asd_ray.config.study_file import parse_study
from asd_ray.errors import ConfigError
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.search import PROBE, StudySearch, default_point, first_points, scheduler

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


def trials(folder: StudyFolder) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder.path / 'optuna.db'}")
    return optuna.load_study(study_name="s", storage=storage).get_trials()


def states(folder: StudyFolder) -> list[str]:
    return [trial.state.name for trial in trials(folder)]


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


def test_what_tune_saves_of_the_search_is_empty(study: StudyConfig, folder: StudyFolder, tmp_path: Path) -> None:
    search = StudySearch(study, folder)
    search.suggest("a")
    search.save(str(tmp_path / "state"))
    assert not (tmp_path / "state").exists()
    assert vars(pickle.loads(pickle.dumps(search))) == {}  # as in Tune's tuner.pkl


@pytest.mark.parametrize("name", ["tpe", "random", "cmaes", "qmc"])
def test_every_sampler_stays_in_the_space_and_repeats_with_its_seed(name: str, tmp_path: Path) -> None:
    def points(seed: int, count: int) -> list[dict[str, Any]]:
        search = {"space": SPACE, "startup_trials": 2, "sampler": name}
        study = parse_study({"name": "s", "seed": seed, "search": search}, "f")
        folder = StudyFolder(tmp_path / f"{name}-{seed}-{len(list(tmp_path.iterdir()))}")
        folder.open(study)
        searcher = StudySearch(study, folder)
        drawn = []
        for number in range(count):
            config = searcher.suggest(f"t{number}")
            assert config is not None
            drawn.append(config["values"])
            finish(searcher, folder, f"t{number}", config, config["values"]["method.pretrain.alpha"])
        assert all(study.search.space[key].contains(values[key]) for values in drawn for key in SPACE)
        return drawn

    first = points(1, 6)
    assert points(1, 6) == first
    assert points(2, 3)[1:] != first[1:3]
    assert len({str(values) for values in first}) == 6


def test_a_grid_is_every_combination_once_with_the_default_first(tmp_path: Path) -> None:
    space = {"method.pretrain.alpha": {"choice": [0.2, 0.4, 0.6]}, "evaluation.neighbours": {"int": [1, 2]}}
    study = parse_study({"name": "s", "search": {"space": space, "sampler": "grid"}}, "f")
    points = first_points(study)
    assert points[0] == {"method.pretrain.alpha": 0.4, "evaluation.neighbours": 1}
    assert sorted(map(str, points)) == sorted(
        str({"method.pretrain.alpha": alpha, "evaluation.neighbours": k}) for alpha in (0.2, 0.4, 0.6) for k in (1, 2)
    )


def test_an_endless_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.pretrain\.alpha is 0\.1 to 0\.6"):
        parse_study({"name": "s", "search": {"space": SPACE, "sampler": "grid"}}, "f")


def test_a_stopped_trial_is_told_as_pruned_with_how_far_it_came(study: StudyConfig, folder: StudyFolder) -> None:
    search = StudySearch(study, folder)
    assert search.suggest("t0") is not None
    search.on_trial_complete("t0", {PROBE: 0.6, "epoch": 4})
    [trial] = [t for t in trials(folder) if t.state.name == "PRUNED"]
    assert trial.intermediate_values == {4: 0.6}


def test_a_resumed_scheduler_knows_the_trials_of_earlier_runs(folder: StudyFolder) -> None:
    search = {"space": SPACE, "scheduler": "asha", "grace_epochs": 2, "reduction": 2}
    study = parse_study({"name": "s", "search": search}, "f")
    for number, auc in enumerate((0.9, 0.8, 0.7)):
        folder.write_history(number, 0, [{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5, PROBE: auc}])
        folder.finish_trial(TrialRecord(number, {}, 0, "complete", auc))
    rungs = scheduler(study, 8, folder)
    trial = SimpleNamespace(trial_id="new")
    rungs.on_trial_add(None, trial)
    assert rungs.on_trial_result(None, trial, {"epoch": 1, "loss": 1.0}) == "CONTINUE"
    assert rungs.on_trial_result(None, trial, {"epoch": 2, PROBE: 0.5}) == "STOP"
    better = SimpleNamespace(trial_id="better")
    rungs.on_trial_add(None, better)
    assert rungs.on_trial_result(None, better, {"epoch": 2, PROBE: 0.95}) == "CONTINUE"
