"""DCASE 2022 Task 2 and its relatives of 2021 and 2023 to 2025: file names and sections.

``<machine>/train/section_00_source_train_normal_0000_<attributes>.wav``,
``<machine>/test/section_00_target_test_anomaly_0049_<attributes>.wav``. The evaluation set hides label, domain and
attributes. Its clips have two names: ``section_03_test_0000.wav`` in the data's description, ``section_03_0000.wav`` in
the ground truth (and in 2023 to 2025). 2021 keeps test clips in ``source_test/`` and ``target_test/``; its evaluation
names contain the domain: ``section_03_source_test_0000.wav``.
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

EXAMPLE = "section_00_source_train_normal_0000_<attributes>.wav"
FOLDERS = {"train": "train", "test": "test", "source_test": "test", "target_test": "test"}
"""Folder of a machine -> split."""

_OPEN = re.compile(r"section_([0-9]{2})_(source|target)_(train|test)_(normal|anomaly)_([0-9]+)(?:_(.+))?")
_HIDDEN = re.compile(r"section_([0-9]{2})_(?:(?:(source|target)_)?test_)?([0-9]+)")

MACHINES = ("bearing", "fan", "gearbox", "slider", "valve", "ToyCar", "ToyTrain")
COUNTS = {"train": 1000, "test": 200}
"""Clips per section of the seven 2022 machines. Training: 990 source and 10 target. Test: 50 per domain and label.
The development set of 2023 has the same machines and numbers."""


def parse(folder: str, stem: str) -> dict[str, Any] | None:
    """Read the fields of a ``Clip`` from a file name; None for a name of another layout.

    Raises:
        ValueError: the name contradicts the folder.
    """
    if match := _OPEN.fullmatch(stem):
        section, domain, split, label, _, attributes = match.groups()
    elif (match := _HIDDEN.fullmatch(stem)) and FOLDERS[folder] == "test":
        section, domain, split, label, attributes = match[1], match[2], "test", "unknown", None
    else:
        return None
    if split != FOLDERS[folder]:
        raise ValueError(f"its name says {split}, its folder {folder}/")
    if split == "train" and label == "anomaly":
        raise ValueError("its name says anomaly, but train/ is for normal clips")
    folder_domain = folder.removesuffix("_test") if folder.endswith("_test") else None
    if folder_domain and domain and folder_domain != domain:
        raise ValueError(f"its name says {domain}, its folder {folder}/")
    return {
        "id": section,
        "split": split,
        "label": label,
        "domain": domain or folder_domain or "none",
        "attributes": "" if attributes in (None, "noAttribute") else attributes,
    }


def key(stem: str) -> str:
    """The clip's name in a list of labels; the same for both names of an evaluation clip."""
    match = _HIDDEN.fullmatch(stem)
    return f"section_{match[1]}_{match[3]}" if match and not match[2] else stem


def part(machine: str, section: str, hidden: bool) -> str:
    """``dev`` or ``eval``.

    2021 and 2022: sections 03 and up are the evaluation set. From 2023 on, a machine has section 00 only; it belongs
    to the evaluation set if its test clips hide their labels.
    """
    return "eval" if int(section) >= 3 or hidden else "dev"


NAMES = machine_folders.Names("dcase2022", FOLDERS, EXAMPLE, parse, key, part, attributes=True)


@register_layout("dcase2022", example=f"<machine>/train/{EXAMPLE}")
def find(root: Path, machines: Sequence[str] | None = None) -> tuple[list[Clip], list[Problem]]:
    """Find the clips of a data set (without their audio headers) and its problems."""
    return machine_folders.find(root, NAMES, machines)
