"""Reading a feature store for a study: once, into Ray's object store, shared by all trials.

A lazy read costs seconds per epoch, a materialised one almost nothing. The driver materialises each split once and cuts
it into one contiguous shard per worker, row by row, so that every clip is in exactly one shard and none is dropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray.data

from asd_ray.features.store import ClipTable, Manifest, collect, shard_paths


def materialise(store: Path, manifest: Manifest, split: str, workers: int) -> list[Any]:
    """One materialised Ray dataset per worker, together all clips of a split in the store's order.

    The shards' lengths differ by at most one. The order is the store's (by a hash of the clips' paths) whatever the
    number of tasks that read it, so what a worker sees depends only on the store and the number of workers.
    """
    count = manifest.counts[split]
    if not count:
        return [None] * workers
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    paths = shard_paths(store, manifest, split)
    dataset = ray.data.read_parquet(paths, override_num_blocks=len(paths)).materialize()
    if workers == 1:
        return [dataset]
    return list(dataset.split_at_indices([count * rank // workers for rank in range(1, workers)]))


def take(dataset: Any, shape: tuple[int, int]) -> ClipTable:
    """All clips of a materialised dataset (or of Ray Train's iterator over one) as one contiguous table."""
    if dataset is None:
        return collect([], shape)
    return collect(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0), shape)
