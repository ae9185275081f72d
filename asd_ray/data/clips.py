"""A clip: its machine, individual (ID), split and label.

Features, training, scores and tables refer to a clip by these fields and never read its file name again. Layouts make
clips of file names (:mod:`asd_ray.data.layouts`).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from asd_ray.errors import ConfigError

Split = Literal["train", "test", "extra"]
Label = Literal["normal", "anomaly", "unknown"]
EvaluationSplit = Literal["select", "holdout"]


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording.

    Attributes:
        path: file, relative to the data set's root, with forward slashes; unique in a data set. Absolute for ``extra``.
        machine: machine type, as the data set spells it (``fan``, ``ToyCar``).
        id: the individual machine (DCASE 2020: ``"00"``) or the section (DCASE 2021 and later).
        split: ``train`` (normal clips only), ``test``, or ``extra``: any sounds, for pre-training alone.
        label: ``normal``, ``anomaly``, or ``unknown`` where the data set hides it.
        domain: ``source``, ``target``, or ``none`` where the data set has no domains.
        part: which release the clip belongs to: ``dev`` (development) or ``eval`` (evaluation and its additional
            training clips), ``none`` where the data set has no such division. Decides select and holdout.
        attributes: what else the name says (DCASE 2022: ``car_A1_spd_28V``), else empty. Only those of
            training clips are used: the challenge hides a test clip's.
        sample_rate: in Hz, from the file's header.
        frames: length in samples per channel, from the file's header.
        channels: number of channels, from the file's header.
    """

    path: str
    machine: str
    id: str
    split: Split
    label: Label
    domain: str = "none"
    part: str = "none"
    attributes: str = ""
    sample_rate: int = 0
    frames: int = 0
    channels: int = 1

    @property
    def group(self) -> str:
        """Machine and ID, ``fan/00``. Scores are comparable within a group only."""
        return f"{self.machine}/{self.id}"

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate if self.sample_rate else 0.0


CLIP_FIELDS = tuple(field.name for field in fields(Clip))


def stable_hash(*parts: object) -> int:
    """A 64-bit hash of the parts' text, the same in every process and on every machine."""
    digest = hashlib.blake2b("\x1f".join(str(part) for part in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def class_names(
    clips: Iterable[Clip], classes: Literal["id", "attributes"] = "id", min_class_clips: int = 1
) -> list[str]:
    """The classes of a set's training clips, which a classifier learns, in alphabetical order.

    Args:
        clips: of the set.
        classes: ``id``: a class is a group, ``machine/id``. ``attributes``: a class is ``machine/id/attributes``. Clips
            without attributes, or with attributes of fewer than ``min_class_clips`` clips, are pooled into the rest
            class ``machine/id``; if that is too small, it takes the next rarest attributes, too.
        min_class_clips: minimum training clips of a class, unless it is the only one of its group.

    Raises:
        ConfigError: no training clip has attributes.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for clip in clips:
        if clip.split == "train":
            counts[clip.group][clip.attributes] += 1
    if classes == "id":
        return sorted(counts)
    if not any(attributes for of_group in counts.values() for attributes in of_group):
        raise ConfigError(
            "data.classes: is attributes, but no training clip has any; expected them in the file names (layout "
            "dcase2022) or in the column attributes of clips.csv (layout folder). Set it to id."
        )
    names = []
    for group, of_group in counts.items():
        rest = of_group.pop("", 0)
        for attributes, count in sorted(of_group.items(), key=lambda item: (item[1], item[0])):
            if count < min_class_clips or 0 < rest < min_class_clips:
                rest += count
            else:
                names.append(f"{group}/{attributes}")
        names += [group] if rest else []
    return sorted(names)


def group_of(class_name: str) -> str:
    """The group ``machine/id`` of a class ``machine/id`` or ``machine/id/attributes``."""
    return "/".join(class_name.split("/", 2)[:2])


def groups_of(classes: Iterable[str]) -> list[str]:
    """The groups of some classes, each once, in the classes' order."""
    return list(dict.fromkeys(map(group_of, classes)))


def evaluation_splits(clips: Sequence[Clip]) -> dict[str, EvaluationSplit]:
    """Divide the labelled test clips: ``select`` chooses a trial, ``holdout`` only reports it.

    Where the data set has labelled test clips of a development and of an evaluation part, these are the two splits
    (DCASE 2020: development IDs select, evaluation IDs are held out). Otherwise the test clips of each machine, ID,
    domain and label are ordered by a hash of their names and dealt out in turn: the division is stratified, about even,
    and the same wherever the files are. Normal and anomalous clips of an ID start on the same side, so that an ID with
    one clip of each has an AUC on one side.

    Returns:
        ``path -> "select" | "holdout"`` for every test clip with a known label.
    """
    labelled = [clip for clip in clips if clip.split == "test" and clip.label != "unknown"]
    parts = {clip.part for clip in labelled}
    if {"dev", "eval"} <= parts:
        return {clip.path: "holdout" if clip.part == "eval" else "select" for clip in labelled}
    strata: dict[tuple[str, ...], list[Clip]] = defaultdict(list)
    for clip in labelled:
        strata[clip.machine, clip.id, clip.domain, clip.label].append(clip)
    splits: dict[str, EvaluationSplit] = {}
    sides: tuple[EvaluationSplit, EvaluationSplit] = ("select", "holdout")
    for (machine, machine_id, domain, _), members in strata.items():
        first = stable_hash("side", machine, machine_id, domain) % 2
        ordered = sorted(members, key=lambda clip: (stable_hash("clip", clip.path), clip.path))
        for rank, clip in enumerate(ordered):
            splits[clip.path] = sides[(first + rank) % 2]
    return splits
