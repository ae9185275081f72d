"""The outcome of a study: its tables as data frames, its best trial, its detector."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from asd_ray.config import StudyConfig
from asd_ray.parquet import read_table
from asd_ray.report.tables import BASELINE_COLUMNS, RESULT_COLUMNS, TRIAL_COLUMNS, best_trial
from asd_ray.study.folder import StudyFolder

if TYPE_CHECKING:
    from asd_ray.detector.detector import Detector


def read_study(folder: str | Path) -> StudyOutcome:
    """Read the folder of a study that ran. Needs no Ray.

    Args:
        folder: the study folder.

    Returns:
        The study's tables (``trials``, ``results``, ``baselines``, ``history``) as data frames, ``best``, its row of
        ``trials``, and ``detector()``.

    Raises:
        ConfigError: the folder holds no study.

    Example:
        >>> outcome = read_study("runs/first")
        >>> outcome.results.query("split == 'holdout'").groupby("machine")["auc"].mean()
    """
    return StudyOutcome(folder)


class StudyOutcome:
    """The tables, the best trial and the detector of a study that ran. A table is read when it is first used.

    Attributes:
        folder: the study folder.
        study: the study, every default filled in.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = StudyFolder(Path(folder))
        self.folder = self._folder.path
        self.study: StudyConfig = self._folder.study()

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per trial: ``trial, status, objective``, the searched keys, ``epochs, duration_s, ...``."""
        return read_table(self.folder / "trials.parquet", TRIAL_COLUMNS)

    @cached_property
    def results(self) -> pd.DataFrame:
        """One row per trial x seed x split x machine x ID: ``auc``, ``pauc`` (fractions of 1) and numbers of clips."""
        return read_table(self.folder / "results.parquet", RESULT_COLUMNS)

    @cached_property
    def baselines(self) -> pd.DataFrame:
        """The same for the baselines that train nothing, with ``baseline`` instead of ``trial`` and ``seed``."""
        return read_table(self.folder / "baselines.parquet", BASELINE_COLUMNS)

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per trial x repeat x epoch: ``stage``, ``epoch``, ``loss`` and the stage's other metrics."""
        parts = [read_table(self.folder / "history.parquet").assign(repeat=0)]
        for record in self._folder.repeats():
            rows = pd.DataFrame(self._folder.history(record.trial, record.repeat))
            parts.append(rows.assign(trial=record.trial, repeat=record.repeat))
        frame = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
        first = [name for name in ("trial", "repeat", "stage", "epoch") if name in frame]
        frame = frame[[*first, *(name for name in frame if name not in first)]]
        return frame.sort_values(first[:2], kind="stable", ignore_index=True) if len(frame) else frame

    @property
    def best(self) -> pd.Series | None:
        """The row of ``trials`` with the highest objective; None if no trial completed."""
        number = best_trial(self.trials)
        return None if number is None else self.trials[self.trials["trial"] == number].iloc[0]

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    def detector(self) -> Detector:
        """Load the best trial's detector.

        Raises:
            AsdRayError: no trial completed, so that there is none.
        """
        from asd_ray.detector.detector import Detector

        return Detector.load(self.folder / "detector")

    def counts(self) -> dict[str, int]:
        """Number of trials by status: ``complete``, ``pruned``, ``failed``."""
        return {status: int((self.trials["status"] == status).sum()) for status in ("complete", "pruned", "failed")}

    def as_dict(self) -> dict[str, Any]:
        """Folder, best trial, counts and report, as plain values for JSON."""
        best = self.best
        number = None if best is None else int(best["trial"])
        return {"folder": str(self.folder), "best": number, **self.counts(), "report": str(self.report)}

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.counts().items() if count)
        best = self.best
        head = "" if best is None else f"; best trial {best['trial']} with objective {100 * best['objective']:.2f}"
        return f"<study {self.study.name} in {self.folder}: {counts or 'no'} trials{head}>"
