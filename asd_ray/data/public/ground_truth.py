"""The labels of an evaluation set, published after the challenge, as ``<machine>/test_labels.csv``.

The recordings keep their names. ``test_labels.csv`` has the columns ``file,label`` (DCASE 2020) or
``file,label,domain`` (DCASE 2022), one row for each test clip whose name hides the label.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeVar

from asd_ray.data import dcase2022
from asd_ray.data.public.registry import Registry
from asd_ray.data.public.unpack import CorruptedFile
from asd_ray.data.side_files import LABELS, read_labels
from asd_ray.errors import AsdRayError
from asd_ray.files import write_text

Labels = dict[str, tuple[str, str]]
"""Clip, as the layout's ``key`` calls it -> ``normal`` or ``anomaly``, and ``source``, ``target`` or ``none``."""

Value = TypeVar("Value")

_LABELS = {"0": "normal", "1": "anomaly"}
_DOMAINS = {"0": "source", "1": "target"}


def is_attached(registry: Registry, folder: Path) -> bool:
    """Whether every evaluation clip of a machine's folder has a label, and every label a clip."""
    hidden = hidden_clips(registry, folder)
    try:
        labels = read_labels(folder, registry.layout.key)
    except AsdRayError:
        return False
    return hidden.keys() == labels.keys()


def attach(registry: Registry, folder: Path, lists: Iterable[Path]) -> Path:
    """Writes a machine's ``test_labels.csv`` from the published lists.

    Args:
        folder: the machine's folder, ``<root>/<machine>``.
        lists: the files of ``registry.ground_truth`` that are about the machine.

    Returns:
        The file written.

    Raises:
        CorruptedFile: a list that is not in the published form.
        AsdRayError: clips without a label, or labels without a clip.
    """
    labels = read_2022(lists) if registry.layout is dcase2022 else read_2020(lists).get(folder.name, {})
    return write_labels(registry, folder, labels)


def read_2020(lists: Iterable[Path]) -> dict[str, Labels]:
    """``eval_data_list.csv``: a line with a machine type, then its ``test_name,original_name,label``; 1 is anomaly.

    Returns:
        Machine -> labels; the domain is ``none``.
    """
    machines: dict[str, Labels] = {}
    labels: Labels | None = None
    for path in lists:
        for place, row in _rows(path):
            if len(row) == 1 and row[0].isalnum():
                if row[0] in machines:
                    raise CorruptedFile(f"{place}: found the machine {row[0]} a second time; expected it once.")
                labels = machines[row[0]] = {}
                continue
            if labels is None or len(row) != 3:
                raise CorruptedFile(f"{place}: found {','.join(row)!r}; expected a machine, or test_name,name,label.")
            label = _choice(place, row[2], _LABELS)
            if not row[1].startswith(f"{label}_"):
                raise CorruptedFile(f"{place}: found label {row[2]} for {row[1]}; expected the two to agree.")
            _add(place, labels, PurePosixPath(row[0]).stem, (label, "none"))
    return machines


def read_2022(lists: Iterable[Path]) -> Labels:
    """The official evaluator's ``ground_truth_data/`` (1 is anomaly) and ``ground_truth_domain/`` (1 is target) files.

    Each has rows ``file,number``, and the two the same clips.
    """
    values: dict[str, dict[str, str]] = {"ground_truth_data": {}, "ground_truth_domain": {}}
    for path in lists:
        kind = path.parent.name
        for place, row in _rows(path):
            if len(row) != 2:
                raise CorruptedFile(f"{place}: found {','.join(row)!r}; expected file,number.")
            meaning = _choice(place, row[1], _LABELS if kind == "ground_truth_data" else _DOMAINS)
            _add(place, values[kind], dcase2022.key(PurePosixPath(row[0]).stem), meaning)
    labels, domains = values["ground_truth_data"], values["ground_truth_domain"]
    if differing := sorted(labels.keys() ^ domains.keys()):
        raise CorruptedFile(
            f"the evaluation set's ground truth has {differing[0]} in only one of its lists of labels and domains; "
            "expected it in both."
        )
    return {clip: (label, domains[clip]) for clip, label in labels.items()}


def hidden_clips(registry: Registry, folder: Path) -> dict[str, str]:
    """The test clips of a machine's folder whose names hide the label: clip (as ``key`` calls it) -> file name.

    Raises:
        AsdRayError: a clip that is there under both of its names.
    """
    clips: dict[str, str] = {}
    for path in sorted((folder / "test").glob("*.wav")):
        clip = registry.layout.parse("test", path.stem)
        if clip and clip["label"] == "unknown":
            first = clips.setdefault(registry.layout.key(path.stem), path.name)
            if first != path.name:
                raise AsdRayError(f"{path}: this clip is there as {first} too; remove one of them.")
    return clips


def write_labels(registry: Registry, folder: Path, labels: Mapping[str, tuple[str, str]]) -> Path:
    """Writes ``test_labels.csv`` for the recordings as they are named on disk.

    Raises:
        AsdRayError: clips without a label, or labels without a clip.
    """
    clips = hidden_clips(registry, folder)
    for found, expected, what in ((clips, labels, "labels"), (labels, clips, "recordings")):
        if lacking := sorted(found.keys() - expected.keys()):
            raise AsdRayError(
                f"{folder / 'test'}: {len(lacking)} of {len(found)} evaluation clips have no {what} (the first is "
                f"{lacking[0]}); expected a recording and a published label for each. Download the part eval again."
            )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = 3 if registry.layout is dcase2022 else 2
    writer.writerow(("file", "label", "domain")[:columns])
    writer.writerows((name, *labels[clip])[:columns] for clip, name in clips.items())
    write_text(folder / LABELS, text.getvalue())
    return folder / LABELS


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The rows that are not empty, each with its place for an error."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for row in reader:
                if any(row):
                    yield f"{path}, line {reader.line_num}", [value.strip() for value in row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorruptedFile(f"{path}: this is no CSV file in UTF-8 ({error}).") from None


def _choice(place: str, value: str, meanings: Mapping[str, str]) -> str:
    if value not in meanings:
        raise CorruptedFile(f"{place}: found {value!r}; expected {' or '.join(meanings)}.")
    return meanings[value]


def _add(place: str, values: dict[str, Value], clip: str, value: Value) -> None:
    if clip in values:
        raise CorruptedFile(f"{place}: found {clip} a second time; expected it once.")
    values[clip] = value
