"""From a folder to clips: one record per recording, made from its name and its header.

Four layouts: ``dcase2020`` and ``dcase2022`` (``<machine>/train``, ``<machine>/test`` and the challenges' file names,
see :mod:`.dcase2020`, :mod:`.dcase2022`), ``synthetic`` (either of them, as ``data synth`` writes it) and ``folder``
(any tree, see :mod:`.folder`). Names are matched whole; one that does not match is reported, never guessed at.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from asd_ray.data import audio, dcase2020, dcase2022, folder
from asd_ray.data.clips import Clip
from asd_ray.data.problems import BadClip, Problem
from asd_ray.data.side_files import LABELS, read_attributes, read_labels
from asd_ray.errors import AsdRayError

LAYOUTS = ("dcase2020", "dcase2022", "folder", "synthetic")
SYNTHETIC = "synthetic.json"
"""The file that says that a set is synthetic: its IDs have nothing to do with the published ones of the same name."""

_EXAMPLES = {
    "dcase2020": f"<machine>/train/{dcase2020.EXAMPLE}",
    "dcase2022": f"<machine>/train/{dcase2022.EXAMPLE}",
    "folder": "<machine>/<train or test>/<any name>.wav",
    "synthetic": f"<machine>/train/{dcase2020.EXAMPLE}",
}
_LOG = logging.getLogger("asd_ray")
_LOGGED = 20


def scan(root: str | Path, layout: str, machines: Sequence[str] | None = None, skip_bad: bool = False) -> list[Clip]:
    """The clips of a data set, ordered by path.

    Files that are no clips of the layout are left out with a warning in the log (``asd_ray``).

    Args:
        root: folder of the data set.
        layout: one of ``LAYOUTS``.
        machines: machine types to use; all by default.
        skip_bad: leave out clips that cannot be used, with a warning, instead of raising.

    Raises:
        AsdRayError: no such folder, layout or machine; no clip; a clip that cannot be used (the first is named); a
            side file that does not validate.
    """
    clips, problems = index(root, layout, machines)
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors and not (skip_bad and clips):
        more = f" {len(errors) - 1:,} more are wrong; asd-ray data check lists them." if len(errors) > 1 else ""
        first = errors[0]
        hint = "" if skip_bad else " Set data.skip_bad to leave such clips out."
        raise AsdRayError(f"{first.at(os.path.join(root, first.path))}{more}{hint}")
    serious = [problem for problem in problems if problem.severity != "note"]
    for problem in serious[:_LOGGED]:
        _LOG.warning("%s%s", "left out: " if problem.severity == "error" else "", problem)
    if len(serious) > _LOGGED:
        _LOG.warning("%d more problems in %s; asd-ray data check lists them.", len(serious) - _LOGGED, root)
    return clips


def index(
    root: str | Path,
    layout: str,
    machines: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Clip], list[Problem]]:
    """The usable clips of a data set, ordered by path, and all that is wrong with the others.

    Args:
        root, layout, machines: as in :func:`scan`.
        progress: called with the number of headers read and of clips.

    Raises:
        AsdRayError: no such folder, layout or machine; no clip; a side file that does not validate.
    """
    if layout not in LAYOUTS:
        raise AsdRayError(f"data.layout: found {layout!r}; expected one of {', '.join(LAYOUTS)}.")
    base = Path(root)
    if not base.is_dir():
        raise AsdRayError(f"{root}: there is no such folder; expected the data set's (data.root).")
    if layout == "folder":
        found, problems = folder.find(base)
        _require_machines(base, machines, sorted({clip.machine for clip in found}))
        if machines is not None:
            found = [clip for clip in found if clip.machine in machines]
            problems = [problem for problem in problems if problem.path.split("/")[0] in machines]
    else:
        found, problems = _find_dcase(base, layout, machines)
    if not found:
        raise AsdRayError(_nothing(base, layout, problems))
    found.sort(key=lambda clip: clip.path)
    clips = []
    for done, clip in enumerate(found, 1):
        try:
            clips.append(replace(clip, **audio.read_header(os.path.join(base, clip.path))._asdict()))
        except BadClip as error:
            problems.append(error.problem.at(clip.path))
        if progress is not None:
            progress(done, len(found))
    return clips, problems


def detect(root: str | Path) -> str | None:
    """The layout that a folder looks like, None if there is no recording in it."""
    base = Path(root)
    if (base / SYNTHETIC).is_file():
        return "synthetic"
    if (base / folder.LIST).is_file():
        return "folder"
    reader = _reader_by_names(base)
    if reader is not None:
        return "dcase2022" if reader is dcase2022 else "dcase2020"
    return "folder" if folder.find(base)[0] else None


def _entries(path: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, ordered by name, without hidden files."""
    try:
        with os.scandir(path) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise AsdRayError(f"{path}: {error.strerror}; expected a folder that can be read.") from None


def _subfolders(path: Path) -> list[str]:
    return [entry.name for entry in _entries(path) if entry.is_dir()]


def _reader_by_names(root: Path) -> ModuleType | None:
    """The DCASE layout of the first file name that belongs to one."""
    for machine in _subfolders(root):
        for name in _subfolders(root / machine):
            for reader in (dcase2020, dcase2022):
                if name not in reader.FOLDERS:
                    continue
                for entry in _entries(root / machine / name):
                    if audio.is_audio(entry.name) and _parses(reader, name, Path(entry.name).stem):
                        return reader
    return None


def _parses(reader: ModuleType, name: str, stem: str) -> bool:
    try:
        return reader.parse(name, stem) is not None
    except ValueError:
        return True  # a name of this layout in the wrong folder


def _find_dcase(root: Path, layout: str, machines: Sequence[str] | None) -> tuple[list[Clip], list[Problem]]:
    reader = dcase2022 if layout == "dcase2022" else dcase2020
    if layout == "synthetic":
        reader = _reader_by_names(root) or dcase2020
    synthetic = layout == "synthetic" or (root / SYNTHETIC).is_file()
    there: list[str] = []
    problems: list[Problem] = []
    for name in _subfolders(root):
        if reader.FOLDERS.keys() & set(_subfolders(root / name)):
            there.append(name)
        else:
            problems.append(Problem("note", "folder", name, "no machine's folder, not read", "train/ or test/ in it"))
    if there:
        _require_machines(root, machines, there)
    clips: list[Clip] = []
    for machine in there:
        if machines is None or machine in machines:
            found, wrong = _find_machine(root, machine, reader)
            problems += wrong
            hidden = {clip.id for clip in found if clip.part == "eval"}
            clips += (
                replace(clip, part="none" if synthetic else reader.part(machine, clip.id, clip.id in hidden))
                for clip in found
            )
    return clips, problems


def _find_machine(root: Path, machine: str, reader: ModuleType) -> tuple[list[Clip], list[Problem]]:
    """The clips of one machine's folder; their part is ``eval`` where the name hides the label, else ``dev``."""
    labels = read_labels(root / machine, reader.key)
    attributes = read_attributes(root / machine) if reader is dcase2022 else {}
    clips: dict[tuple[str, str], Clip] = {}
    problems: list[Problem] = []
    for name in _subfolders(root / machine):
        if name not in reader.FOLDERS:
            problems.append(Problem("note", "folder", f"{machine}/{name}", "not read", " or ".join(reader.FOLDERS)))
            continue
        for file in (entry.name for entry in _entries(root / machine / name) if audio.is_audio(entry.name)):
            path, stem = f"{machine}/{name}/{file}", os.path.splitext(file)[0]
            try:
                fields = reader.parse(name, stem)
                if fields is None:
                    what = "not a file name of this layout, left out"
                    problems.append(Problem("warning", "name", path, what, f"a name like {reader.EXAMPLE}"))
                    continue
                key = fields["split"], reader.key(stem)
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


def _require_machines(root: Path, machines: Sequence[str] | None, there: Sequence[str]) -> None:
    if missing := [name for name in machines or () if name not in there]:
        raise AsdRayError(
            f"data.machines: {', '.join(missing)} not found in {root}; there: {', '.join(there) or 'no machine'}."
        )


def _nothing(root: Path, layout: str, problems: Sequence[Problem]) -> str:
    """Why there is no clip in a folder, and what its owner may have meant."""
    text = f"{root}: no recording of the layout {layout}; expected {root / _EXAMPLES[layout]} and the like."
    other = detect(root)
    if other in ("dcase2020", "dcase2022") and other != layout:
        return f"{text} It looks like data.layout {other}."
    if {"train", "test"} & set(_subfolders(root)):
        return f"{text} It looks like one machine's folder: give the folder above it, {root.resolve().parent}."
    for name in _subfolders(root):
        if _reader_by_names(root / name) is not None:
            return f"{text} Its folder {name} looks like a data set: give {root / name}."
    named = [problem for problem in problems if problem.severity != "note"]
    if named:
        return f"{text} {len(named):,} files are there that do not fit; the first is {named[0]}"
    return f"{text} It looks like data.layout folder." if other == "folder" != layout else text
