"""Layout ``folder``: any tree of recordings, described by its folders' names or by a list ``clips.csv``.

Without a list, the first folder is the machine. Among the folders below it, ``train`` and ``test`` give the split,
``normal`` and ``anomaly`` (``anomalous``, ``abnormal``) the label, ``source`` and ``target`` the domain, in any order
and case. The remaining folders are the ID (``id_00`` -> ``00``; several are joined by ``-``; ``00`` if none). The
machine of recordings outside any machine's folder has the root's name.

* ``fan/train/x.wav`` is a normal training clip; ``fan/test/x.wav`` is a test clip of unknown label.
* Without a split folder (``fan/id_00/abnormal/x.wav``, the layout of MIMII) anomalies are test clips. An equal number
  of the ID's normal clips, but at most half of them, become test clips too, chosen by a hash of their names. The other
  normal clips are training clips.

``clips.csv`` at the root has the columns ``path, machine`` and optionally ``id, split, label, domain, part,
attributes``. Defaults: id ``00``, split ``train``, label ``normal`` in train and ``unknown`` in test, domain ``none``,
part ``none``. Files that it does not list are ignored.

:func:`find_extra` finds recordings of any other sounds, for pre-training alone (``data.extra_pretraining``).
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from asd_ray.data import audio
from asd_ray.data.clips import Clip, stable_hash
from asd_ray.data.machine_folders import require_machines
from asd_ray.data.problems import BadClip, Problem
from asd_ray.data.side_files import choice, read_rows
from asd_ray.errors import AsdRayError
from asd_ray.registry import register_layout

LIST = "clips.csv"
EXTRA_MACHINE = "extra"
_LOG = logging.getLogger("asd_ray")

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
# Audio formats that cannot be read: such files get a warning.
_OTHER_AUDIO = (".mp3", ".m4a", ".aac", ".wma", ".aif", ".aiff", ".opus", ".w64", ".au")


@register_layout("folder", example="<machine>/<train or test>/<any name>.wav")
def find(root: Path, machines: Sequence[str] | None = None) -> tuple[list[Clip], list[Problem]]:
    """Find the clips of a tree (without their audio headers) and its problems.

    Raises:
        AsdRayError: a row of ``clips.csv`` does not validate; a machine is not there.
    """
    clips, problems = _listed(root) if (root / LIST).is_file() else _found(root)
    if machines is None:
        return clips, problems
    require_machines(root, machines, sorted({clip.machine for clip in clips}))
    return (
        [clip for clip in clips if clip.machine in machines],
        [problem for problem in problems if problem.path.split("/")[0] in machines],
    )


def _found(root: Path) -> tuple[list[Clip], list[Problem]]:
    """The clips of a tree by the names of its folders."""
    clips: list[Clip] = []
    problems: list[Problem] = []
    undivided: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    for path in sorted(files(root)):
        if path.lower().endswith(_OTHER_AUDIO):
            problems.append(Problem("warning", "format", path, "a format that is not read", "wav, flac or ogg"))
        if not audio.is_audio(path):
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


def find_extra(folders: Sequence[str], skip_bad: bool = False) -> list[Clip]:
    """Find the audio files below folders, as clips of split ``extra``, sorted by path.

    Args:
        folders: of any depth.
        skip_bad: leave out recordings that cannot be read, with a warning, instead of raising.

    Raises:
        AsdRayError: a folder does not exist or has no audio, or a recording cannot be read.
    """
    clips: dict[str, Clip] = {}
    for given in folders:
        folder = Path(given).expanduser().resolve()
        if not folder.is_dir():
            raise AsdRayError(f"data.extra_pretraining: {given}: there is no such folder.")
        names = sorted(name for name in files(folder) if audio.is_audio(name))
        if not names:
            wanted = ", ".join(audio.SUFFIXES)
            raise AsdRayError(f"data.extra_pretraining: {given}: there is no audio in it; expected files {wanted}.")
        for name in names:
            path = os.path.join(folder, name)
            try:
                header = audio.read_header(path)
            except BadClip as error:
                if not skip_bad:
                    raise AsdRayError(f"{error} Set data.skip_bad to leave such recordings out.") from None
                _LOG.warning("left out: %s", error)
                continue
            clips[path] = Clip(path, EXTRA_MACHINE, folder.name, "extra", "unknown", **header._asdict())
    return sorted(clips.values(), key=lambda clip: clip.path)


def files(root: Path) -> Iterator[str]:
    """All files under a folder, relative to it. Links to folders are followed; no folder is visited twice."""
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
    """The clip of a path, and True if one of its folders gives its split.

    Raises:
        ValueError: the folders contradict each other.
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
    """Divide one ID's clips into training and test clips, if no folder does."""
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
