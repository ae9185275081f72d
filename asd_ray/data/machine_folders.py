"""Machine folders: ``<machine>/train`` and ``<machine>/test`` with the file names of a challenge.

Names are matched whole; a name that does not match is reported, never guessed at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asd_ray.data import audio
from asd_ray.data.clips import Clip
from asd_ray.data.problems import Problem
from asd_ray.data.side_files import LABELS, read_attributes, read_labels
from asd_ray.errors import AsdRayError

SYNTHETIC = "synthetic.json"
"""File of a synthetic set: its IDs have nothing to do with the published ones of the same name."""


@dataclass(frozen=True)
class Names:
    """The file names of a challenge.

    Attributes:
        layout: of a set with such names.
        folders: folder of a machine -> split.
        example: name of a training clip.
        parse: folder and name without suffix -> fields of a ``Clip``; None for a name of another layout.
        key: name without suffix -> the clip's name in a list of labels.
        part: machine, ID, and whether its test labels are hidden -> ``dev``, ``eval`` or ``none``.
        attributes: whether there may be a list of attributes.
    """

    layout: str
    folders: Mapping[str, str]
    example: str
    parse: Callable[[str, str], dict[str, Any] | None]
    key: Callable[[str], str]
    part: Callable[[str, str, bool], str]
    attributes: bool = False


def find(
    root: Path, names: Names, machines: Sequence[str] | None, synthetic: bool = False
) -> tuple[list[Clip], list[Problem]]:
    """Find the clips of a data set (without their audio headers) and its problems.

    Args:
        root: folder of the data set.
        names: of its files.
        machines: machine types to use; None for all.
        synthetic: whether it is a synthetic set, which has no development and evaluation part.

    Raises:
        AsdRayError: a machine is not there; a side file does not validate.
    """
    synthetic = synthetic or (root / SYNTHETIC).is_file()
    there: list[str] = []
    problems: list[Problem] = []
    for name in subfolders(root):
        if names.folders.keys() & set(subfolders(root / name)):
            there.append(name)
        else:
            problems.append(Problem("note", "folder", name, "no machine's folder, not read", "train/ or test/ in it"))
    if there:
        require_machines(root, machines, there)
    clips: list[Clip] = []
    for machine in there:
        if machines is None or machine in machines:
            found, wrong = _find_machine(root, machine, names)
            problems += wrong
            hidden = {clip.id for clip in found if clip.part == "eval"}
            clips += (
                replace(clip, part="none" if synthetic else names.part(machine, clip.id, clip.id in hidden))
                for clip in found
            )
    return clips, problems


def recognise(root: Path, known: Sequence[Names]) -> Names | None:
    """The names that the first file belongs to which belongs to any."""
    for machine in subfolders(root):
        for folder in subfolders(root / machine):
            for names in known:
                if folder not in names.folders:
                    continue
                for entry in _entries(root / machine / folder):
                    if audio.is_audio(entry.name) and _parses(names, folder, Path(entry.name).stem):
                        return names
    return None


def _parses(names: Names, folder: str, stem: str) -> bool:
    try:
        return names.parse(folder, stem) is not None
    except ValueError:
        return True  # a name of this layout in the wrong folder


def _find_machine(root: Path, machine: str, names: Names) -> tuple[list[Clip], list[Problem]]:
    """The clips of one machine's folder; their part is ``eval`` where the name hides the label, else ``dev``."""
    labels = read_labels(root / machine, names.key)
    attributes = read_attributes(root / machine) if names.attributes else {}
    clips: dict[tuple[str, str], Clip] = {}
    problems: list[Problem] = []
    for name in subfolders(root / machine):
        if name not in names.folders:
            problems.append(Problem("note", "folder", f"{machine}/{name}", "not read", " or ".join(names.folders)))
            continue
        for file in (entry.name for entry in _entries(root / machine / name) if audio.is_audio(entry.name)):
            path, stem = f"{machine}/{name}/{file}", os.path.splitext(file)[0]
            try:
                fields = names.parse(name, stem)
                if fields is None:
                    what = "not a file name of this layout, left out"
                    problems.append(Problem("warning", "name", path, what, f"a name like {names.example}"))
                    continue
                key = fields["split"], names.key(stem)
                if key in clips:
                    raise ValueError(f"the same clip as {clips[key].path} under another name")
                part = "eval" if fields["label"] == "unknown" else "dev"
                if fields["split"] == "test" and key[1] in labels:
                    _add_label(fields, *labels[key[1]])
                fields["attributes"] = fields.get("attributes") or attributes.get(stem, "")
                clips[key] = Clip(path=path, machine=machine, part=part, **fields)
            except ValueError as error:
                expected = "one clip with one meaning; rename or remove it"
                problems.append(Problem("error", "name", path, str(error), expected))
    if lost := [name for name in labels if ("test", name) not in clips]:
        what = f"labels of {len(lost):,} clips that are not there ({lost[0]}, ...)"
        problems.append(Problem("warning", "labels", f"{machine}/{LABELS}", what, "every clip that it lists"))
    return list(clips.values()), problems


def _add_label(fields: dict[str, Any], label: str, domain: str) -> None:
    """Fills in what the name hides. A list that contradicts a name is never silently preferred, nor is the name."""
    for field, value, hidden in (("label", label, "unknown"), ("domain", domain, "none")):
        if value == "none":
            continue
        given = fields.get(field, hidden)
        if given not in (value, hidden):
            raise ValueError(f"its name says {given}, {LABELS} says {value}")
        fields[field] = value


def require_machines(root: Path, machines: Sequence[str] | None, there: Sequence[str]) -> None:
    """Check that all wanted machines are there.

    Raises:
        AsdRayError: one is not.
    """
    if missing := [name for name in machines or () if name not in there]:
        raise AsdRayError(
            f"data.machines: {', '.join(missing)} not found in {root}; there: {', '.join(there) or 'no machine'}."
        )


def _entries(path: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, ordered by name, without hidden files."""
    try:
        with os.scandir(path) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise AsdRayError(f"{path}: {error.strerror}; expected a folder that can be read.") from None


def subfolders(path: Path) -> list[str]:
    """Names of the folders in a folder, without hidden ones."""
    return [entry.name for entry in _entries(path) if entry.is_dir()]
