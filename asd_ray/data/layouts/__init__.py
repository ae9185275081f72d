"""From a folder to clips: one record per recording, made from its name and its header.

A layout is a module here, registered under the module's name: ``dcase2020`` and ``dcase2022`` (``<machine>/train``,
``<machine>/test`` and the challenges' file names), ``synthetic`` (either of them, as ``data synth`` writes it) and
``folder`` (any tree). A new module here is a new layout.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from asd_ray.data import audio
from asd_ray.data.clips import Clip
from asd_ray.data.layouts import folder, synthetic
from asd_ray.data.machine_folders import SYNTHETIC, recognise, subfolders
from asd_ray.data.problems import BadClip, Problem
from asd_ray.errors import AsdRayError
from asd_ray.registry import LAYOUTS

_LOG = logging.getLogger("asd_ray")
_LOGGED = 20


def scan(root: str | Path, layout: str, machines: Sequence[str] | None = None, skip_bad: bool = False) -> list[Clip]:
    """The clips of a data set, ordered by path.

    Files that are no clips of the layout are left out with a warning in the log (``asd_ray``).

    Args:
        root: folder of the data set.
        layout: name of a registered layout (:data:`asd_ray.registry.LAYOUTS`).
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
    find = LAYOUTS.get(layout).target
    base = Path(root)
    if not base.is_dir():
        raise AsdRayError(f"{root}: there is no such folder; expected the data set's (data.root).")
    found, problems = find(base, machines)
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
    names = recognise(base, synthetic.NAMES)
    if names is not None:
        return names.layout
    return "folder" if folder.find(base)[0] else None


def _nothing(root: Path, layout: str, problems: Sequence[Problem]) -> str:
    """Why there is no clip in a folder, and what its owner may have meant."""
    example = LAYOUTS.get(layout).facts["example"]
    text = f"{root}: no recording of the layout {layout}; expected {root / example} and the like."
    other = detect(root)
    if other not in (None, "folder", "synthetic", layout):
        return f"{text} It looks like data.layout {other}."
    if {"train", "test"} & set(subfolders(root)):
        return f"{text} It looks like one machine's folder: give the folder above it, {root.resolve().parent}."
    for name in subfolders(root):
        if recognise(root / name, synthetic.NAMES) is not None:
            return f"{text} Its folder {name} looks like a data set: give {root / name}."
    named = [problem for problem in problems if problem.severity != "note"]
    if named:
        return f"{text} {len(named):,} files are there that do not fit; the first is {named[0]}"
    return f"{text} It looks like data.layout folder." if other == "folder" != layout else text
