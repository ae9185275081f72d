"""Searches with conditional keys or several objectives, and searches that are killed at any moment."""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.config import SearchConfig, StudyConfig
from asd_ray.config.study_file import get_key, parse_study, with_values
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.search import StudySearch, default_point, first_points, sampler, suggest
from tests.conditional_spaces import active, spaces

PROJECTION, TEMPERATURE = "method.pretrain.projection", "method.pretrain.temperature"
ALPHA, NEIGHBOURS = "method.pretrain.alpha", "evaluation.neighbours"
SPACE = {
    TEMPERATURE: {"loguniform": [0.05, 0.5], "when": {PROJECTION: "mlp"}},
    PROJECTION: {"choice": ["linear", "mlp"]},
    ALPHA: {"uniform": [0.1, 0.6]},
    NEIGHBOURS: {"int": [1, 4], "when": {PROJECTION: "linear"}},
}


def study_of(objective: Any = "auc", space: dict[str, Any] = SPACE, **search: Any) -> StudyConfig:
    own = {"projection": "linear", "temperature": 0.9}  # outside of its range, but linear has none
    document = {"name": "s", "method": {"pretrain": own}, "evaluation": {"objective": objective}}
    return parse_study({**document, "search": {"space": space, "startup_trials": 2, **search}}, "f")


def trials(folder: StudyFolder) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder.path / 'optuna.db'}")
    return optuna.load_study(study_name="s", storage=storage).get_trials()


def draws(search: SearchConfig, seed: int, count: int) -> list[dict[str, Any]]:
    """Points of Optuna's sampler, whose objective is a hash of them."""
    study = optuna.create_study(direction="maximize", sampler=sampler(search, seed))
    points = []
    for _ in range(count):
        trial = study.ask()
        points.append(search.point(lambda key, trial=trial: suggest(trial, key, search.space[key])))
        study.tell(trial, len(str(sorted(points[-1].items()))) % 7)
    return points


@settings(deadline=None, max_examples=12)
@given(spaces(), st.sampled_from(["tpe", "random", "qmc"]), st.integers(0, 2**31 - 1))
def test_every_drawn_point_satisfies_the_conditions_and_validates(space: Any, name: str, seed: int) -> None:
    document = {"name": "s", "search": {"space": space, "sampler": name, "startup_trials": 2}}
    study = parse_study(document, "f")
    assert default_point(study) == active(space, {key: get_key(study, key) for key in space})
    for point in draws(study.search, seed, 5):
        assert point == active(space, {**dict.fromkeys(space), **point})
        assert all(study.search.space[key].contains(value) for key, value in point.items())
        changed = with_values(study, point)
        assert all(get_key(changed, key) == point.get(key, get_key(study, key)) for key in space)
        parse_study({**document, "search": {**document["search"], "warm_start": [point]}}, "f")


def test_a_space_without_conditions_is_sampled_as_ever() -> None:
    space = {key: {name: value for name, value in SPACE[key].items() if name != "when"} for key in SPACE}
    search = SearchConfig.model_validate({"space": space, "startup_trials": 3})
    plain = optuna.samplers.TPESampler(seed=5, multivariate=True, constant_liar=True, n_startup_trials=3)
    study, expected = optuna.create_study(direction="maximize", sampler=plain), []
    for _ in range(8):
        trial = study.ask()
        expected.append({key: suggest(trial, key, search.space[key]) for key in space})
        study.tell(trial, len(str(sorted(expected[-1].items()))) % 7)
    assert draws(search, 5, 8) == expected


def test_tpe_models_keys_under_a_condition() -> None:
    """Among 60 trials whose objective is best at temperature 0.3 the later ones are near it; random ones are not."""
    space = {PROJECTION: {"choice": ["linear", "mlp"]}, TEMPERATURE: {"uniform": [0, 1], "when": {PROJECTION: "mlp"}}}

    def distances(name: str) -> list[float]:
        search = SearchConfig.model_validate({"space": space, "sampler": name})
        study = optuna.create_study(direction="maximize", sampler=sampler(search, 1))
        found = []
        for _ in range(60):
            trial = study.ask()
            point = search.point(lambda key, trial=trial: suggest(trial, key, search.space[key]))
            distance = abs(point.get(TEMPERATURE, 1.0) - 0.3)
            study.tell(trial, -distance)
            found.append(distance)
        return sorted(found[30:])

    assert distances("tpe")[15] < 0.1 < distances("random")[15]


@pytest.mark.parametrize("name", ["tpe", "qmc", "random"])
def test_no_warning_of_optuna_reaches_a_user(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    study = study_of(["auc", "size"], sampler=name)
    folder = StudyFolder(tmp_path / "out")
    folder.open(study)
    with warnings.catch_warnings():
        warnings.simplefilter("error", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("error", UserWarning)
        search = StudySearch(study, folder)
        for number in range(5):  # none ends: their keys differ
            assert search.suggest(str(number)) is not None
    assert "QMCSampler" not in capfd.readouterr().err
    assert not caplog.records


# --- Several objectives ------------------------------------------------------------------------------------------


def test_several_objectives_are_told_in_their_directions_and_make_a_front(tmp_path: Path) -> None:
    study = study_of(["auc", "latency", "size"])
    folder = StudyFolder(tmp_path / "out")
    folder.open(study)
    search = StudySearch(study, folder)
    told = [(0.8, 0.01, 1e6), (0.7, 0.02, 2e6), (0.7, 0.005, 1e6), (0.9, None, 1e6), (0.6, 0.02, 1e5)]
    for number, values in enumerate(told):
        assert search.suggest(f"t{number}") is not None
        result = dict(zip(("objective_auc", "objective_latency", "objective_size"), values, strict=True))
        search.on_trial_result(f"t{number}", {"knn_auc": 0.5, "epoch": 1})
        search.on_trial_complete(f"t{number}", {"objective": values[0], **result})
    stored = optuna.load_study(study_name="s", storage=f"sqlite:///{folder.path / 'optuna.db'}")
    assert [direction.name for direction in stored.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    assert stored.metric_names == ["auc", "latency", "size"]
    assert [trial.state.name for trial in stored.trials] == ["COMPLETE", "COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert [trial.number for trial in stored.best_trials] == [0, 2, 4]


def test_a_resumed_study_tells_all_objectives_of_a_trial_that_was_killed_late(tmp_path: Path) -> None:
    study = study_of(["auc", "size"])
    folder = StudyFolder(tmp_path / "out")
    folder.open(study)
    config = StudySearch(study, folder).suggest("a")
    assert config is not None
    record = TrialRecord(0, config["values"], 0, "complete", 0.7, objectives={"auc": 0.7, "size": 1e6})
    folder.finish_trial(record)
    StudySearch(study, folder)
    [trial] = [trial for trial in trials(folder) if trial.state.is_finished()]
    assert trial.values == [0.7, 1e6]


# --- Kills -------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL: nothing that the search does afterwards may matter."""


def killed_at(owner: Any, method: str, search: StudySearch, name: str) -> None:
    """Kills the driver as it calls a method for the sake of a suggestion."""

    def kill(*arguments: Any, **named: Any) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, method, kill)
        with pytest.raises(Killed):
            search.suggest(name)


def test_a_killed_search_hands_out_exactly_what_did_not_end() -> None:
    events = st.lists(
        st.sampled_from(["complete", "failed", "pruned", "running", "queued", "asked", "started", "untold"]),
        min_size=3,
        max_size=7,
    )

    @settings(deadline=None, max_examples=3)
    @given(events)
    def check(events: list[str]) -> None:
        with tempfile.TemporaryDirectory() as path:
            study = study_of(warm_start=[{PROJECTION: "mlp", TEMPERATURE: 0.1, ALPHA: 0.3}])
            folder = StudyFolder(Path(path) / "out")
            folder.open(study)
            run_with_kills(study, folder, events)

    check()


def run_with_kills(study: StudyConfig, folder: StudyFolder, events: list[str]) -> None:
    search, ended = StudySearch(study, folder), {}
    for step, event in enumerate(events):
        name = f"t{step}"
        if event in ("queued", "asked", "started"):
            if event == "started":
                search.suggest(name)
            else:
                owner, method = (search.optuna_study, "ask") if event == "queued" else (folder, "start_trial")
                killed_at(owner, method, search, name)
            search = StudySearch(study, folder)
            continue
        config = search.suggest(name)
        assert config is not None
        if event == "running":
            continue
        number, values = config["trial"], config["values"]
        assert number not in ended, "a trial that ended ran again"
        status = event if event != "untold" else "complete"
        objective = 0.5 + number / 100 if status == "complete" else None
        ended[number] = status
        folder.finish_trial(TrialRecord(number, values, 0, status, objective))
        if event == "untold":
            search = StudySearch(study, folder)
        elif event == "pruned":
            search.on_trial_complete(name, {"knn_auc": 0.6, "epoch": 1})
        else:
            search.on_trial_complete(name, {"objective": objective})

    started = folder.started()
    unfinished = {number: values for number, values in started.items() if number not in ended}
    begun = [json.dumps(values, sort_keys=True) for values in started.values()]
    unbegun = [point for point in first_points(study) if json.dumps(point, sort_keys=True) not in begun]
    search = StudySearch(study, folder)
    stored = trials(folder)
    told = [trial for trial in stored if trial.state.name in ("COMPLETE", "PRUNED")]
    assert {trial.user_attrs["trial"]: trial.state.name for trial in told} == {
        number: status.upper() for number, status in ended.items() if status != "failed"
    }
    assert len(told) == sum(status != "failed" for status in ended.values())
    assert not [trial for trial in stored if trial.state.name == "RUNNING"]
    again = [search.suggest(f"again{number}") for number in range(len(unfinished) + len(unbegun))]
    handed = {config["trial"]: config["values"] for config in again if config is not None}
    assert len(handed) == len(again)
    assert {number: values for number, values in handed.items() if number in unfinished} == unfinished
    new = sorted(json.dumps(values, sort_keys=True) for number, values in handed.items() if number not in unfinished)
    assert new == sorted(json.dumps(point, sort_keys=True) for point in unbegun)
    config = search.suggest("new")
    assert config is not None
    assert config["trial"] == len(folder.started()) - 1


def test_equal_points_that_were_interrupted_all_run_again(tmp_path: Path) -> None:
    study = study_of(space={NEIGHBOURS: {"int": [1, 2]}}, sampler="random")
    folder = StudyFolder(tmp_path / "out")
    folder.open(study)
    for number in range(4):
        folder.start_trial(number, {NEIGHBOURS: 1 + number % 2})
    search = StudySearch(study, folder)
    killed_at(folder, "start_trial", search, "a")
    search = StudySearch(study, folder)
    configs = [search.suggest(f"t{number}") for number in range(4)]
    assert sorted(config["trial"] for config in configs if config is not None) == [0, 1, 2, 3]


def test_an_interrupted_study_draws_what_it_would_have_drawn(tmp_path: Path) -> None:
    def points(name: str, restarts: bool) -> list[Any]:
        folder, found = StudyFolder(tmp_path / name), []
        folder.open(study_of())
        search = StudySearch(study_of(), folder)
        for number in range(6):
            search = StudySearch(study_of(), folder) if restarts else search
            config = search.suggest(str(number))
            assert config is not None
            objective = len(str(config["values"])) % 5 / 5
            folder.finish_trial(TrialRecord(number, config["values"], 0, "complete", objective))
            search.on_trial_complete(str(number), {"objective": objective})
            found.append(config["values"])
        return found

    assert points("whole", restarts=False) == points("broken", restarts=True)


def test_a_lost_storage_is_made_again_from_the_folder(tmp_path: Path) -> None:
    study = study_of()
    folder = StudyFolder(tmp_path / "out")
    folder.open(study)
    search = StudySearch(study, folder)
    for number, status in enumerate(("complete", "pruned", "failed", "complete")):
        config = search.suggest(str(number))
        assert config is not None
        objective = 0.6 + number / 10 if status == "complete" else None
        folder.finish_trial(TrialRecord(number, config["values"], 0, status, objective))
    (folder.path / "optuna.db").unlink()
    StudySearch(study, folder)
    found = sorted(trials(folder), key=lambda trial: trial.user_attrs["trial"])
    assert [trial.state.name for trial in found] == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE"]
    assert [trial.value for trial in found] == [0.6, None, None, pytest.approx(0.9)]
    assert [trial.params for trial in found] == list(folder.started().values())


def test_suggestions_do_not_read_the_folder_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of()
    folder = StudyFolder(tmp_path / "out")
    folder.open(study)
    search = StudySearch(study, folder)

    def read(*arguments: Any) -> None:
        raise AssertionError("the folder was listed")

    for method in ("started", "finished", "record"):
        monkeypatch.setattr(folder, method, read)
    assert [(search.suggest(str(number)) or {})["trial"] for number in range(3)] == [0, 1, 2]
