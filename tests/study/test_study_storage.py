"""Optuna's storage: the folder's file, or a database that several studies share."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest

from asd_ray.config import StudyConfig
from asd_ray.config.study_file import parse_study
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.search import StudySearch

SPACE = {
    "method.pretrain.alpha": {"uniform": [0.1, 0.6]},
    "method.pretrain.projection": {"choice": ["linear", "mlp"]},
    "method.pretrain.temperature": {"loguniform": [0.05, 0.5], "when": {"method.pretrain.projection": "mlp"}},
}


def study_of(storage: str | None = "sqlite:///${DATABASE}", objective: Any = "auc") -> StudyConfig:
    search = {"space": SPACE, "storage": storage}
    return parse_study({"name": "s", "evaluation": {"objective": objective}, "search": search}, "f")


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = str(tmp_path / "shared-secret.db")
    monkeypatch.setenv("DATABASE", path)
    return f"sqlite:///{path}"


def opened(path: Path, study: StudyConfig) -> StudyFolder:
    folder = StudyFolder(path)
    folder.open(study)
    return folder


def finish(search: StudySearch, folder: StudyFolder, trial_id: str, **results: float) -> None:
    config = search.suggest(trial_id)
    assert config is not None
    objectives = {name.removeprefix("objective_"): value for name, value in results.items()}
    first = next(iter(results.values()))
    folder.finish_trial(TrialRecord(config["trial"], config["values"], 0, "complete", first, objectives=objectives))
    search.on_trial_complete(trial_id, {"objective": first, **results})


def test_studies_of_one_name_share_a_database_without_mixing(tmp_path: Path, database: str) -> None:
    study = study_of()
    folders = [opened(tmp_path / name, study) for name in ("a", "b")]
    for number, folder in enumerate(folders):
        search = StudySearch(study, folder)
        for trial in range(number + 1):
            finish(search, folder, str(trial), objective=0.5)
    names = optuna.get_all_study_names(database)
    assert len(names) == 2
    assert all(name.startswith("s-") for name in names)
    counts = {folder.path.name: (folder.path / "optuna_study").read_text().strip() for folder in folders}
    assert [len(optuna.load_study(study_name=counts[name], storage=database).trials) for name in "ab"] == [1, 2]
    assert not (folders[0].path / "optuna.db").exists()
    config = StudySearch(study, folders[1]).suggest("next")  # a resumed study finds its own
    assert config is not None
    assert config["trial"] == 2


def test_what_stands_in_an_environment_variable_is_written_nowhere(tmp_path: Path, database: str) -> None:
    study = study_of()
    folder = opened(tmp_path / "a", study)
    search = StudySearch(study, folder)
    finish(search, folder, "t", objective=0.5)
    search.save(str(folder.path / "searcher"))
    (folder.path / "tuner.pkl").write_bytes(pickle.dumps(search))
    for path in folder.path.rglob("*"):
        assert path.is_dir() or b"shared-secret" not in path.read_bytes(), path
    assert "${DATABASE}" in (folder.path / "study.yaml").read_text()


def test_a_variable_that_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE", raising=False)
    with pytest.raises(ConfigError, match="needs the environment variable DATABASE, which is not set"):
        StudySearch(study_of(), opened(tmp_path / "a", study_of()))


@pytest.mark.parametrize("url", ["sqlite:///${DATABASE}/nowhere/x.db", "nodatabase://u:${DATABASE}@h/x", "${DATABASE}"])
def test_a_storage_that_cannot_be_opened_is_an_error_without_the_secret(
    url: str, tmp_path: Path, database: str
) -> None:
    study = study_of(url)
    with pytest.raises(AsdRayError, match=r"search\.storage: the database cannot be opened") as error:
        StudySearch(study, opened(tmp_path / "a", study))
    assert "shared-secret" not in str(error.value)


def test_a_missing_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(AsdRayError, match="the package psycopg2, which talks to this database, is missing"):
        StudySearch(study_of("postgresql+psycopg2://u@h/x"), opened(tmp_path / "a", study_of()))


def test_a_copied_folder_does_not_write_to_the_first_ones_study(tmp_path: Path, database: str) -> None:
    study = study_of()
    folder = opened(tmp_path / "a", study)
    finish(StudySearch(study, folder), folder, "t", objective=0.5)
    shutil.copytree(folder.path, tmp_path / "copy")
    copy = opened(tmp_path / "copy", study)
    with pytest.raises(AsdRayError, match="If this folder is a copy, delete that file"):
        StudySearch(study, copy)
    (copy.path / "optuna_study").unlink()
    StudySearch(study, copy)
    assert len(optuna.get_all_study_names(database)) == 2
    name = (copy.path / "optuna_study").read_text().strip()
    assert [trial.value for trial in optuna.load_study(study_name=name, storage=database).trials] == [0.5]


def test_a_moved_folder_keeps_its_study(tmp_path: Path, database: str) -> None:
    study = study_of()
    folder = opened(tmp_path / "a", study)
    finish(StudySearch(study, folder), folder, "t", objective=0.5)
    folder.path.rename(tmp_path / "moved")
    config = StudySearch(study, opened(tmp_path / "moved", study)).suggest("next")
    assert config is not None
    assert config["trial"] == 1
    assert len(optuna.get_all_study_names(database)) == 1


def test_before_its_first_trial_a_study_may_change_its_objectives(tmp_path: Path) -> None:
    folder = opened(tmp_path / "a", study_of(None))
    StudySearch(study_of(None), folder)
    several = study_of(None, ["auc", "latency"])
    folder.open(several)
    finish(StudySearch(several, folder), folder, "t", objective_auc=0.7, objective_latency=0.01)
    stored = optuna.load_study(study_name="s", storage=f"sqlite:///{folder.path / 'optuna.db'}")
    assert [trial.values for trial in stored.trials] == [[0.7, 0.01]]


def test_optuna_dashboard_reads_a_study_as_it_stands(tmp_path: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    study = study_of(None, ["auc", "latency"])
    folder = opened(tmp_path / "a", study)
    search = StudySearch(study, folder)
    finish(search, folder, "t0", objective_auc=0.7, objective_latency=0.01)
    finish(search, folder, "t1", objective_auc=0.8, objective_latency=0.02)
    search.suggest("t2")
    search.on_trial_complete("t2", error=True)
    search.suggest("t3")
    app = dashboard.wsgi(f"sqlite:///{folder.path / 'optuna.db'}")

    def get(path: str) -> Any:
        environment: dict[str, Any] = {"PATH_INFO": path}
        setup_testing_defaults(environment)
        environment["wsgi.input"] = io.BytesIO()
        status: list[str] = []
        body = b"".join(app(environment, lambda line, *others: status.append(line)))
        assert status == ["200 OK"]
        return json.loads(body)

    [summary] = get("/api/studies")["study_summaries"]
    assert summary["study_name"] == "s"
    assert summary["directions"] == ["maximize", "minimize"]
    detail = get(f"/api/studies/{summary['study_id']}")
    assert [trial["state"] for trial in detail["trials"]] == ["Complete", "Complete", "Fail", "Running"]
    assert [trial.get("values") for trial in detail["trials"][:2]] == [[0.7, 0.01], [0.8, 0.02]]
    assert {trial["number"] for trial in detail["best_trials"]} == {0, 1}
    first = {item["name"]: item["param_external_value"] for item in detail["trials"][0]["params"]}
    assert set(first) == set(json.loads((folder.trial(0) / "values.json").read_text()))
    assert detail["objective_names"] == ["auc", "latency"]
