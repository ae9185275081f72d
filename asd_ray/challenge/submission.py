"""Read and write the challenge's score and decision files.

File names that the official evaluators of DCASE Task 2 read:

* 2020: ``anomaly_score_<machine>_id_<XX>.csv`` (y-kawagu/dcase2020_task2_evaluator);
* 2021: ``anomaly_score_<machine>_section_<XX>_source_test.csv`` and ``…_target_test.csv`` (y-kawagu's of 2021);
* 2022 to 2025: ``anomaly_score_<machine>_section_<XX>_test.csv`` (Kota-Dohi/dcase2022_evaluator; nttcslab's of 2023 and
  2024 also read the baseline's ``anomaly_score_DCASE2023T2<machine>_section_<XX>_test_seed<N><tag>_Eval.csv``).

Rows are ``file,score`` without a header. ``decision_result_…`` files have rows ``file,decision``; 1 is an anomaly.
"""

from __future__ import annotations

import math
import re
from pathlib import Path, PurePosixPath

import pandas as pd

from asd_ray.data.layouts import dcase2020, dcase2022
from asd_ray.data.side_files import csv_text, read_csv
from asd_ray.errors import AsdRayError
from asd_ray.files import write_text

DEVELOPMENT = "development"
"""Subfolder of a DCASE 2020 submission for the development IDs: the official evaluator stops at files of their IDs."""

_SECTION = re.compile(
    r"(?:DCASE\d{4}T2)?(?P<machine>.+)_section_(?P<id>\d{2})(?:_(?:source|target))?(?:_test)?(?:_seed.+)?\.csv"
)
_ID = re.compile(r"(?P<machine>.+)_id_(?P<id>.+)\.csv")
_KINDS = {"score": "anomaly_score_", "decision": "decision_result_"}


def write_submission(folder: Path, scores: pd.DataFrame, layout: str) -> None:
    """Write a system's scores, and decisions if present, as the layout's evaluator reads them.

    Rows are ordered by file name and keep every digit. Other files of an earlier submission are deleted. If clips of
    an ID share a file name (layout ``folder``), rows have their paths instead.

    Args:
        folder: of the submission.
        scores: one row per clip: ``path, machine, id, score`` and, if wanted, ``decision`` (0 or 1).
        layout: of the data set, a registered layout.
    """
    files: dict[str, list[int]] = {}
    for number, name in enumerate(_submission_names(scores, layout)):
        files.setdefault(name, []).append(number)
    written, all_paths = set(), scores["path"].tolist()
    for column, prefix in _KINDS.items():
        if column not in scores:
            continue
        values = scores[column].tolist()
        for name, members in files.items():
            paths = [all_paths[number] for number in members]
            called = [PurePosixPath(path).name for path in paths]
            if len(set(called)) < len(called):
                called = paths
            rows = sorted(zip(called, (repr(values[number]) for number in members), strict=True))
            target = folder / PurePosixPath(name).parent / (prefix + PurePosixPath(name).name)
            write_text(target, csv_text(rows))
            written.add(target)
    for old in {*folder.glob("*.csv"), *folder.glob(f"{DEVELOPMENT}/*.csv")} - written:
        if old.name.startswith(tuple(_KINDS.values())):
            old.unlink()


def _submission_names(scores: pd.DataFrame, layout: str) -> list[str]:
    """File of every row, without its prefix: ``fan_id_00.csv``, ``development/fan_id_00.csv``."""
    keys = list(scores[["path", "machine", "id"]].itertuples(index=False, name=None))
    sections = layout == "dcase2022" or (
        layout == "synthetic" and any(PurePosixPath(path).name.startswith("section_") for path, _, _ in keys)
    )
    if sections:
        names = []
        for path, machine, section in keys:
            test = PurePosixPath(path).parent.name
            test = test if test in dcase2022.FOLDERS and test != "train" else "test"
            names.append(f"{machine}_section_{section}_{test}.csv")
        return names
    part = [
        dcase2020.part(machine, machine_id, False) if layout == "dcase2020" else "" for _, machine, machine_id in keys
    ]
    both = {"dev", "eval"} <= set(part)
    return [
        (f"{DEVELOPMENT}/" if both and part[number] == "dev" else "") + f"{machine}_id_{machine_id}.csv"
        for number, (_, machine, machine_id) in enumerate(keys)
    ]


def read_scores(folder: Path) -> pd.DataFrame:
    """Read the score files of a folder (not of its subfolders).

    A byte-order mark, any line ends and empty lines are accepted.

    Returns:
        ``machine, id, file, score`` and ``place`` (file and line) of every row, ordered by file and line.

    Raises:
        AsdRayError: no such folder, no score file, a row other than ``file,score`` with a finite score, or a repeated
            file name. Names the file and the line.
    """
    return _read(folder, "score")


def read_decisions(folder: Path) -> pd.DataFrame:
    """Read decision files like ``read_scores``, with ``decision`` (0 or 1); no rows without such files."""
    return _read(folder, "decision")


def _read(folder: Path, column: str) -> pd.DataFrame:
    prefix = _KINDS[column]
    if not folder.is_dir():
        raise AsdRayError(f"{folder}: there is no such folder; expected one with files {prefix}<machine>_….csv.")
    rows: list[tuple[str, str, str, float, str]] = []
    first: dict[tuple[str, str, str], str] = {}
    for path in sorted(folder.glob(f"{prefix}*.csv")):
        name = path.name.removeprefix(prefix)
        match = _SECTION.fullmatch(name) or _ID.fullmatch(name)
        if match is None:
            raise AsdRayError(
                f"{path}: not a file name of the challenge; expected {prefix}<machine>_id_<XX>.csv or "
                f"{prefix}<machine>_section_<XX>_test.csv."
            )
        for line, file, text in _csv_rows(path, column):
            place = f"{path}, line {line}"
            key = match["machine"], match["id"], file
            if key in first:
                raise AsdRayError(f"{place}: found {file} a second time, after {first[key]}; expected every clip once.")
            first[key] = place
            rows.append((*key, _number(place, column, text), place))
    if not rows and column == "score":
        raise AsdRayError(
            f"{folder}: there is no score file; expected {prefix}<machine>_id_<XX>.csv or "
            f"{prefix}<machine>_section_<XX>_test.csv."
        )
    return pd.DataFrame(rows, columns=["machine", "id", "file", column, "place"])


def _csv_rows(path: Path, column: str) -> list[tuple[int, str, str]]:
    rows = []
    for line, row in read_csv(path):
        if len(row) != 2 or not row[0]:
            raise AsdRayError(
                f"{path}, line {line}: found {','.join(row)!r}; expected a file name and a {column}, separated by a "
                "comma."
            )
        rows.append((line, row[0], row[1]))
    if not rows:
        raise AsdRayError(f"{path}: the file is empty; expected a row file,{column} for every test clip.")
    return rows


def _number(place: str, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if column == "decision":
        if value not in (0, 1):
            raise AsdRayError(f"{place}: found the decision {text!r}; expected 0 (normal) or 1 (anomaly).")
        return int(value)
    if not math.isfinite(value):
        raise AsdRayError(f"{place}: found the score {text!r}; expected a finite number (and no header).")
    return value
