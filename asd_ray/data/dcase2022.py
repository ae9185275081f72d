"""DCASE 2022 Task 2 and its relatives of 2021 and 2023 to 2025: file names and sections.

``<machine>/train/section_00_source_train_normal_0000_<attributes>.wav``,
``<machine>/test/section_00_target_test_anomaly_0049_<attributes>.wav``. The evaluation set hides label, domain and
attributes, and its clips are named two ways: ``section_03_test_0000.wav`` in the data's description,
``section_03_0000.wav`` in the ground truth (and in 2023 to 2025). 2021 keeps test clips in ``source_test/`` and
``target_test/``, and its evaluation names say the domain: ``section_03_source_test_0000.wav``.
"""

from __future__ import annotations

import re
from typing import Any

EXAMPLE = "section_00_source_train_normal_0000_<attributes>.wav"
FOLDERS = {"train": "train", "test": "test", "source_test": "test", "target_test": "test"}
"""Folders of a machine and the split that they hold."""

_OPEN = re.compile(r"section_([0-9]{2})_(source|target)_(train|test)_(normal|anomaly)_([0-9]+)(?:_(.+))?")
_HIDDEN = re.compile(r"section_([0-9]{2})_(?:(?:(source|target)_)?test_)?([0-9]+)")

MACHINES = ("bearing", "fan", "gearbox", "slider", "valve", "ToyCar", "ToyTrain")
COUNTS = {"train": 1000, "test": 200}
"""Clips of every section of the seven 2022 machines: 990 source and 10 target to train on, 50 of each domain and label
to test on. The development set of 2023 has the same machines and the same numbers."""


def parse(folder: str, stem: str) -> dict[str, Any] | None:
    """What a file name says of its clip: fields of ``Clip``, None if it is no name of this layout.

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
    """What a label list calls a clip: the two ways to name an evaluation clip come to one."""
    match = _HIDDEN.fullmatch(stem)
    return f"section_{match[1]}_{match[3]}" if match and not match[2] else stem


def part(machine: str, section: str, hidden: bool) -> str:
    """``dev`` or ``eval``.

    Sections 03 and up are the evaluation set's (2021, 2022). From 2023 on every machine has section 00 only and
    belongs to one of the two sets as a whole: to the evaluation set if its test clips' names hide the label.
    """
    return "eval" if int(section) >= 3 or hidden else "dev"
