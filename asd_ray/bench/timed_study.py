"""A study as a user runs it, and where its time went."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from asd_ray.errors import AsdRayError

SMALL = (
    "data.synthetic.machines=1",
    "data.synthetic.train=10",
    "data.synthetic.test_normal=6",
    "data.synthetic.test_anomaly=6",
    "method.pretrain.batch_size=8",
    "method.finetune.batch_size=8",
    "method.pretrain.epochs=1",
    "method.finetune.epochs=1",
)
"""Turns the quickstart into something that only shows whether it runs."""


@dataclass(frozen=True)
class Times:
    """Of one study, in seconds.

    Attributes:
        wall: from the command's start to its end.
        steps: of each trial, of all its epochs' training steps.
        trials: of each trial: from its choice to its own end; of those that run one after the other, from the end of
            the trial before.
        starts: of each trial, from the same moment to its first step: what its first epoch took beside its steps
            (checkpoint, report) is part of it.
        training: of each trial, from its first step to the report of its last epoch: with checkpoints and the k-NN
            probes in between.
        span: from the first trial's choice to the last one's end.
        at_once: trials that ran at the same time.
    """

    wall: float
    steps: tuple[float, ...]
    trials: tuple[float, ...]
    starts: tuple[float, ...] = ()
    training: tuple[float, ...] = ()
    span: float = 0.0
    at_once: int = 1

    @property
    def outside(self) -> list[float]:
        """What each trial took outside of its steps."""
        return [trial - steps for trial, steps in zip(self.trials, self.steps, strict=True)]

    def share_outside(self, seconds: Sequence[float]) -> float:
        """What is left of the study's time, and of as many places as there are for trials, beside these seconds."""
        return 1 - sum(seconds) / (self.at_once * self.wall)


def timed_study(out: Path, overrides: Sequence[str], at_once: int = 1) -> Times:
    """Runs the quickstart's study with other values in a process of its own, by default one trial at a time.

    Raises:
        AsdRayError: the study, or a trial of it, failed.
    """
    from asd_ray.config.study_file import shipped_study

    command = [sys.executable, "-m", "asd_ray", "study", "run", str(shipped_study("quickstart")), "--out", str(out)]
    for override in (f"resources.max_concurrent_trials={at_once}", *overrides):
        command += ["--set", override]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - started
    if done.returncode:
        raise AsdRayError(
            f"bench: the study ended with exit code {done.returncode}: {done.stderr.strip()[-500:]} {_reasons(out)}"
        )
    return times(out, wall, at_once)


def _reasons(out: Path) -> str:
    """Why trials failed: their folder is about to be deleted."""
    from asd_ray.study.folder import StudyFolder

    records = StudyFolder(out).finished().items()
    return " ".join(f"Trial {number}: {record.reason}" for number, record in records if record.reason)


def times(out: Path, wall: float, at_once: int = 1) -> Times:
    """Reads the folder of a study that took so long, with so many trials at a time.

    Raises:
        AsdRayError: a trial failed.
    """
    from asd_ray.study.folder import StudyFolder

    folder = StudyFolder(out)
    steps, trials, starts, training = [], [], [], []
    first = last = end = (folder.trial(0) / "values.json").stat().st_mtime
    for number, record in sorted(folder.finished().items()):
        begin = end if at_once == 1 else (folder.trial(number) / "values.json").stat().st_mtime
        if record.status != "complete":
            raise AsdRayError(f"bench: trial {number} is {record.status}: {record.reason}")
        epochs = [float(epoch["seconds"]) for epoch in folder.history(number)]
        told = re.findall(r"^(\S+ \S+) .*epoch \d+ of", (folder.trial(number) / "trial.log").read_text(), re.MULTILINE)
        reported = [datetime.fromisoformat(at).timestamp() for at in told]
        if not reported or not epochs:
            raise AsdRayError(f"bench: trial {number} has no log of its epochs")
        first_step, end = reported[0] - epochs[0], (folder.trial(number) / "trial.json").stat().st_mtime
        steps.append(sum(epochs))
        trials.append(end - begin)
        starts.append(first_step - begin)
        training.append(reported[-1] - first_step)
        last = max(last, end)
    return Times(wall, tuple(steps), tuple(trials), tuple(starts), tuple(training), last - first, at_once)
