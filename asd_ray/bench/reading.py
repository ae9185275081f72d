"""Speed of reading: epochs of a worker's batches, cached in Ray's object store or streamed from shards."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from asd_ray.bench.processes import local_ray
from asd_ray.bench.table import Measured, interleaved, joined
from asd_ray.config import FeatureConfig
from asd_ray.data import audio
from asd_ray.data.clips import Clip, class_names
from asd_ray.features.batches import Batches
from asd_ray.features.log_mel import LogMel
from asd_ray.features.store import COLUMNS, read_shard, views, write_shard

BATCH = 64
KINDS: tuple[tuple[Literal["cached", "streamed"], int], ...] = (("cached", 1), ("cached", 2), ("streamed", 1))
Reading = tuple[Measured, Measured]
"""Clips per second, and seconds until the first batch, of every epoch."""


def epochs(clips: Batches, number: int) -> Reading:
    """Read all clips in shuffled batches, for a number of epochs."""
    return _timed(lambda epoch: clips.shuffled(BATCH, "bench", epoch), lambda batch: len(batch.labels), number)


def _timed(start: Callable[[int], Any], size: Callable[[Any], int], number: int) -> Reading:
    rates, first = [], []
    for epoch in range(number):
        clips = 0
        began = time.perf_counter()
        for batch in start(epoch):
            if not clips:
                first.append(time.perf_counter() - began)
            clips += size(batch)
        rates.append(clips / (time.perf_counter() - began))
    return Measured(tuple(rates), "clips/s"), Measured(tuple(first), "s")


def read(clips: Sequence[Clip], root: Path, store: Path, repeats: int) -> dict[str, Reading]:
    """Build a store on a new Ray and read it with Ray actors of one core and one thread.

    Returns:
        ``cached 1``; ``cached 2`` (two workers at once, each with half of the clips); ``streamed 1``; and ``ray data``:
        the same clips, materialised by Ray Data and read by ``iter_torch_batches``.
    """
    import ray

    from asd_ray.features.build import build
    from asd_ray.features.read import Features, open_features

    class Worker:
        def __init__(self, features: Features, rank: int, workers: int) -> None:
            torch.set_num_threads(1)
            self.clips = features.batches("train", class_names(clips), rank, workers)

        def epochs(self, number: int) -> Reading:
            return epochs(self.clips, number)

    def at_once(kind: Literal["cached", "streamed"], workers: int) -> Reading:
        features = open_features(store, manifest, reading=kind)
        actors = [ray.remote(num_cpus=1)(Worker).remote(features, rank, workers) for rank in range(workers)]
        ray.get([actor.__ray_ready__.remote() for actor in actors])
        readings = ray.get([actor.epochs.remote(repeats) for actor in actors])
        for actor in actors:
            ray.kill(actor)
        return joined(rates for rates, _ in readings), joined(first for _, first in readings)

    with local_ray():
        manifest = build(clips, root, store, FeatureConfig()).manifest
        found = {
            "cached 1": at_once("cached", 1),
            "cached 2": at_once("cached", 2),
            "streamed 1": at_once("streamed", 1),
        }
        features = open_features(store, manifest, reading="cached")
        found["ray data"] = _ray_data(features.batches("train", class_names(clips)), repeats)
    return found


def _ray_data(clips: Batches, repeats: int) -> Reading:
    """Epochs as in Ray's own training guide: a materialised dataset, shuffled in a buffer."""
    import ray.data

    blocks = [batch.inputs["log_mel"].numpy() for batch in clips.in_order(128)]
    dataset = ray.data.from_numpy(blocks).materialize()

    def start(epoch: int) -> Any:
        return dataset.iter_torch_batches(
            batch_size=BATCH, drop_last=True, local_shuffle_buffer_size=1024, local_shuffle_seed=epoch
        )

    return _timed(start, lambda batch: len(batch["data"]), repeats)


def formats(recordings: Sequence[Path], folder: Path, repeats: int) -> list[Measured]:
    """Rates of reading a shard in one thread: in the store's format, checksum included, and with Parquet's defaults.

    The files are in the page cache.
    """
    values = _log_mels(recordings)
    identities = [Clip(str(path), "fan", "00", "train", "normal") for path in recordings]
    name = write_shard(folder, "log_mel-train-00000-" + 16 * "0", identities, {"log_mel": values}, {})
    other = folder / "defaults.parquet"
    pq.write_table(pa.table({"log_mel": pa.FixedShapeTensorArray.from_numpy_ndarray(values)}), other)

    def ours() -> int:
        table = read_shard(folder, name, ["log_mel"])
        return sum(len(view) for view in views(table, "log_mel", COLUMNS["log_mel"], values.shape[1:]))

    def defaults() -> int:
        column = pq.read_table(other, use_threads=False)["log_mel"]
        return sum(len(chunk.to_numpy_ndarray()) for chunk in column.chunks)

    return interleaved([ours, defaults], repeats)


def _log_mels(recordings: Sequence[Path]) -> np.ndarray:
    """Log-Mel features (N, F, T) of recordings, fp16."""
    config = FeatureConfig()
    transform = LogMel(config)
    waveforms = [audio.read(path, config.sample_rate, config.seconds) for path in recordings]
    with torch.inference_mode():
        return np.stack([transform(torch.from_numpy(one)).half().numpy() for one in waveforms])
