"""CSV files beside the recordings: labels of evaluation clips, attributes and faults."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from asd_ray.errors import AsdRayError

LABELS = "test_labels.csv"
"""A machine's labels: ``file,label[,domain]``. ``data download`` writes it from the published ground truth."""


class Fault(NamedTuple):
    """A clip's fault in ``faults.csv``: kind and, where known, band (``low``, ``high``) and severity (0 to 1)."""

    kind: str
    band: str
    severity: str


def read_csv(path: Path, error: type[AsdRayError] = AsdRayError) -> Iterator[tuple[int, list[str]]]:
    """Read a CSV file's rows, without empty lines, as (line number, stripped values).

    Raises:
        AsdRayError: (or ``error``) the file is not CSV in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for row in reader:
                if row:
                    yield reader.line_num, [value.strip() for value in row]
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise error(f"{path}: this is no CSV file in UTF-8 ({cause}).") from None


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Format rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def read_rows(path: Path, required: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a CSV file with a header, as (line number, column -> text); a missing optional value is "".

    Raises:
        AsdRayError: not UTF-8, a missing or unknown column, a row of another length, a missing required value.
    """
    rows = read_csv(path)
    _, header = next(rows, (1, []))
    if not set(required) <= set(header) <= {*required, *optional} or len(set(header)) < len(header):
        raise AsdRayError(
            f"{path}, line 1: found the columns {', '.join(header) or '(none)'}; expected {', '.join(required)} "
            f"and, where wanted, {', '.join(optional)}."
        )
    for line, row in rows:
        place = f"{path}, line {line}"
        if len(row) != len(header):
            raise AsdRayError(f"{place}: found {len(row)} values; expected {len(header)} ({', '.join(header)}).")
        values = dict.fromkeys(optional, "") | dict(zip(header, row, strict=True))
        if empty := [name for name in required if not values[name]]:
            raise AsdRayError(f"{place}: found nothing under {', '.join(empty)}; expected a value.")
        yield line, values


def choice(place: str, column: str, value: str, allowed: Sequence[str]) -> str:
    """Return ``value`` if it is allowed.

    Raises:
        AsdRayError: it is not.
    """
    if value not in allowed:
        raise AsdRayError(f"{place}: found {column} {value!r}; expected {' or '.join(allowed)}.")
    return value


def read_labels(folder: Path, key: Callable[[str], str]) -> dict[str, tuple[str, str]]:
    """Read a machine's ``test_labels.csv``: clip (named by ``key``) -> label, domain; empty without the file.

    Raises:
        AsdRayError: an invalid row, or two rows that contradict each other.
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
    """Read a machine's ``attributes_XX.csv`` files (DCASE 2022): file name without ending -> ``car_A1_spd_28V``.

    Columns: ``file_name`` and pairs of parameter and value (``d1p,d1v,d2p,d2v``). Other columns are ignored: the names
    in one of them carry labels that contradict the ground truth.
    """
    attributes: dict[str, str] = {}
    columns = [f"d{number}{kind}" for number in range(1, 10) for kind in "pv"]
    for path in sorted(folder.glob("attributes_*.csv")):
        rows = read_csv(path)
        _, header = next(rows, (1, []))
        for _, values in rows:
            row = dict(zip(header, values, strict=False))
            name = PurePosixPath(row.get("file_name", "")).stem
            attributes[name] = "_".join(row[column] for column in columns if row.get(column))
    return attributes


def read_faults(root: Path) -> dict[str, Fault]:
    """Read ``faults.csv`` at a data set's root: clip path -> fault; empty without the file.

    Raises:
        AsdRayError: the file is invalid.
    """
    path = root / "faults.csv"
    if not path.is_file():
        return {}
    rows = read_rows(path, ("path", "fault"), ("machine", "id", "band", "severity"))
    return {row["path"]: Fault(row["fault"], row["band"], row["severity"]) for _, row in rows}
