"""Run a study's trials, and the repeats of the best ones, with Ray Tune."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.tune.trainable import wrap_function

from asd_ray.config import StudyConfig
from asd_ray.config.study_file import budget
from asd_ray.errors import StorageError
from asd_ray.files import storage_error
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.gauges import StudyGauges
from asd_ray.study.progress import StudyProgress
from asd_ray.study.search import PROBE, StudySearch, scheduler
from asd_ray.study.trial import StudyInputs, run_name, run_trial, trial_seed
from asd_ray.study.trial_log import TrialLog, own_values
from asd_ray.training.ray_worker import first_line


def run_trials(study: StudyConfig, folder: StudyFolder, inputs: StudyInputs, progress: StudyProgress) -> None:
    """Run the trials that the study still lacks."""
    missing = study.search.num_trials - len(folder.finished())
    if missing > 0:
        early = scheduler(study, budget(study)["epochs per trial"], folder)
        _fit(study, folder, inputs, progress, StudySearch(study, folder), missing, early)


def run_repeats(study: StudyConfig, folder: StudyFolder, inputs: StudyInputs, progress: StudyProgress) -> None:
    """Run the best trials and the default again with the study's other seeds."""
    missing = missing_repeats(study, folder)
    if missing:
        progress.total += len(missing)
        _fit(study, folder, inputs, progress, Repeats(missing), len(missing))


def missing_repeats(study: StudyConfig, folder: StudyFolder) -> list[dict[str, Any]]:
    """List the repeats that the study still lacks; none before all trials have ended.

    Repeated are the ``search.repeat_best`` trials with the highest objective and trial 0, the default, with
    ``search.seeds`` seeds in all. Trials that did not complete are not repeated.
    """
    finished = folder.finished()
    if len(finished) < study.search.num_trials:
        return []
    complete = [record for record in finished.values() if record.status == "complete"]
    best = sorted(complete, key=lambda record: (-(record.objective or 0.0), record.trial))[: study.search.repeat_best]
    chosen = {record.trial: record for record in [*best, *(record for record in complete if record.trial == 0)]}
    return [
        {"trial": record.trial, "values": record.values, "repeat": repeat}
        for record in chosen.values()
        for repeat in range(1, study.search.seeds)
        if folder.record(record.trial, repeat) is None
    ]


class Repeats(Searcher):
    """A list of runs as a Tune searcher: one after the other."""

    def __init__(self, runs: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self.waiting = list(runs)

    def suggest(self, trial_id: str) -> Any:
        return self.waiting.pop(0) if self.waiting else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        return None

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study folder knows what is left."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing, see :meth:`save`."""


def _fit(
    study: StudyConfig,
    folder: StudyFolder,
    inputs: StudyInputs,
    progress: StudyProgress,
    search: Searcher,
    runs: int,
    early: TrialScheduler | None = None,
) -> None:
    tuner = tune.Tuner(
        tune.with_resources(_trainable(study, inputs), _resources(study)),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=early,
            num_samples=runs,
            max_concurrent_trials=progress.concurrency,
            reuse_actors=study.resources.reuse_processes,
            trial_name_creator=lambda trial: run_name(study, trial.config),
            trial_dirname_creator=lambda trial: run_name(study, trial.config),
        ),
        run_config=tune.RunConfig(
            name=f"session-{len(list((folder.path / 'tune').glob('session-*'))):03d}",
            storage_path=str(folder.path / "tune"),
            failure_config=tune.FailureConfig(max_failures=study.resources.max_failures),
            callbacks=[StudyCallback(study, folder, progress, inputs.claims)],
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except Exception as error:
        raise storage_error(folder.path, error) or error from None


def _trainable(study: StudyConfig, inputs: StudyInputs) -> Any:
    """Create the Tune trainable. In the Ray dashboard its actors carry the study's name, or the trial's name if each
    trial has a process of its own."""
    reference = ray.put(inputs)

    def trial(config: dict[str, Any]) -> None:
        run_trial(config, ray.get(reference))

    base = wrap_function(trial)

    class StudyTrial(base):  # type: ignore[misc, valid-type]
        def __repr__(self) -> str:
            return study.name if study.resources.reuse_processes else str(self.trial_name)  # Ray asks only once

    StudyTrial.__name__ = StudyTrial.__qualname__ = f"{study.name}"
    return StudyTrial


def _resources(study: StudyConfig) -> dict[str, float]:
    """Resources of a trial's Tune actor. With several workers the actor only waits for them and needs no core. It asks
    for a little memory, because Tune refuses an empty request."""
    resources = study.resources
    if resources.workers > 1:
        return {"memory": 100 * 2**20}
    return {
        "CPU": resources.cpus_per_worker,
        **({"GPU": resources.gpus_per_worker} if resources.gpus_per_worker else {}),
    }


class StudyCallback(tune.Callback):
    """Pass a trial's news on to the study's progress, the gauges and the trial's log. Write the record of a trial that
    could not write its own. Delete files that nobody needs."""

    def __init__(self, study: StudyConfig, folder: StudyFolder, progress: StudyProgress, claims: Any = None) -> None:
        self.study, self.folder, self.progress, self.claims = study, folder, progress, claims
        self.gauges, self.log = StudyGauges(study.name), TrialLog(folder)
        self.best: TrialRecord | None = None
        for record in progress.finished:
            self.gauges.ended(record)
            self._discard_detector(record)
        self.started: dict[str, float] = {}
        self.histories: dict[str, list[dict[str, Any]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune stores its callbacks for a restore that we never do; a terminal cannot be stored.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.started.setdefault(trial.trial_id, time.time())
        self.progress.trial_started(*_run(trial), trial.config["values"])
        self.log.starts(_run(trial), trial.config["values"])
        self.gauges.started(*_run(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "lost" in result:
            name = run_name(self.study, trial.config)
            self.progress.say(f"{name}: lost {result['lost']}; its workers go on from the last checkpoint.")
            self.log.lost(_run(trial), f"lost {result['lost']}")
        if "stage" in result:
            self.histories.setdefault(trial.trial_id, []).append(own_values(result))
        self.progress.trial_progress(*_run(trial), result)
        self.gauges.epoch(*_run(trial), result)
        self.log.epoch(_run(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self.folder.record(*_run(trial))
        history = self.histories.pop(trial.trial_id, [])
        if record is None:
            last = next((row for row in reversed(history) if PROBE in row), None)
            if last is None:
                record = self._lost(trial, "the trial ended without a record; see its log")
            else:
                reason = f"stopped by the scheduler after epoch {last['epoch']} with a k-NN AUC of {last[PROBE]:.4f}"
                self.folder.write_history(*_run(trial), history)
                record = self._lost(trial, reason, "pruned", history[: history.index(last) + 1])
        self._ended(trial, record)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        name = run_name(self.study, trial.config)
        self.progress.say(f"{name}: interrupted: {_last_error(trial)}; it goes on from its last checkpoint.")
        self.log.lost(_run(trial), _last_error(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record, reason = self.folder.record(*_run(trial)), _last_error(trial)
        if record is None and StorageError.__name__ in reason:
            raise StorageError(reason.partition("StorageError: ")[2] + ".")  # it runs again when the storage works
        self._ended(trial, record or self._lost(trial, reason))

    def _ended(self, trial: Any, record: TrialRecord) -> None:
        self.progress.trial_finished(record)
        self.gauges.ended(record)
        self.log.ended(record)
        self._discard_detector(record)
        if self.claims is not None:
            self.claims.ended.remote(run_name(self.study, trial.config))

    def _discard_detector(self, record: TrialRecord) -> None:
        """Delete the detector of a trial that is not the best so far, or of the one that no longer is. With several
        objectives the user chooses, and all detectors stay."""
        if self.study.resources.keep_detectors == "all" or not isinstance(self.study.evaluation.objective, str):
            return
        worse: TrialRecord | None = record
        if record.status == "complete" and not record.repeat and _rank(record) > _rank(self.best):
            worse, self.best = self.best, record
        if worse is not None:
            self.folder.discard_detector(worse)

    def _lost(
        self, trial: Any, reason: str, status: str = "failed", history: Sequence[dict[str, Any]] = ()
    ) -> TrialRecord:
        number, repeat = _run(trial)
        seed = trial_seed(self.study, repeat)
        record = TrialRecord(number, trial.config["values"], seed, status, reason=reason, repeat=repeat)
        record.epochs = history[-1]["epoch"] if history else 0
        record.recalled_epochs = sum(bool(row.get("recalled")) for row in history)
        record.duration_s = time.time() - self.started.get(trial.trial_id, time.time())
        self.folder.finish_trial(record)
        return record


def _rank(record: TrialRecord | None) -> tuple[float, int]:
    """Sort key of a trial: the best has the highest. Of equal objectives the earlier trial is better."""
    if record is None or record.objective is None:
        return -math.inf, 0
    return record.objective, -record.trial


def _run(trial: Any) -> tuple[int, int]:
    """Number and repeat of a Tune trial."""
    return trial.config["trial"], trial.config.get("repeat", 0)


def _last_error(trial: Any) -> str:
    """Last line of a trial's last error: the exception, or how its process was lost."""
    lines = [line.strip() for line in Path(trial.error_file).read_text(encoding="utf-8").splitlines() if line.strip()]
    return first_line(lines[-1]) if lines else "unknown error"
