"""Search for good values: Optuna proposes them, Ray Tune runs them, the study folder remembers them."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from asd_ray.config import Distribution, Scalar, SearchConfig, StudyConfig
from asd_ray.config.study_file import get_key
from asd_ray.data.clips import stable_hash
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.storage import open_study

PROBE = "knn_auc"
"""The metric of an epoch that shows early how good a trial may become."""
TRIAL, QUEUED = "trial", "queued"
"""User attributes of an Optuna trial: its number in the study folder; the point that it was queued with."""

Point = dict[str, Scalar]


def axis(distribution: Distribution) -> BaseDistribution:
    """Convert a distribution of the study file to Optuna's."""
    if distribution.type == "choice":
        return CategoricalDistribution(distribution.choices or [])
    low, high = distribution.examples()
    kind = IntDistribution if distribution.type.endswith("int") else FloatDistribution
    return kind(low, high, log=distribution.type.startswith("log"))


def suggest(trial: Any, key: str, distribution: Distribution) -> Scalar:
    """Draw the value of one key from an Optuna trial."""
    if distribution.type == "choice":
        return trial.suggest_categorical(key, distribution.choices)
    low, high = distribution.examples()
    log = distribution.type.startswith("log")
    if distribution.type.endswith("int"):
        return trial.suggest_int(key, low, high, log=log)
    return trial.suggest_float(key, low, high, log=log)


def sampler(search: SearchConfig, seed: int) -> optuna.samplers.BaseSampler:
    """Create the study's sampler with every setting spelled out: Optuna's defaults change between versions."""
    if search.sampler in ("random", "grid"):  # the points of a grid are queued; random ones follow them
        return optuna.samplers.RandomSampler(seed=seed)
    if search.sampler == "cmaes":
        return optuna.samplers.CmaEsSampler(
            seed=seed, n_startup_trials=search.startup_trials, warn_independent_sampling=False
        )
    if search.sampler == "qmc":
        return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
    return optuna.samplers.TPESampler(
        seed=seed,
        multivariate=True,
        group=any(distribution.when for distribution in search.space.values()),
        constant_liar=True,
        n_startup_trials=search.startup_trials,
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Optuna's log and its notes on experimental features, then restore what the caller had set."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def scheduler(study: StudyConfig, epochs: int, folder: StudyFolder) -> TrialScheduler:
    """Create the study's early stopping, and tell it the epochs of earlier runs.

    Ray Tune does not store a scheduler. Without those epochs a resumed study would compare its trials with none.

    Args:
        study: the study.
        epochs: of one trial, all stages together.
        folder: the study folder.
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
    """The points tried before the sampler is asked: the default, warm starts, and a grid's points; each once."""
    search = study.search
    unique: dict[frozenset[tuple[str, Scalar]], Point] = {}
    for point in (default_point(study), *search.warm_start, *(search.grid() if search.sampler == "grid" else [])):
        unique.setdefault(_identity(point), point)
    return list(unique.values())


class StudySearch(Searcher):
    """Optuna's suggestions, each with a trial number of the study folder.

    The study folder is the truth, and Optuna's storage is made to agree with it. Optuna is told that a trial was
    pruned if the scheduler stopped it, and that it failed if an objective is not finite. A trial that was running
    when the study was killed keeps its number. The folder is read once, so that a suggestion costs the same number of
    file accesses however many trials there are.
    """

    def __init__(self, study: StudyConfig, folder: StudyFolder) -> None:
        super().__init__()
        self.study, self.folder = study, folder
        kinds = study.evaluation.objectives
        self.results = [f"objective_{kind}" for kind in kinds] if len(kinds) > 1 else ["objective"]
        started, finished = folder.started(), folder.finished()
        with quiet():
            self.optuna_study = open_study(study, folder, new=not started)
        self._running: dict[str, optuna.Trial] = {}
        self._next = max(started, default=-1) + 1
        self._unfinished = {number: values for number, values in started.items() if number not in finished}
        self._reconcile(finished)
        self._queue = self._untried(started)

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its search for a restore that we never do, and a storage's URL may hold a password.
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study folder and Optuna's storage hold all there is."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing, see :meth:`save`."""

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Draw the next point: ``trial`` is its number, ``values`` maps the searched keys to values."""
        if self._queue:  # one at a time: for every suggestion Optuna reads all that waits in its storage
            point = self._queue.popleft()
            self.optuna_study.enqueue_trial(point, user_attrs={QUEUED: point})
        space = self.study.search.space
        with quiet():
            self.optuna_study.sampler = sampler(self.study.search, self._draw_seed())
            trial = self.optuna_study.ask()
            values = self.study.search.point(lambda key: suggest(trial, key, space[key]))
        number = self._number(values)
        trial.set_user_attr(TRIAL, number)
        self.folder.start_trial(number, values)
        self._running[trial_id] = trial
        return {"values": values, "trial": number}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how a trial ended."""
        trial, result = self._running.pop(trial_id, None), result or {}
        if trial is None:
            return
        state, values = _verdict([result.get(name) for name in self.results])
        if error:  # the process may have been lost after the trial's end
            state, values = self._told(self.folder.record(trial.user_attrs[TRIAL]))
        elif len(self.results) == 1 and "objective" not in result and PROBE in result:
            state = TrialState.PRUNED
            trial.report(result[PROBE], result["epoch"])
        self.optuna_study.tell(trial, values, state=state)

    def _draw_seed(self) -> int:
        """Seed of the next suggestion. It depends on how many trials have started, so that an interrupted study draws
        what it would have drawn anyway. A quasi-random sequence is one sequence with one seed."""
        if self.study.search.sampler == "qmc":
            return self.study.seed
        return stable_hash("search", self.study.seed, self._next) % 2**32

    def _number(self, values: Point) -> int:
        """The number of an interrupted trial with these values, else the next new one."""
        for number, earlier in self._unfinished.items():
            if earlier == values:
                del self._unfinished[number]
                return number
        self._next += 1
        return self._next - 1

    def _reconcile(self, finished: Mapping[int, TrialRecord]) -> None:
        """Make Optuna's storage agree with the folder after the study was killed or its storage was lost."""
        known = set()
        for trial in self.optuna_study.get_trials(deepcopy=False):
            number, state = trial.user_attrs.get(TRIAL, -1), trial.state
            if state == TrialState.RUNNING:
                state, values = self._told(finished.get(number))
                self.optuna_study.tell(trial.number, values, state=state)
            known.add((number, state))
        space = {key: axis(distribution) for key, distribution in self.study.search.space.items()}
        for number, record in finished.items():
            state, values = self._told(record)
            if (number, state) not in known:
                self.optuna_study.add_trial(
                    optuna.trial.create_trial(
                        state=state,
                        values=values,
                        params=record.values,
                        distributions={key: space[key] for key in record.values},
                        user_attrs={TRIAL: number},
                    )
                )

    def _told(self, record: TrialRecord | None) -> tuple[TrialState, list[float] | None]:
        """State and values for Optuna from a trial's record. A trial without a record was interrupted."""
        if record is None or record.status != "complete":
            return (TrialState.PRUNED if record is not None and record.status == "pruned" else TrialState.FAIL), None
        kinds = self.study.evaluation.objectives
        return _verdict([record.objectives.get(kind) for kind in kinds] if len(kinds) > 1 else [record.objective])

    def _untried(self, started: Mapping[int, Point]) -> deque[Point]:
        """Points to try before the sampler is asked: those of interrupted trials, and first points that never started.
        A point that a killed study left waiting in Optuna's storage is not queued again."""
        tried = {_identity(values) for values in started.values()}
        points = [*self._unfinished.values(), *(p for p in first_points(self.study) if _identity(p) not in tried)]
        waiting = Counter(
            _identity(trial.user_attrs.get(QUEUED, {}))
            for trial in self.optuna_study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        )
        queue: deque[Point] = deque()
        for point in points:
            if waiting[_identity(point)] > 0:
                waiting[_identity(point)] -= 1
            else:
                queue.append(point)
        return queue


def _identity(point: Mapping[str, Scalar]) -> frozenset[tuple[str, Scalar]]:
    """A key that equal points share, whatever the order of their keys."""
    return frozenset(point.items())


def _verdict(values: list[Any]) -> tuple[TrialState, list[float] | None]:
    """Complete with these objectives, or failed if one of them is not a finite number."""
    if all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
        return TrialState.COMPLETE, values
    return TrialState.FAIL, None
