"""Attach an evaluation set's published labels as ``<machine>/test_labels.csv``.

Recordings keep their names. The file has the columns ``file,label`` (DCASE 2020) or ``file,label,domain`` (DCASE 2022)
and one row per test clip whose name hides the label.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeVar

from asd_ray.data.layouts import dcase2022
from asd_ray.data.public.registry import Registry
from asd_ray.data.public.unpack import CorruptedFile
from asd_ray.data.side_files import LABELS, csv_text, read_csv, read_labels
from asd_ray.errors import AsdRayError
from asd_ray.files import write_text

Labels = dict[str, tuple[str, str]]
"""Clip by ``key`` -> label (``normal``, ``anomaly``) and domain (``source``, ``target``, ``none``)."""

Value = TypeVar("Value")

_LABELS = {"0": "normal", "1": "anomaly"}
_DOMAINS = {"0": "source", "1": "target"}


def is_attached(registry: Registry, folder: Path) -> bool:
    """True if the evaluation clips in a machine's folder and their labels match one to one."""
    hidden = hidden_clips(registry, folder)
    try:
        labels = read_labels(folder, registry.layout.key)
    except AsdRayError:
        return False
    return hidden.keys() == labels.keys()


def attach(registry: Registry, folder: Path, lists: Iterable[Path]) -> Path:
    """Write a machine's ``test_labels.csv`` from the published lists.

    Args:
        folder: the machine's folder, ``<root>/<machine>``.
        lists: files of ``registry.ground_truth`` about the machine.

    Returns:
        The file written.

    Raises:
        CorruptedFile: a list in another form than the published one.
        AsdRayError: a clip without a label, or a label without a clip.
    """
    labels = read_2022(lists) if registry.layout is dcase2022 else read_2020(lists).get(folder.name, {})
    return write_labels(registry, folder, labels)


def read_2020(lists: Iterable[Path]) -> dict[str, Labels]:
    """Read ``eval_data_list.csv``: a line per machine type, then its ``test_name,original_name,label`` (1: anomaly).

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
    """Read the official evaluator's ``ground_truth_data/`` (1: anomaly) and ``ground_truth_domain/`` (1: target) files.

    Their rows are ``file,number``; both folders list the same clips.
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
    """Find a machine's test clips whose names hide the label: clip (named by ``key``) -> file name.

    Raises:
        AsdRayError: a clip exists under both of its names.
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
    """Write ``test_labels.csv`` with the recordings' names on disk.

    Raises:
        AsdRayError: a clip without a label, or a label without a clip.
    """
    clips = hidden_clips(registry, folder)
    for found, expected, what in ((clips, labels, "labels"), (labels, clips, "recordings")):
        if lacking := sorted(found.keys() - expected.keys()):
            raise AsdRayError(
                f"{folder / 'test'}: {len(lacking)} of {len(found)} evaluation clips have no {what} (the first is "
                f"{lacking[0]}); expected a recording and a published label for each. Download the part eval again."
            )
    columns = 3 if registry.layout is dcase2022 else 2
    rows = [("file", "label", "domain"), *((name, *labels[clip]) for clip, name in clips.items())]
    write_text(folder / LABELS, csv_text(row[:columns] for row in rows))
    return folder / LABELS


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Read rows with any value, each with its place for errors."""
    return ((f"{path}, line {line}", row) for line, row in read_csv(path, CorruptedFile) if any(row))


def _choice(place: str, value: str, meanings: Mapping[str, str]) -> str:
    if value not in meanings:
        raise CorruptedFile(f"{place}: found {value!r}; expected {' or '.join(meanings)}.")
    return meanings[value]


def _add(place: str, values: dict[str, Value], clip: str, value: Value) -> None:
    if clip in values:
        raise CorruptedFile(f"{place}: found {clip} a second time; expected it once.")
    values[clip] = value
