"""A study's tables and report, made from its trials' records: any time, as often as wanted, without Ray."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from asd_ray.config import StudyConfig
from asd_ray.files import write_text
from asd_ray.study import report, tables
from asd_ray.study.folder import StudyFolder, TrialRecord


@dataclass(frozen=True)
class StudyOutcome:
    """Where a study's results are, and what stands in them."""

    folder: Path
    best: int | None
    complete: int
    failed: int
    report: Path

    def as_dict(self) -> dict[str, Any]:
        return {
            key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(self).items()
        }


def write_results(folder: StudyFolder, study: StudyConfig) -> StudyOutcome:
    """Writes the tables, the best trial's detector and submission, and the report, from the trials' records."""
    records = list(folder.finished().values())
    trials = pd.DataFrame([_row(record, study) for record in records])
    everything = sorted([*records, *folder.repeats()], key=lambda record: (record.trial, record.repeat))
    results = pd.DataFrame(
        [{"trial": record.trial, "seed": record.seed, **row} for record in everything for row in record.results]
    )
    tables.write_table(folder.path / "trials.parquet", trials)
    tables.write_table(folder.path / "results.parquet", results)
    histories = [
        frame.assign(trial=record.trial)
        for record in records
        if not (frame := tables.read_table(folder.trial(record.trial) / "history.parquet", missing_ok=True)).empty
    ]
    tables.write_table(folder.path / "history.parquet", pd.concat(histories) if histories else pd.DataFrame())
    best = tables.best_trial(trials)
    if best is not None:
        source = folder.trial(best)
        shutil.copytree(source / "detector", folder.path / "detector", dirs_exist_ok=True)
        write_submission(folder.path / "submission", tables.read_table(source / "scores.parquet"))
    report.write_summary(folder.path)
    html = report.write_report(folder.path)
    complete = sum(record.status == "complete" for record in records)
    return StudyOutcome(folder.path, best, complete, len(records) - complete, html)


def write_submission(folder: Path, scores: pd.DataFrame) -> None:
    """The challenge's score files, ``anomaly_score_<machine>_id_<XX>.csv``: file name and score, sorted by name."""
    shutil.rmtree(folder, ignore_errors=True)
    for (machine, machine_id), members in scores.groupby(["machine", "id"]):
        rows = sorted(
            (path.rsplit("/", 1)[-1], score) for path, score in zip(members["path"], members["score"], strict=True)
        )
        text = "".join(f"{name},{score!r}\n" for name, score in rows)
        write_text(folder / f"anomaly_score_{machine}_id_{machine_id}.csv", text)


def _row(record: TrialRecord, study: StudyConfig) -> dict[str, Any]:
    row = dataclasses.asdict(record)
    values = row.pop("values")
    for own in ("results", "repeat"):
        row.pop(own)
    return {
        "trial": row.pop("trial"),
        "status": row.pop("status"),
        "objective": row.pop("objective"),
        **{key: values.get(key) for key in study.search.space},
        **row,
    }
