"""Any tree of recordings: what its folders' names, or a list ``clips.csv``, say.

Without a list, the first folder is the machine. Of the folders below it, ``train`` and ``test`` say the split,
``normal`` and ``anomaly`` (``anomalous``, ``abnormal``) the label, ``source`` and ``target`` the domain, in any order
and case; what is left is the ID (``id_00`` -> ``00``, several joined by ``-``, ``00`` if none). Recordings in no
machine's folder belong to a machine of the root's name.

* ``fan/train/x.wav`` is a normal training clip; ``fan/test/x.wav`` a test clip of unknown label.
* Without a split folder (``fan/id_00/abnormal/x.wav``, as MIMII is published) anomalies are test clips. Of an ID's
  normal clips as many as it has anomalies, but at most half, are test clips too, chosen by a hash of their names; the
  others train.

``clips.csv`` at the root has the columns ``path, machine`` and, where wanted, ``id, split, label, domain, part,
attributes``. Defaults: id ``00``, split ``train``, label ``normal`` in train and ``unknown`` in test, domain ``none``,
part ``none``. Files that it does not list are not looked at.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from asd_ray.data.audio import is_audio
from asd_ray.data.clips import Clip, stable_hash
from asd_ray.data.problems import Problem
from asd_ray.data.side_files import choice, read_rows
from asd_ray.errors import AsdRayError

LIST = "clips.csv"

_MEANING = {
    "train": ("split", "train"),
    "test": ("split", "test"),
    "normal": ("label", "normal"),
    "anomaly": ("label", "anomaly"),
    "anomalous": ("label", "anomaly"),
    "abnormal": ("label", "anomaly"),
    "source": ("domain", "source"),
    "target": ("domain", "target"),
}
# Recordings in these formats would else be passed over without a word.
_OTHER_AUDIO = (".mp3", ".m4a", ".aac", ".wma", ".aif", ".aiff", ".opus", ".w64", ".au")


def find(root: Path) -> tuple[list[Clip], list[Problem]]:
    """The clips of a tree, without their headers, and what is wrong with it.

    Raises:
        AsdRayError: a row of ``clips.csv`` does not validate.
    """
    if (root / LIST).is_file():
        return _listed(root)
    clips: list[Clip] = []
    problems: list[Problem] = []
    undivided: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    for path in sorted(files(root)):
        if path.lower().endswith(_OTHER_AUDIO):
            problems.append(Problem("warning", "format", path, "a format that is not read", "wav, flac or ogg"))
        if not is_audio(path):
            continue
        try:
            clip, divided = _parse(path, root.resolve().name)
        except ValueError as error:
            problems.append(Problem("error", "name", path, str(error), "one meaning; move or remove it"))
            continue
        clips.append(clip) if divided else undivided[clip.machine, clip.id].append(clip)
    for members in undivided.values():
        clips += _divide(members)
    return clips, problems


def files(root: Path) -> Iterator[str]:
    """All files under a folder, relative to it; links to folders are followed, but none is entered twice."""
    seen: set[tuple[int, int]] = set()
    for folder, below, names in os.walk(root, followlinks=True, onerror=_unreadable):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below[:] = sorted(name for name in below if not name.startswith("."))
        relative = Path(folder).relative_to(root)
        yield from ((relative / name).as_posix() for name in names if not name.startswith("."))


def _unreadable(error: OSError) -> None:
    raise AsdRayError(f"{error.filename}: {error.strerror}; expected a folder that can be read.")


def _parse(path: str, root_name: str) -> tuple[Clip, bool]:
    """The clip of a path, and whether a folder says its split.

    Raises:
        ValueError: its folders contradict each other.
    """
    machine, *folders = PurePosixPath(path).parts[:-1] or (root_name,)
    if machine.lower() in _MEANING:
        machine, folders = root_name, [machine, *folders]
    fields: dict[str, Any] = {}
    rest: list[str] = []
    for name in folders:
        field, value = _MEANING.get(name.lower(), ("", ""))
        if not field:
            rest.append(name.removeprefix("id_"))
        elif fields.setdefault(field, value) != value:
            raise ValueError(f"its folders say both {fields[field]} and {value}")
    divided = "split" in fields
    anomaly = fields.get("label") == "anomaly"
    if not divided:
        fields["split"] = "test" if anomaly else "train"
    elif anomaly and fields["split"] == "train":
        raise ValueError("its folders say anomaly, but training clips are normal")
    fields.setdefault("label", "normal" if fields["split"] == "train" else "unknown")
    return Clip(path=path, machine=machine, id="-".join(rest) or "00", **fields), divided


def _divide(members: list[Clip]) -> list[Clip]:
    """Splits one ID's clips that no folder has split."""
    normal = sorted((c for c in members if c.label == "normal"), key=lambda c: (stable_hash("split", c.path), c.path))
    anomalies = [clip for clip in members if clip.label == "anomaly"]
    tests = min(len(anomalies), len(normal) // 2)
    return [*anomalies, *(replace(clip, split="test") for clip in normal[:tests]), *normal[tests:]]


def _listed(root: Path) -> tuple[list[Clip], list[Problem]]:
    clips: dict[str, Clip] = {}
    problems: list[Problem] = []
    optional = ("id", "split", "label", "domain", "part", "attributes")
    for line, row in read_rows(root / LIST, ("path", "machine"), optional):
        place = f"{root / LIST}, line {line}"
        path = PurePosixPath(row["path"])
        if path.is_absolute() or ".." in path.parts:
            raise AsdRayError(f"{place}: found the path {path}; expected one below {root}, relative to it.")
        if "/" in row["machine"] + row["id"]:
            raise AsdRayError(f"{place}: found / in the machine or id; expected names that can be part of a file's.")
        if str(path) in clips:
            raise AsdRayError(f"{place}: found {path} a second time; expected every clip once.")
        split = choice(place, "split", row["split"] or "train", ("train", "test"))
        label = row["label"] or ("normal" if split == "train" else "unknown")
        choice(place, "label", label, ("normal",) if split == "train" else ("normal", "anomaly", "unknown"))
        domain = choice(place, "domain", row["domain"] or "none", ("source", "target", "none"))
        part = choice(place, "part", row["part"] or "none", ("dev", "eval", "none"))
        fields: dict[str, Any] = {"split": split, "label": label, "domain": domain, "part": part}
        clips[str(path)] = Clip(
            path=str(path), machine=row["machine"], id=row["id"] or "00", attributes=row["attributes"], **fields
        )
    return list(clips.values()), problems
