"""Write a study's tables and report from the records of its trials, without Ray."""

from __future__ import annotations

import shutil
from functools import partial
from typing import Any

import pandas as pd

from asd_ray import parquet
from asd_ray.challenge.submission import write_submission
from asd_ray.config import StudyConfig
from asd_ray.files import write_folder_atomically
from asd_ray.report import tables
from asd_ray.report.findings import Findings
from asd_ray.report.page import write_report
from asd_ray.report.summary import write_summary
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.objectives import with_front


def write_results(folder: StudyFolder, study: StudyConfig) -> None:
    """Write the tables, the best trial's detector and submission, and the report."""
    records = list(folder.finished().values())
    trials = with_front(pd.DataFrame([_row(record, study) for record in records]))
    everything = sorted([*records, *folder.repeats()], key=lambda record: (record.trial, record.repeat))
    results = pd.DataFrame(
        [{"trial": record.trial, "seed": record.seed, **row} for record in everything for row in record.results]
    )
    parquet.write_table(folder.path / "trials.parquet", trials)
    parquet.write_table(folder.path / "results.parquet", results)
    histories = {record.trial: folder.trial(record.trial) / "history.parquet" for record in records}
    parquet.write_table(folder.path / "history.parquet", parquet.read_tables(histories, "trial"))
    best = tables.best_trial(trials)
    if best is not None:
        source = folder.trial(best)
        for name in ("detector", "encoder"):
            if (source / name).is_dir():
                write_folder_atomically(folder.path / name, partial(shutil.copytree, source / name, dirs_exist_ok=True))
        scores = parquet.read_table(source / "scores.parquet")
        write_submission(folder.path / "submission", scores, study.data.layout)
    found = Findings.read(folder.path)
    write_summary(folder.path, found)
    write_report(folder.path, found)


def _row(record: TrialRecord, study: StudyConfig) -> dict[str, Any]:
    own = ("values", "objectives", "results", "repeat")
    row = {key: value for key, value in vars(record).items() if key not in own}
    first = {key: row.pop(key) for key in ("trial", "status", "objective")}
    kinds = study.evaluation.objectives
    several = {f"objective_{kind}": record.objectives.get(kind) for kind in kinds if len(kinds) > 1}
    return {**first, **several, **{key: record.values.get(key) for key in study.search.space}, **row}
