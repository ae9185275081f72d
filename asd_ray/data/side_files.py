"""What CSV files beside the recordings say: labels of evaluation clips, attributes, and faults."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TextIO

from asd_ray.errors import AsdRayError

LABELS = "test_labels.csv"
"""A machine's list of labels: ``file,label[,domain]``, written by ``data download`` from the published ground truth."""


class Fault(NamedTuple):
    """What ``faults.csv`` says of a clip: kind, and where known the band (``low``, ``high``) and severity (0 to 1)."""

    kind: str
    band: str
    severity: str


def read_rows(path: Path, required: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a header, as (line number, column -> stripped text).

    A column that is not there, or has nothing in a row, is "".

    Raises:
        AsdRayError: not UTF-8, a required column missing, a column of another name, a row of another length, or a
            required value missing.
    """
    with _open_csv(path) as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        if not set(required) <= set(header) <= {*required, *optional} or len(set(header)) < len(header):
            raise AsdRayError(
                f"{path}, line 1: found the columns {', '.join(header) or '(none)'}; expected {', '.join(required)} "
                f"and, where wanted, {', '.join(optional)}."
            )
        for row in reader:
            if not row:
                continue
            place = f"{path}, line {reader.line_num}"
            if len(row) != len(header):
                raise AsdRayError(f"{place}: found {len(row)} values; expected {len(header)} ({', '.join(header)}).")
            values = dict.fromkeys(optional, "") | dict(zip(header, map(str.strip, row), strict=True))
            if empty := [name for name in required if not values[name]]:
                raise AsdRayError(f"{place}: found nothing under {', '.join(empty)}; expected a value.")
            yield reader.line_num, values


@contextmanager
def _open_csv(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except (UnicodeDecodeError, csv.Error) as error:
        raise AsdRayError(f"{path}: this is no CSV file in UTF-8 ({error}).") from None


def choice(place: str, column: str, value: str, allowed: Sequence[str]) -> str:
    """``value``, if it is one of the allowed ones.

    Raises:
        AsdRayError: it is not.
    """
    if value not in allowed:
        raise AsdRayError(f"{place}: found {column} {value!r}; expected {' or '.join(allowed)}.")
    return value


def read_labels(folder: Path, key: Callable[[str], str]) -> dict[str, tuple[str, str]]:
    """A machine's ``test_labels.csv``, if there is one: clip (as ``key`` calls it) -> label, domain.

    Raises:
        AsdRayError: a row that does not validate, or two rows for one clip that contradict each other.
    """
    path = folder / LABELS
    labels: dict[str, tuple[str, str]] = {}
    if not path.is_file():
        return labels
    for line, row in read_rows(path, ("file", "label"), ("domain",)):
        place = f"{path}, line {line}"
        label = choice(place, "label", row["label"], ("normal", "anomaly"))
        domain = choice(place, "domain", row["domain"] or "none", ("source", "target", "none"))
        name = key(PurePosixPath(row["file"]).stem)
        if labels.setdefault(name, (label, domain)) != (label, domain):
            raise AsdRayError(f"{place}: found {row['file']} a second time, with another label; expected it once.")
    return labels


def read_attributes(folder: Path) -> dict[str, str]:
    """A machine's ``attributes_XX.csv`` files (DCASE 2022): file name without ending -> ``car_A1_spd_28V``.

    Their columns are ``file_name`` and pairs of parameter and value (``d1p,d1v,d2p,d2v``); any other is left alone.
    Names in a further column carry labels that contradict the ground truth: they are not looked at.
    """
    attributes: dict[str, str] = {}
    columns = [f"d{number}{kind}" for number in range(1, 10) for kind in "pv"]
    for path in sorted(folder.glob("attributes_*.csv")):
        with _open_csv(path) as file:
            for row in csv.DictReader(file):
                name = PurePosixPath((row.get("file_name") or "").strip()).stem
                attributes[name] = "_".join(value.strip() for column in columns if (value := row.get(column)))
    return attributes


def read_faults(root: Path) -> dict[str, Fault]:
    """Path of a clip -> its fault, from ``faults.csv`` at a data set's root; nothing where there is no such file.

    Raises:
        AsdRayError: the file does not validate.
    """
    path = root / "faults.csv"
    if not path.is_file():
        return {}
    rows = read_rows(path, ("path", "fault"), ("machine", "id", "band", "severity"))
    return {row["path"]: Fault(row["fault"], row["band"], row["severity"]) for _, row in rows}
