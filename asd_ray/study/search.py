"""The search: Optuna through Ray Tune, with a study folder that remembers which trial is which."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from asd_ray.config import Distribution, Scalar, SearchConfig, StudyConfig
from asd_ray.study.folder import StudyFolder
from asd_ray.study_file import get_key

optuna.logging.set_verbosity(optuna.logging.WARNING)
PROBE = "knn_auc"
"""The metric of an epoch that says early how good a trial may become."""


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
    if search.sampler in ("random", "grid"):  # a grid's points are queued; after them nothing but chance is left
        return optuna.samplers.RandomSampler(seed=seed)
    if search.sampler == "cmaes":
        return optuna.samplers.CmaEsSampler(
            seed=seed, n_startup_trials=search.startup_trials, warn_independent_sampling=False
        )
    if search.sampler == "qmc":
        return optuna.samplers.QMCSampler(
            seed=seed, scramble=True, warn_asynchronous_seeding=False, warn_independent_sampling=False
        )
    return optuna.samplers.TPESampler(
        seed=seed, multivariate=True, constant_liar=True, n_startup_trials=search.startup_trials
    )


def scheduler(study: StudyConfig, epochs: int, folder: StudyFolder) -> TrialScheduler:
    """The study's early stopping, with what earlier runs of the study have seen.

    Ray Tune stores no scheduler, so a resumed study would compare its trials with nobody: the epochs that the study
    folder remembers are told again.

    Args:
        study: the study.
        epochs: of a trial, all stages together.
        folder: of the study.
    """
    config = study.search
    if config.scheduler == "none":
        return FIFOScheduler()
    rungs = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric=PROBE,
        mode="max",
        max_t=max(epochs, config.grace_epochs),
        grace_period=config.grace_epochs,
        reduction_factor=config.reduction,
        brackets=1 if config.scheduler == "asha" else 3,
        stop_last_trials=False,
    )
    for number in folder.finished():
        earlier = SimpleNamespace(trial_id=f"earlier-{number}")
        rungs.on_trial_add(None, earlier)
        for row in folder.history(number):
            rungs.on_trial_result(None, earlier, row)
    return rungs


def default_point(study: StudyConfig) -> dict[str, Scalar]:
    """The study file's own values of the searched keys: the published defaults, always the first trial."""
    return {key: get_key(study, key) for key in study.search.space}


def first_points(study: StudyConfig) -> list[dict[str, Scalar]]:
    """What a study tries before its sampler is asked: the defaults, warm starts, and a grid's points; each once."""
    search = study.search
    points = [default_point(study), *search.warm_start]
    if search.sampler == "grid":
        axes = [distribution.values() or [] for distribution in search.space.values()]
        points += [dict(zip(search.space, point, strict=True)) for point in itertools.product(*axes)]
    return [point for number, point in enumerate(points) if point not in points[:number]]


class StudySearch(OptunaSearch):
    """Optuna's suggestions, each bound to a trial number of the study folder.

    Differs from its base where that would spoil a study: a trial that the scheduler stopped is told as pruned (it would
    count as complete with its last value), a trial without a finite objective as failed (it would stay running for ever
    and repel the sampler), and a trial that a killed study left under way keeps its number.
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
            for point in first_points(study):
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
        result = dict(result or {})
        objective = result.get("objective")
        if not error and "objective" not in result and PROBE in result:
            trial = self._ot_trials.pop(trial_id)
            trial.report(result[PROBE], result["epoch"])
            self._ot_study.tell(trial, state=TrialState.PRUNED)
            return
        failed = error or objective is None or not math.isfinite(objective)
        super().on_trial_complete(trial_id, None if failed else result, error=failed)

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
                pruned = record is not None and record.status == "pruned"
                self._ot_study.tell(trial.number, state=TrialState.PRUNED if pruned else TrialState.FAIL)
        waiting = [t.system_attrs.get("fixed_params") for t in self._ot_study.get_trials(states=(TrialState.WAITING,))]
        for number, values in self.folder.started().items():
            if number not in finished and values not in waiting:
                self._ot_study.enqueue_trial(values)


def _existing_trials(storage: optuna.storages.BaseStorage, name: str) -> list[Any]:
    names = {study.study_name: study._study_id for study in storage.get_all_studies()}
    return storage.get_all_trials(names[name], deepcopy=False) if name in names else []
