"""DCASE 2020 Task 2: file names, IDs and clip counts.

``<machine>/train/normal_id_01_00000000.wav`` and ``<machine>/test/anomaly_id_01_00000000.wav``. Test clips of the
evaluation set hide the label: ``<machine>/test/id_01_00000000.wav``.
Sources: the data records (Zenodo 3678171, 3727685, 3841772), the ground truth (3951620), counts of an unpacked mirror.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asd_ray.data import machine_folders
from asd_ray.data.clips import Clip
from asd_ray.data.problems import Problem
from asd_ray.registry import register_layout

EXAMPLE = "normal_id_00_00000000.wav"
FOLDERS = {"train": "train", "test": "test"}
"""Folder of a machine -> split."""

_NAME = re.compile(r"(?:(normal|anomaly)_)?id_([0-9]{2})_([0-9]+)")

_MIMII = (("00", "02", "04", "06"), ("01", "03", "05"))
IDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fan": _MIMII,
    "pump": _MIMII,
    "slider": _MIMII,
    "valve": _MIMII,
    "ToyCar": (("01", "02", "03", "04"), ("05", "06", "07")),
    "ToyConveyor": (("01", "02", "03"), ("04", "05", "06")),
}
"""Machine -> IDs of the development set, IDs of the evaluation set."""

COUNTS: dict[str, dict[tuple[str, str], int]] = {
    machine: dict(zip((("dev", "train"), ("dev", "test"), ("eval", "train"), ("eval", "test")), numbers, strict=True))
    for machine, numbers in {
        "fan": (3675, 1875, 2846, 1342),
        "pump": (3349, 856, 2417, 777),
        "slider": (2804, 1290, 2370, 834),
        "valve": (3291, 879, 2531, 940),
        "ToyCar": (4000, 2459, 3000, 1545),
        "ToyConveyor": (3000, 3509, 3000, 1665),
    }.items()
}
"""Machine -> (part, split) -> published number of clips; (``eval``, ``train``) is the additional training set."""

RELEASES = {
    ("dev", "train"): "development train",
    ("dev", "test"): "development test",
    ("eval", "train"): "additional training",
    ("eval", "test"): "evaluation test",
}


def parse(folder: str, stem: str) -> dict[str, Any] | None:
    """Read the fields of a ``Clip`` from a file name; None for a name of another layout.

    Raises:
        ValueError: the name contradicts the folder.
    """
    match = _NAME.fullmatch(stem)
    if match is None or (folder == "train" and match[1] is None):
        return None
    if folder == "train" and match[1] == "anomaly":
        raise ValueError("its name says anomaly, but train/ is for normal clips")
    return {"id": match[2], "split": FOLDERS[folder], "label": match[1] or "unknown"}


def key(stem: str) -> str:
    """The clip's name in a list of labels."""
    return stem


def part(machine: str, machine_id: str, hidden: bool) -> str:
    """``dev`` or ``eval`` by the published IDs; ``none`` for other machines and IDs."""
    dev, evaluation = IDS.get(machine, ((), ()))
    return "dev" if machine_id in dev else "eval" if machine_id in evaluation else "none"


NAMES = machine_folders.Names("dcase2020", FOLDERS, EXAMPLE, parse, key, part)


@register_layout("dcase2020", example=f"<machine>/train/{EXAMPLE}", attributes=False)
def find(root: Path, machines: Sequence[str] | None = None) -> tuple[list[Clip], list[Problem]]:
    """Find the clips of a data set (without their audio headers) and its problems."""
    return machine_folders.find(root, NAMES, machines)
