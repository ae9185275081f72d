"""Run a study as a user does, and measure its parts."""

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
"""Overrides that make the quickstart as small as possible, to show only that it runs."""


@dataclass(frozen=True)
class Times:
    """Times of one study, in seconds.

    Attributes:
        wall: from the command's start to its end.
        steps: training steps of all epochs, per trial.
        trials: whole trials: from the moment the values are drawn, or from the end of the trial before if trials run
            one after the other.
        starts: from the same moment to the first step, per trial. Contains the first epoch's checkpoint and report.
        training: from the first step to the report of the last epoch, per trial, with checkpoints and k-NN probes.
        span: from the start of the first trial to the end of the last.
        at_once: trials at the same time.
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
        """Time of each trial outside of its steps."""
        return [trial - steps for trial, steps in zip(self.trials, self.steps, strict=True)]

    def share_outside(self, seconds: Sequence[float]) -> float:
        """Share of the study's time, summed over the places for trials, that is outside of these seconds."""
        return 1 - sum(seconds) / (self.at_once * self.wall)


def timed_study(out: Path, overrides: Sequence[str], at_once: int = 1) -> Times:
    """Run the quickstart's study with overrides in a new process, by default one trial at a time.

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
    """Reasons of failed trials, for the message: the folder is about to be deleted."""
    from asd_ray.study.folder import StudyFolder

    records = StudyFolder(out).finished().items()
    return " ".join(f"Trial {number}: {record.reason}" for number, record in records if record.reason)


def times(out: Path, wall: float, at_once: int = 1) -> Times:
    """Read the times from a study folder.

    Args:
        out: the study folder.
        wall: seconds that the study took.
        at_once: trials at the same time.

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
