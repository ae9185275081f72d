"""Write a trial's ``trial.log`` and its curves for TensorBoard into the trial's folder.

The driver writes both from the trials' reports. They survive a lost worker, and a resumed trial appends to the same
files. ``tensorboard --logdir DIR/trials`` shows every trial and every repeat under its number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ray.tune.result import AUTO_RESULT_KEYS, DONE, EXPERIMENT_TAG, RESULT_DUPLICATE, SHOULD_CHECKPOINT, TRIAL_ID
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from asd_ray.config import Scalar
from asd_ray.report.text import format_seconds
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.progress import format_epoch

TUNES = frozenset((*AUTO_RESULT_KEYS, TRIAL_ID, EXPERIMENT_TAG, DONE, SHOULD_CHECKPOINT, RESULT_DUPLICATE))
"""Keys that Ray Tune adds to a result."""
PLACES = ("stage", "epoch", "epochs", "recalled")
"""Values of an epoch's report that are no metrics: they name the epoch."""
Run = tuple[int, int]
"""Number and repeat of a trial."""


def own_values(result: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a trial's epoch reported, without the keys of Ray Tune."""
    return {k: v for k, v in result.items() if k not in TUNES and isinstance(v, (int, float, str))}


class TrialLog:
    """The logs and curves of a study's trials.

    Args:
        folder: of the study.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self.writers: dict[Run, SummaryWriter] = {}

    def starts(self, run: Run, values: Mapping[str, Scalar]) -> None:
        """Log that a trial begins, or goes on after an interruption."""
        again = (self.folder.trial(*run) / "trial.log").exists()
        shown = ", ".join(f"{key} = {value}" for key, value in values.items()) or "the study file's own values"
        self._line(run, f"starts again: {shown}" if again else f"starts: {shown}")

    def epoch(self, run: Run, result: Mapping[str, Any]) -> None:
        """Log an epoch and add its metrics to the curves ``<stage>/<metric>``. Other results are ignored."""
        if "stage" not in result:
            return
        if run not in self.writers:
            self._line(run, f"runs on {result.get('hostname')}, process {result.get('pid')}")
        seconds = f", {result['seconds']:.1f} s" if "seconds" in result else ""
        recalled = " (trained by an earlier trial)" if result.get("recalled") else ""
        self._line(run, f"{format_epoch(result)}{seconds}{recalled}")
        for name, value in own_values(result).items():
            if name not in PLACES and not isinstance(value, str) and math.isfinite(value):
                self._writer(run).add_scalar(f"{result['stage']}/{name}", value, result["epoch"])

    def lost(self, run: Run, reason: str) -> None:
        """Log that a process of the trial was lost; Ray starts another."""
        self._close(run)
        self._line(run, f"interrupted: {reason}; it goes on from its last checkpoint")

    def ended(self, record: TrialRecord) -> None:
        """Log the end of a trial, whatever its status."""
        run = record.trial, record.repeat
        what = record.reason if record.objective is None else f"objective {100 * record.objective:.2f}"
        self._line(run, f"{record.status} after {format_seconds(record.duration_s)}: {what}")
        if record.objective is not None:
            writer = self._writer(run)
            writer.add_scalar("objective", record.objective, record.epochs)
            values = {
                key: value if isinstance(value, (int, float)) else str(value) for key, value in record.values.items()
            }
            for summary in hparams(values, {"objective": record.objective}):
                writer.file_writer.add_summary(summary)
        self._close(run)

    def _writer(self, run: Run) -> SummaryWriter:
        if run not in self.writers:
            suffix = f".{time.time_ns()}"  # or a second file of the same second would overwrite the first
            self.writers[run] = SummaryWriter(str(self.folder.trial(*run)), flush_secs=30, filename_suffix=suffix)
        return self.writers[run]

    def _close(self, run: Run) -> None:
        if run in self.writers:
            self.writers.pop(run).close()

    def _line(self, run: Run, text: str) -> None:
        path = self.folder.trial(*run) / "trial.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            now = datetime.now().isoformat(" ", "milliseconds")
            file.write(f"{now} {' '.join(text.split())}\n")
