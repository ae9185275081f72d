"""Synthetic sets (``data synth``): names of DCASE 2020 or of DCASE 2022, without development and evaluation part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asd_ray.data import machine_folders
from asd_ray.data.clips import Clip
from asd_ray.data.layouts import dcase2020, dcase2022
from asd_ray.data.problems import Problem
from asd_ray.registry import register_layout

NAMES = (dcase2020.NAMES, dcase2022.NAMES)
"""The names that a folder can be recognised by."""


@register_layout("synthetic", example=f"<machine>/train/{dcase2020.EXAMPLE}")
def find(root: Path, machines: Sequence[str] | None = None) -> tuple[list[Clip], list[Problem]]:
    """Find the clips of a synthetic set (without their audio headers) and its problems."""
    names = machine_folders.recognise(root, NAMES) or dcase2020.NAMES
    return machine_folders.find(root, names, machines, synthetic=True)
