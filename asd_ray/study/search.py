"""The search: Optuna through Ray Tune, with a study folder that remembers which trial is which."""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter, deque
from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from asd_ray.config import Distribution, Scalar, SearchConfig, StudyConfig
from asd_ray.config.study_file import get_key
from asd_ray.data.clips import stable_hash
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.objectives import MINIMISED
from asd_ray.study.storage import open_storage

optuna.logging.set_verbosity(optuna.logging.WARNING)
# Its warnings say what `search.sampler` says: which keys are not quasi-random.
logging.getLogger("optuna.samplers._qmc").setLevel(logging.ERROR)
PROBE = "knn_auc"
"""The metric of an epoch that says early how good a trial may become."""

Point = dict[str, Scalar]


def axis(distribution: Distribution) -> BaseDistribution:
    """Optuna's form of a distribution."""
    if distribution.type == "choice":
        return CategoricalDistribution(distribution.choices or [])
    low, high = distribution.examples()
    kind = IntDistribution if distribution.type.endswith("int") else FloatDistribution
    return kind(low, high, log=distribution.type.startswith("log"))


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
    conditional = any(distribution.when for distribution in search.space.values())
    with warnings.catch_warnings():  # Optuna calls both experimental: whoever upgrades it reads that, not every user
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if search.sampler == "qmc":
            return optuna.samplers.QMCSampler(seed=seed, scramble=True)
        return optuna.samplers.TPESampler(
            seed=seed,
            multivariate=True,
            group=conditional,
            constant_liar=True,
            n_startup_trials=search.startup_trials,
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


def default_point(study: StudyConfig) -> Point:
    """The study file's own values of the searched keys: the published defaults, always the first trial."""
    return study.search.point(partial(get_key, study))


def first_points(study: StudyConfig) -> list[Point]:
    """What a study tries before its sampler is asked: the defaults, warm starts, and a grid's points; each once."""
    search = study.search
    unique: dict[frozenset[tuple[str, Scalar]], Point] = {}
    for point in (default_point(study), *search.warm_start, *(search.grid() if search.sampler == "grid" else [])):
        unique.setdefault(_identity(point), point)
    return list(unique.values())


class StudySearch(OptunaSearch):
    """Optuna's suggestions, each bound to a trial number of the study folder.

    The folder is what a study remembers; Optuna's storage is made to agree with it. Differs from its base where that
    would spoil a study: a trial that the scheduler stopped is told as pruned (it would count as complete with its last
    value), a trial without finite objectives as failed (it would stay running for ever and repel the sampler), and a
    trial that a killed study left under way keeps its number. The folder is read once: a suggestion costs the same
    file accesses however many trials there are.
    """

    def __init__(self, study: StudyConfig, folder: StudyFolder) -> None:
        self.study, self.folder = study, folder
        kinds = study.evaluation.objectives
        self.metrics = [f"objective_{kind}" for kind in kinds] if len(kinds) > 1 else ["objective"]
        modes = ["min" if kind in MINIMISED else "max" for kind in kinds]
        started, finished = folder.started(), folder.finished()
        storage, name = open_storage(study, folder, new=not started)
        super().__init__(
            space=self._define,
            metric=self.metrics if len(kinds) > 1 else self.metrics[0],
            mode=modes if len(kinds) > 1 else modes[0],
            study_name=name,
            storage=storage,
            sampler=sampler(study.search, study.seed),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._ot_study.set_metric_names(list(kinds))
        self._ot_study.set_user_attr("study_folder", str(folder.path))
        self._next = max(started, default=-1) + 1
        self._unfinished = {number: values for number, values in started.items() if number not in finished}
        self._reconcile(finished)
        self._queue = self._untried(started)

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its search for a restore that we never do; a storage's URL may hold a password.
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study folder and Optuna's storage know what there is to know."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as for ``save``."""

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        # One at a time: Optuna reads what waits in its storage again for every suggestion.
        if self._queue:
            self._ot_study.enqueue_trial(self._queue.popleft())
        self._ot_study.sampler = sampler(self.study.search, self._draw_seed())
        with warnings.catch_warnings():  # of a model of many trials, which takes its time
            warnings.filterwarnings("ignore", message="Define-by-run function", category=UserWarning)
            config = super().suggest(trial_id)
        if config is None:
            return None
        number = self._number(config["values"])
        self._ot_trials[trial_id].set_user_attr("trial", number)
        self.folder.start_trial(number, config["values"])
        return {**config, "trial": number}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        return None

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        trial, result = self._ot_trials.pop(trial_id, None), result or {}
        if trial is None:
            return
        state, values = _verdict([result.get(metric) for metric in self.metrics])
        if error:  # its process may have been lost after its end
            state, values = self._told(self.folder.record(trial.user_attrs["trial"]))
        elif len(self.metrics) == 1 and "objective" not in result and PROBE in result:
            state = TrialState.PRUNED
            trial.report(result[PROBE], result["epoch"])
        self._ot_study.tell(trial, values, state=state)

    def _define(self, trial: Any) -> dict[str, Any]:
        # The captor that Ray passes would flatten the keys into the configuration; they belong together.
        space = self.study.search.space
        return {"values": self.study.search.point(lambda key: suggest(trial, key, space[key]))}

    def _draw_seed(self) -> int:
        """Seed of the next suggestion: from how many trials were started, so that an interrupted study draws what it
        would have drawn anyway. A quasi-random sequence is one sequence, whose place Optuna's storage knows."""
        if self.study.search.sampler == "qmc":
            return self.study.seed
        return stable_hash("search", self.study.seed, self._next) % 2**32

    def _number(self, values: Point) -> int:
        """The number of an unfinished trial with these values that nobody runs, else the next new one."""
        for number, earlier in self._unfinished.items():
            if earlier == values:
                del self._unfinished[number]
                return number
        self._next += 1
        return self._next - 1

    def _reconcile(self, finished: Mapping[int, TrialRecord]) -> None:
        """Makes Optuna's storage agree with the folder after a study was killed, or has lost its storage."""
        known = set()
        for trial in self._ot_study.get_trials(deepcopy=False):
            number, state = trial.user_attrs.get("trial", -1), trial.state
            if state == TrialState.RUNNING:
                state, values = self._told(finished.get(number))
                self._ot_study.tell(trial.number, values, state=state)
            known.add((number, state))
        space = {key: axis(distribution) for key, distribution in self.study.search.space.items()}
        for number, record in finished.items():
            state, values = self._told(record)
            if (number, state) not in known:
                self._ot_study.add_trial(
                    optuna.trial.create_trial(
                        state=state,
                        values=values,
                        params=record.values,
                        distributions={key: space[key] for key in record.values},
                        user_attrs={"trial": number},
                    )
                )

    def _told(self, record: TrialRecord | None) -> tuple[TrialState, list[float] | None]:
        """What Optuna is told of a trial by its record; one without a record was interrupted."""
        if record is None or record.status != "complete":
            return (TrialState.PRUNED if record is not None and record.status == "pruned" else TrialState.FAIL), None
        kinds = self.study.evaluation.objectives
        return _verdict([record.objectives.get(kind) for kind in kinds] if len(kinds) > 1 else [record.objective])

    def _untried(self, started: Mapping[int, Point]) -> deque[Point]:
        """What is tried before the sampler is asked: interrupted trials, and first points that never started. A kill
        may have left some of them waiting in Optuna's storage, which hands them out without being told again."""
        tried = {_identity(values) for values in started.values()}
        points = [*self._unfinished.values(), *(p for p in first_points(self.study) if _identity(p) not in tried)]
        waiting = Counter(
            _identity(trial.system_attrs.get("fixed_params", {}))
            for trial in self._ot_study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        )
        queue: deque[Point] = deque()
        for point in points:
            if waiting[_identity(point)] > 0:
                waiting[_identity(point)] -= 1
            else:
                queue.append(point)
        return queue


def _identity(point: Mapping[str, Scalar]) -> frozenset[tuple[str, Scalar]]:
    """What two equal points have in common, in whatever order their keys stand."""
    return frozenset(point.items())


def _verdict(values: list[Any]) -> tuple[TrialState, list[float] | None]:
    """Complete with these objectives, or failed where one is not a finite number."""
    if all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
        return TrialState.COMPLETE, values
    return TrialState.FAIL, None
