"""Estimate a study's time and resources before it runs.

    time = setup + ceil(trials / concurrency) x trial + ceil(repeats / concurrency) x trial
    trial = overhead + sum over stages of epochs x clips / rate

``rate`` is in clips per second of one trial, all its workers together. ``overhead`` is a trial's time outside of
training: starting processes, scoring test clips, writing the record. The estimate has trials run in waves of
``concurrency``. In truth a trial starts as soon as another ends, which is the same if all take equally long.

The estimate is an upper bound if trials stop early (a scheduler, ``patience``) or share a trained stage. It does not
contain the final report (seconds), waiting for an autoscaler's nodes, or trials that run again.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from asd_ray.config import StudyConfig
from asd_ray.config.study_file import budget
from asd_ray.errors import ConfigError

# Defaults, measured on two cores: a Tune trial starts in 5 s, the workers of Ray Train in 15 s more.
START_S = 5.0
TRAIN_START_S = 15.0


@dataclass(frozen=True)
class Speed:
    """Speed of trials, measured in another study or given by the user.

    Attributes:
        rates: stage -> clips per second of one trial; the key ``""`` stands for all other stages.
        clips: stage -> training clips of an epoch; ``""`` as above.
        overhead_s: of a trial, outside of its training.
        setup_s: until the first trial starts: Ray, data, features, baselines.
        resources: of the Ray that it was measured on; empty if unknown.
        trials: number of measured trials; 0 if the user gave the speed.
    """

    rates: Mapping[str, float]
    clips: Mapping[str, float]
    overhead_s: float
    setup_s: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    trials: int = 0

    def epoch_s(self, stage: str) -> float:
        """Seconds of one epoch."""
        return self._of(self.clips, stage, "--clips") / self._of(self.rates, stage, "--rate")

    def _of(self, values: Mapping[str, float], stage: str, option: str) -> float:
        found = values.get(stage, values.get(""))
        if found is None:
            known = f", only of {', '.join(sorted(values))}" if values else ""
            raise ConfigError(f"no measurement for the stage {stage}{known}; give {option}.")
        return found


@dataclass(frozen=True)
class Cost:
    """Time and resources of a study.

    Attributes:
        trials: number of runs, including repeats.
        concurrency: runs at the same time.
        waves: number of times that ``concurrency`` runs start.
        trial_s: seconds of one run.
        setup_s: seconds before the first.
        gpu_hours: GPUs reserved by trials x hours; 0 without GPUs.
        cpu_hours: CPUs reserved by trials x hours.
    """

    trials: int
    concurrency: int
    waves: int
    trial_s: float
    setup_s: float
    gpu_hours: float
    cpu_hours: float

    @property
    def seconds(self) -> float:
        """Duration of the whole study."""
        return self.setup_s + self.waves * self.trial_s

    def as_dict(self) -> dict[str, float]:
        """All values, for JSON."""
        return {**vars(self), "seconds": self.seconds}

    def __str__(self) -> str:
        from asd_ray.report.text import format_seconds

        reserved = f"{self.gpu_hours:.1f} GPU-hours" if self.gpu_hours else f"{self.cpu_hours:.1f} CPU-hours"
        after = f", after {format_seconds(self.setup_s)}" if self.setup_s else ""
        return (
            f"{format_seconds(self.seconds)} and {reserved}: {self.trials} runs, {self.concurrency} at a time, "
            f"{format_seconds(self.trial_s)} each{after}"
        )


def estimate(study: StudyConfig, speed: Speed, concurrency: int | None = None) -> Cost:
    """Estimate a study.

    Args:
        study: validated.
        speed: of the same kind of trial (encoder, batch size, number of workers) on the same hardware.
        concurrency: trials at the same time. None: the study's own limit, else as many as fit on the Ray where the
            speed was measured, else 1.

    Raises:
        ConfigError: the speed of one of the study's stages, or its number of clips, is not known.
    """
    planned, resources = budget(study), study.resources
    fit = resources.room(speed.resources) if speed.resources else 1
    concurrency = concurrency or resources.max_concurrent_trials or fit
    trials, repeats = planned["trials"], planned.get("repeats", 0)
    stages = study.method.stage_epochs.items()
    trial_s = speed.overhead_s + sum(epochs * speed.epoch_s(stage) for stage, epochs in stages if epochs)
    hours = (trials + repeats) * trial_s * resources.workers / 3600
    return Cost(
        trials=trials + repeats,
        concurrency=concurrency,
        waves=math.ceil(trials / concurrency) + math.ceil(repeats / concurrency),
        trial_s=trial_s,
        setup_s=speed.setup_s,
        gpu_hours=hours * resources.gpus_per_worker,
        cpu_hours=hours * resources.cpus_per_worker,
    )


def cost(
    study: StudyConfig, like: Path | None, rate: float | None, clips: int | None, concurrency: int | None
) -> Cost | None:
    """Estimate a study from another study's folder (``like``) or from a rate. None if neither is given.

    Raises:
        ConfigError: both are given, or something that they need is not.
    """
    if like is not None and rate is not None:
        raise ConfigError("--like and --rate both say how fast a trial is; give one of them.")
    if like is not None:
        return estimate(study, measured(like, clips), concurrency)
    return None if rate is None else estimate(study, said(study, rate, clips), concurrency)


def said(study: StudyConfig, rate: float, clips: int | None) -> Speed:
    """Speed given by the user: ``rate`` clips per second of a trial, and the training clips of an epoch.

    Raises:
        ConfigError: ``clips`` is None and the study does not say how many there are.
    """
    made = study.data.synthetic
    if clips is None and (study.data.layout != "synthetic" or study.data.root is not None):
        raise ConfigError("--rate: how many training clips an epoch has is not in the study file; give --clips.")
    counted = clips if clips is not None else made.machines * made.ids * made.train
    start = START_S + (TRAIN_START_S if study.resources.workers > 1 else 0.0)
    return Speed({"": rate}, {"": counted}, start)


def measured(folder: Path, clips: int | None = None) -> Speed:
    """Measure the speed of a study that ran or still runs, from its completed trials.

    A stage's rate is all clips over all seconds of its epochs. The overhead is the median of the trials' time outside
    of their epochs, counted from when their values were written. The set-up time comes from the study's log.

    Args:
        folder: of the study.
        clips: training clips of an epoch, if the number differs from that study's.

    Raises:
        ConfigError: there is no study, or none of its trials completed.
    """
    from asd_ray.study.folder import StudyFolder

    study = StudyFolder(folder)
    study.study()
    seen: dict[str, float] = {}
    spent: dict[str, float] = {}
    epochs: dict[str, int] = {}
    overheads = []
    for number, record in study.finished().items():
        history = study.history(number)
        if record.status != "complete" or record.recalled_epochs or not history:
            continue
        for row in history:
            stage, seconds = row["stage"], row["seconds"]
            seen[stage] = seen.get(stage, 0.0) + row["samples_per_s"] * seconds
            spent[stage] = spent.get(stage, 0.0) + seconds
            epochs[stage] = epochs.get(stage, 0) + 1
        own = study.trial(number)
        wall = (own / "trial.json").stat().st_mtime - (own / "values.json").stat().st_mtime
        # A folder that was copied has lost its times: then the start of the trial's process is missing.
        overheads.append(max(wall, record.duration_s) - sum(row["seconds"] for row in history))
    if not overheads:
        raise ConfigError(
            f"{folder}: none of its trials completed with all its stages trained, so none can be measured."
        )
    return Speed(
        rates={stage: seen[stage] / spent[stage] for stage in seen},
        clips={"": clips} if clips is not None else {stage: seen[stage] / epochs[stage] for stage in seen},
        overhead_s=max(median(overheads), 0.0),
        setup_s=_setup_s(study.path),
        resources=_resources(study.path),
        trials=len(overheads),
    )


def _setup_s(folder: Path) -> float:
    """Seconds from the first line of a study's log to its first trial; 0 if unknown."""
    with contextlib.suppress(OSError, ValueError), (folder / "logs" / "study.log").open(encoding="utf-8") as log:
        began = line = log.readline()
        while line:
            if re.search(r" INFO (trials$|trial \S+ starts: )", line):
                return (_moment(line) - _moment(began)).total_seconds()
            line = log.readline()
    return 0.0


def _moment(line: str) -> datetime.datetime:
    return datetime.datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S")


def _resources(folder: Path) -> dict[str, float]:
    """Resources of the Ray that a study ran on; empty if unknown."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((folder / "env.json").read_text(encoding="utf-8")).get("ray_resources", {}))
    return {}
