"""Building a feature store with Ray Data: one task per shard, from recordings to a finished parquet file."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
import torch

from asd_ray.clips import Clip
from asd_ray.config import Channel, FeatureConfig
from asd_ray.datasets import audio
from asd_ray.errors import AsdRayError
from asd_ray.features.log_mel import LogMel, level_db
from asd_ray.features.store import (
    Manifest,
    ShardPlan,
    plan_shards,
    read_manifest,
    require_settings,
    settings_of,
    shard_summary,
    write_manifest,
    write_shard,
)

log = logging.getLogger("asd_ray")
BATCH = 16  # clips of one transform call: 10 s clips stay within the processor's caches


def build_shard(
    row: dict[str, Any], root: str, store: str, features: FeatureConfig, channel: Channel, skip_bad: bool
) -> dict[str, Any]:
    """One shard, from recordings to a finished file. Returns its name and summary, or the clip that stopped it."""
    torch.set_num_threads(1)  # one task per core: threads inside a task would only compete
    transform = LogMel(features)
    clips: list[Clip] = []
    bad: list[dict[str, str]] = []
    waveforms: list[np.ndarray] = []
    log_mel: list[np.ndarray] = [np.empty((0, features.n_mels, features.frames), np.float16)]
    levels: list[np.ndarray] = [np.empty(0, np.float32)]

    def transform_batch() -> None:
        if waveforms:
            batch = torch.from_numpy(np.stack(waveforms))
            with torch.inference_mode():
                log_mel.append(transform(batch).half().numpy())
                levels.append(level_db(batch).numpy())
            waveforms.clear()

    for fields in row["clips"]:
        clip = Clip(**fields)
        try:
            waveform = audio.read(Path(root) / clip.path, features.sample_rate, features.seconds, channel=channel)
        except AsdRayError as error:
            bad.append({"path": clip.path, "reason": str(error)})
            if not skip_bad:
                hint = "data.skip_bad: true leaves out clips that cannot be read."
                return {"name": row["name"], "error": f"{error} ({hint})", "clips": 0}
            continue
        clips.append(clip)
        waveforms.append(waveform)
        if len(waveforms) == BATCH:
            transform_batch()
    transform_batch()
    values = np.concatenate(log_mel)
    summary = {"clips": len(clips), "bad": bad, "statistics": shard_statistics(clips, values)}
    try:
        write_shard(Path(store) / row["name"], clips, values, np.concatenate(levels), summary)
    except AsdRayError as error:
        return {"name": row["name"], "error": str(error), "clips": 0}
    return {"name": row["name"], "error": "", "clips": len(row["clips"])}


def shard_statistics(clips: Sequence[Clip], log_mel: np.ndarray) -> list[dict[str, Any]]:
    """Sums over a shard's values, by machine: enough to join means and standard deviations exactly."""
    by_machine: dict[str, list[int]] = defaultdict(list)
    for number, clip in enumerate(clips):
        by_machine[clip.machine].append(number)
    statistics = []
    for machine, numbers in by_machine.items():
        values = log_mel[numbers].astype(np.float64)
        statistics.append(
            {
                "machine": machine,
                "clips": len(numbers),
                "values": values.size,
                "sum": float(values.sum()),
                "squares": float(np.square(values).sum()),
            }
        )
    return statistics


def build(
    clips: Sequence[Clip],
    root: Path,
    store: Path,
    features: FeatureConfig,
    channel: Channel = 0,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Builds what is missing of a feature store and returns its manifest. Ray must be running.

    Args:
        clips: the data set.
        root: its folder.
        store: folder of the store; shards that are there and still right are kept, others are deleted at the end.
        progress: called with (clips done, clips in all).

    Raises:
        AsdRayError: a clip cannot be read (and ``skip_bad`` is not set), the store holds other features, disk full.
    """
    store.mkdir(parents=True, exist_ok=True)
    settings = settings_of(features, channel)
    before = read_manifest(store)
    if before is not None:
        require_settings(before, settings, store)
    plans = plan_shards(clips, root, settings)
    everything = [plan for split in plans.values() for plan in split]
    missing = [plan for plan in everything if shard_summary(store / plan.name) is None]
    done = len(clips) - sum(len(plan.clips) for plan in missing)
    if progress:
        progress(done, len(clips))
    for row in _run(missing, root, store, features, channel, skip_bad):
        if row["error"]:
            raise AsdRayError(row["error"])
        done += row["clips"]
        if progress:
            progress(done, len(clips))
    manifest = make_manifest(plans, store, settings)
    for path in manifest.skipped:
        log.warning("left out, cannot be read: %s", path)
    if not manifest.counts["train"]:
        raise AsdRayError(f"{root}: no training clip could be read; a study needs normal clips to train on.")
    write_manifest(store, manifest)
    for stale in set(store.glob("*.parquet")) - {store / plan.name for plan in everything}:
        stale.unlink()
    return manifest


def _run(
    plans: Sequence[ShardPlan], root: Path, store: Path, features: FeatureConfig, channel: Channel, skip_bad: bool
) -> Iterable[dict[str, Any]]:
    if not plans:
        return []
    rows = [{"name": plan.name, "clips": [asdict(clip) for clip in plan.clips]} for plan in plans]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        build_shard,
        fn_kwargs={
            "root": str(root.resolve()),
            "store": str(store.resolve()),
            "features": features,
            "channel": channel,
            "skip_bad": skip_bad,
        },
        num_cpus=1,
    )
    return dataset.iter_rows()


def make_manifest(plans: Mapping[str, Sequence[ShardPlan]], store: Path, settings: dict[str, Any]) -> Manifest:
    """Joins the shards' summaries: counts, clips left out, means and standard deviations of the training clips."""
    shards: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    skipped: list[str] = []
    totals: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3))
    machines: dict[str, dict[str, float]] = defaultdict(lambda: {"train": 0, "test": 0})
    for split, split_plans in plans.items():
        summaries = {plan.name: shard_summary(store / plan.name) or {} for plan in split_plans}
        shards[split] = [name for name, summary in summaries.items() if summary["clips"]]
        counts[split] = sum(summary["clips"] for summary in summaries.values())
        for summary in summaries.values():
            skipped += [bad["path"] for bad in summary["bad"]]
            for part in summary["statistics"]:
                machines[part["machine"]][split] += part["clips"]
                if split == "train":
                    totals[part["machine"]] += (part["values"], part["sum"], part["squares"])
    for machine, total in totals.items():
        machines[machine]["mean"], machines[machine]["std"] = _mean_std(total)
    mean, std = _mean_std(np.sum(list(totals.values()), axis=0)) if totals else (0.0, 1.0)
    return Manifest(settings, shards, counts, mean, std, dict(machines), sorted(skipped))


def _mean_std(total: np.ndarray) -> tuple[float, float]:
    count, values, squares = total
    mean = values / count
    return float(mean), float(np.sqrt(max(squares / count - mean**2, 0.0)))
