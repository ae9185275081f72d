"""The search: Optuna through Ray Tune, with a study folder that remembers which trial is which."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from asd_ray.config import Distribution, Scalar, SearchConfig, StudyConfig
from asd_ray.study.folder import StudyFolder
from asd_ray.study_file import get_key

optuna.logging.set_verbosity(optuna.logging.WARNING)


def suggest(trial: Any, key: str, distribution: Distribution) -> Scalar:
    """Draws one key from an Optuna trial."""
    if distribution.type == "choice":
        return trial.suggest_categorical(key, distribution.choices)
    low, high = distribution.examples()
    log = distribution.type.startswith("log")
    if distribution.type.endswith("int"):
        return trial.suggest_int(key, low, high, log=log)
    return trial.suggest_float(key, low, high, log=log)


def sampler(search: SearchConfig, seed: int) -> optuna.samplers.BaseSampler:
    """The explicit sampler of a study; Optuna's defaults change between its versions, a study's must not."""
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed, multivariate=True, constant_liar=True, n_startup_trials=search.startup_trials
    )


def default_point(study: StudyConfig) -> dict[str, Scalar]:
    """The study file's own values of the searched keys: the published defaults, always the first trial."""
    return {key: get_key(study, key) for key in study.search.space}


class StudySearch(OptunaSearch):
    """Optuna's suggestions, each bound to a trial number of the study folder.

    Differs from its base where that would spoil a study: intermediate results are not told to Optuna (a stopped trial
    would count as complete with its last value), a trial without a finite objective is told as failed (it would stay
    running for ever and repel the sampler), and a trial that a killed study left under way keeps its number.
    """

    def __init__(self, study: StudyConfig, folder: StudyFolder) -> None:
        self.folder = folder
        self.space = study.search.space
        path = folder.path / "optuna.db"
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        earlier = _existing_trials(storage, study.name)
        super().__init__(
            space=self._define,
            metric="objective",
            mode="max",
            study_name=study.name,
            storage=storage,
            sampler=sampler(study.search, seed=study.seed + len(earlier)),
        )
        self._numbers: dict[str, int] = {}
        if earlier:
            self._reconcile()
        else:
            for point in [default_point(study), *study.search.warm_start]:
                self._ot_study.enqueue_trial(point)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        config = super().suggest(trial_id)
        if config is None:
            return None
        number = self._number(config["values"])
        self._numbers[trial_id] = number
        self._ot_trials[trial_id].set_user_attr("trial", number)
        self.folder.start_trial(number, config["values"])
        return {**config, "trial": number}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        return None

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        objective = (result or {}).get("objective")
        failed = error or objective is None or not math.isfinite(objective)
        super().on_trial_complete(trial_id, None if failed else dict(result or {}), error=failed)

    def _define(self, trial: Any) -> dict[str, Any]:
        # The captor that Ray passes would flatten the keys into the configuration; they belong together.
        values = {key: suggest(trial, key, distribution) for key, distribution in self.space.items()}
        return {"values": values}

    def _number(self, values: Mapping[str, Scalar]) -> int:
        """The number of an unfinished trial with these values that nobody runs, else the next new one."""
        started, finished = self.folder.started(), self.folder.finished()
        for number, earlier in started.items():
            if number not in finished and number not in self._numbers.values() and earlier == values:
                return number
        return max(started, default=-1) + 1

    def _reconcile(self) -> None:
        """Makes Optuna's storage agree with the folder after a study was killed."""
        finished = self.folder.finished()
        for trial in self._ot_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            record = finished.get(trial.user_attrs.get("trial", -1))
            if record is not None and record.objective is not None:
                self._ot_study.tell(trial.number, record.objective)
            else:
                self._ot_study.tell(trial.number, state=TrialState.FAIL)
        waiting = [t.system_attrs.get("fixed_params") for t in self._ot_study.get_trials(states=(TrialState.WAITING,))]
        for number, values in self.folder.started().items():
            if number not in finished and values not in waiting:
                self._ot_study.enqueue_trial(values)


def _existing_trials(storage: optuna.storages.BaseStorage, name: str) -> list[Any]:
    names = {study.study_name: study._study_id for study in storage.get_all_studies()}
    return storage.get_all_trials(names[name], deepcopy=False) if name in names else []
