"""Plan a build: deal clips to shards, and join the finished shards' summaries into a manifest."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asd_ray.data.clips import CLIP_FIELDS, Clip, stable_hash
from asd_ray.errors import AsdRayError
from asd_ray.features.store import Manifest, Shard, hash_of_settings

SPLITS = ("train", "test", "extra")
SHARD_CLIPS = 128  # about 10 MB of Log-Mel: small enough to spread over workers, large enough to read fast


@dataclass(frozen=True)
class ShardPlan:
    """A planned shard.

    Attributes:
        name: split, number and hash of the shard's content.
        clips: N clips, in order.
        fingerprints: the recordings' sizes in bytes and modification times in ns.
    """

    name: str
    clips: tuple[Clip, ...]
    fingerprints: tuple[tuple[int, int], ...]

    def stem(self, column: str) -> str:
        """Name of the shard's file with a column, without checksum and ending."""
        return f"{column}-{self.name}"


def plan_shards(clips: Sequence[Clip], root: Path, settings: Mapping[str, Any]) -> dict[str, list[ShardPlan]]:
    """Deal clips to shards, by split. A shard's name depends only on its clips and the settings.

    Raises:
        AsdRayError: a recording is missing or cannot be read.
    """
    with ThreadPoolExecutor(16) as pool:  # a network file system answers many requests at the same time
        paths = [clip.path for clip in clips]
        parts = [paths[start : start + 256] for start in range(0, len(paths), 256)]
        found = chain.from_iterable(pool.map(lambda part: [_fingerprint(root / path) for path in part], parts))
        fingerprints = dict(zip(paths, found, strict=True))
    about = hash_of_settings(settings)
    plans: dict[str, list[ShardPlan]] = {}
    for split in SPLITS:
        members = sorted((clip for clip in clips if clip.split == split), key=lambda clip: stable_hash(clip.path))
        # A power of two: a data set that grows a little keeps most of its shards.
        count = 1
        while count * SHARD_CLIPS < len(members):
            count *= 2
        dealt: list[list[Clip]] = [[] for _ in range(count)]
        for clip in members:
            dealt[stable_hash(clip.path) % count].append(clip)
        plans[split] = []
        for number, shard in enumerate(dealt):
            if shard:
                prints = tuple(fingerprints[clip.path] for clip in shard)
                content = stable_hash(about, *zip(map(clip_fields, shard), prints, strict=True))
                plans[split].append(ShardPlan(f"{split}-{number:05d}-{content:016x}", tuple(shard), prints))
    return plans


def clip_fields(clip: Clip) -> dict[str, Any]:
    """A clip as a dictionary, ten times as fast as ``dataclasses.asdict``."""
    return {name: getattr(clip, name) for name in CLIP_FIELDS}


def _fingerprint(path: Path) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise AsdRayError(f"{path}: cannot be read ({error.strerror}).") from None
    return status.st_size, status.st_mtime_ns


def choice(clips: Sequence[Clip], root: Path, columns: Sequence[str]) -> str:
    """Name of a choice of data: a hash of the folder, splits, machines, IDs and columns.

    New or changed recordings of an ID do not change it, so their new manifest replaces the old one.
    """
    ids = sorted({(clip.split, clip.machine, clip.id) for clip in clips})
    return f"{stable_hash(root.resolve(), ids, sorted(columns)):016x}"


def shard_statistics(clips: Sequence[Clip], log_mel: np.ndarray) -> list[dict[str, Any]]:
    """A shard's sums by machine, from which means and standard deviations over all shards follow exactly."""
    by_machine: dict[str, list[int]] = defaultdict(list)
    for number, clip in enumerate(clips):
        by_machine[clip.machine].append(number)
    statistics = []
    for machine, numbers in by_machine.items():
        total = squares = 0.0
        for number in numbers:
            values = torch.from_numpy(log_mel[number]).double()  # twice as fast as numpy
            total += float(values.sum())
            squares += float(values.square_().sum())
        size = len(numbers) * log_mel[0].size
        statistics.append({"machine": machine, "clips": len(numbers), "values": size, "sum": total, "squares": squares})
    return statistics


def make_manifest(
    plans: Mapping[str, Sequence[ShardPlan]],
    files: Mapping[str, str],
    summaries: Mapping[str, dict[str, Any]],
    columns: Sequence[str],
    settings: dict[str, Any],
) -> Manifest:
    """Join the shards' summaries: counts, skipped clips, means and standard deviations of the training clips.

    Args:
        plans: split -> planned shards.
        files: stem -> file name.
        summaries: stem -> summary.
        columns: of features in every shard.
        settings: of the features.
    """
    shards: dict[str, list[Shard]] = {split: [] for split in plans}
    counts = dict.fromkeys(plans, 0)
    skipped: list[str] = []
    totals: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3))
    machines: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(plans, 0))
    data: list[object] = []
    for split, split_plans in plans.items():
        for plan in split_plans:
            summary = summaries[plan.stem("log_mel")]
            bad = [clip["path"] for clip in summary["bad"]]
            skipped += bad
            data += [
                (clip_fields(c), size)
                for c, (size, _) in zip(plan.clips, plan.fingerprints, strict=True)
                if c.path not in bad
            ]
            if not summary["clips"]:
                continue
            shards[split].append(Shard(summary["clips"], {name: files[plan.stem(name)] for name in columns}))
            counts[split] += summary["clips"]
            for part in summary["statistics"]:
                machines[part["machine"]][split] += part["clips"]
                if split == "train":
                    totals[part["machine"]] += (part["values"], part["sum"], part["squares"])
    for machine, total in totals.items():
        machines[machine]["mean"], machines[machine]["std"] = _mean_std(total)
    mean, std = _mean_std(np.sum(list(totals.values()), axis=0)) if totals else (0.0, 1.0)
    data_hash = f"{stable_hash(*data):016x}"
    return Manifest(settings, shards, counts, mean, std, dict(machines), sorted(skipped), data_hash)


def _mean_std(total: np.ndarray) -> tuple[float, float]:
    count, values, squares = total
    mean = values / count
    return float(mean), float(np.sqrt(max(squares / count - mean**2, 0.0)))
