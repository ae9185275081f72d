"""Read a feature store for a study's trials: cached in Ray's object store, or streamed from the shards.

* Cached: Ray tasks read every shard once into the object store. All trials and workers of a node share that memory: one
  copy of the features per node, none per trial. (A GPU gets its own copy of a worker's clips if they fit.)
* Streamed: every worker reads its shards again in each epoch.
* Own: one process reads all features into its own memory, without Ray.

All of them give the same clips. The store's order is cut into one contiguous piece per worker: every clip belongs to
exactly one worker, and the workers' numbers of clips differ by at most one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch

from asd_ray.data.clips import CLIP_FIELDS, Clip
from asd_ray.errors import AsdRayError, StorageError
from asd_ray.features.batches import Batches, Blocks, CachedBatches
from asd_ray.features.storage import Storage
from asd_ray.features.store import (
    REMEDY,
    DamagedShard,
    Manifest,
    Place,
    Shard,
    clips_of,
    joined,
    read_in_task,
    read_joined,
    views,
)
from asd_ray.features.stream import WINDOW, Part, StreamedBatches

log = logging.getLogger("asd_ray")
PATIENCE_SECONDS = 60.0  # how long a worker retries while storage fails
PAUSE_SECONDS = 2.0  # between two tries
OBJECT_STORE_SHARE = 0.8  # largest share of the object store for features; trials need the rest
DEVICE_SHARE = 0.5  # largest share of a GPU's free memory for features
Reading = Literal["auto", "cached", "streamed", "own"]


@dataclass(frozen=True)
class Slice:
    """Rows ``start`` to ``stop`` of one shard."""

    split: str
    number: int
    start: int
    stop: int


@dataclass(frozen=True)
class Features:
    """A handle of a study's features. It is small, and the same for all trials and workers.

    Attributes:
        storage, manifest: the store.
        columns: of features in every batch.
        identities: split -> for each shard a table of its clips' fields.
        tables: split -> for each shard a reference to its table in Ray's object store, or (``own``) the table itself;
            None if streamed.
    """

    storage: Storage
    manifest: Manifest
    columns: tuple[str, ...]
    identities: dict[str, tuple[pa.Table, ...]]
    tables: dict[str, tuple[Any, ...]] | None

    def batches(
        self,
        splits: str | Sequence[str],
        classes: Sequence[str],
        rank: int = 0,
        workers: int = 1,
        device: torch.device | str = "cpu",
        window: int = WINDOW,
    ) -> Batches:
        """One worker's clips of one or more splits, mixed in proportion.

        Cached clips are copied to a GPU as one tensor if they fit into half of its free memory. Keep the result: every
        call needs memory of its own.

        Args:
            splits: ``train``, ``test``, ``extra``.
            classes: class names in label order.
            rank, workers: number of this worker, and of all workers.
            device: that the batches are for.
            window: number of shards that a streamed batch is mixed from.
        """
        device = torch.device(device)
        pin = device.type == "cuda"
        slices = self._slices((splits,) if isinstance(splits, str) else splits, rank, workers)
        clips: list[Clip] = []
        for piece in slices:
            clips += clips_of(self.identities[piece.split][piece.number].slice(piece.start, piece.stop - piece.start))
        if self.tables is None:
            parts = [
                Part(partial(self._load, piece.split, piece.number), np.arange(piece.start, piece.stop))
                for piece in slices
            ]
            return StreamedBatches(parts, clips, classes, window, pin)
        tables = [self.tables[piece.split][piece.number] for piece in slices]
        if not all(isinstance(table, pa.Table) for table in tables):
            tables = ray.get(tables)
        columns: dict[str, Any] = {}
        for name in self.columns:
            kind, shape = self.manifest.column(name)
            blocks = [
                view
                for piece, table in zip(slices, tables, strict=True)
                for view in views(table.slice(piece.start, piece.stop - piece.start), name, kind, shape)
            ]
            columns[name] = Blocks(blocks or [np.empty((0, *shape), kind)], pin)
        if pin:
            needed = len(clips) * self.manifest.bytes_per_clip(self.columns)
            if needed <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
                columns = {name: blocks.on(device) for name, blocks in columns.items()}
        return CachedBatches(clips, columns, classes)

    def _slices(self, splits: Sequence[str], rank: int, workers: int) -> list[Slice]:
        """One worker's rows. Shards of several splits alternate, so every worker gets its part of each split."""
        order: list[tuple[float, int, int, int]] = []
        for place, split in enumerate(splits):
            shards = self.manifest.shards.get(split, [])
            order += [((n + 0.5) / len(shards), place, n, shard.clips) for n, shard in enumerate(shards)]
        total = sum(clips for *_, clips in order)
        first, last = total * rank // workers, total * (rank + 1) // workers
        slices = []
        position = 0
        for _, place, number, clips in sorted(order):
            start, stop = max(first - position, 0), min(last - position, clips)
            if start < stop:
                slices.append(Slice(splits[place], number, start, stop))
            position += clips
        return slices

    def _load(self, split: str, number: int) -> dict[str, np.ndarray]:
        """Read a shard's features. If storage fails, try again for a minute: a bucket may be unreachable for seconds.

        Raises:
            StorageError: storage still fails, or a file is missing or damaged.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                table = read_joined(self.storage, self.manifest.shards[split][number], self.columns)
                break
            except StorageError as error:
                if isinstance(error, DamagedShard) or time.monotonic() >= deadline:
                    raise
                log.warning("%s It is read again for up to %.0f s.", error, deadline - time.monotonic())
            time.sleep(PAUSE_SECONDS)
        return {name: joined(views(table, name, *self.manifest.column(name))) for name in self.columns}


def open_features(
    store: Place,
    manifest: Manifest,
    columns: Sequence[str] = ("log_mel",),
    reading: Reading = "auto",
) -> Features:
    """Open a study's features for its trials. The driver calls it once.

    Args:
        store, manifest: from :func:`asd_ray.features.build.build`.
        columns: of features that the method needs.
        reading: ``cached``, ``streamed`` or ``own`` (see above); ``auto`` is cached if the features fit
            (:func:`fits`), else streamed. ``cached`` and ``auto`` need a running Ray. Do not send ``own`` features to
            another process: all of them would be copied.

    Raises:
        AsdRayError: a shard is missing or damaged.
    """
    storage = store if isinstance(store, Storage) else Storage(store)
    columns = tuple(columns)
    if reading == "auto":
        reading = "cached" if fits(manifest, columns, object_store_bytes()) else "streamed"
    shards = [(split, shard) for split, members in manifest.shards.items() for shard in members]
    if reading == "streamed":
        return Features(storage, manifest, columns, _by_split(manifest, _identities(storage, shards)), None)
    if reading == "own":
        own = [read_joined(storage, shard, columns) for _, shard in shards]
        identities = [table.select(list(CLIP_FIELDS)) for table in own]
        return Features(storage, manifest, columns, _by_split(manifest, identities), _by_split(manifest, own))
    task = ray.remote(num_cpus=1, num_returns=3, scheduling_strategy="SPREAD")(read_in_task)
    references = [task.remote(storage, shard, columns) for _, shard in shards]
    identities = []
    for _, identity, error in references:
        if reason := ray.get(error):
            raise AsdRayError(reason)
        identities.append(ray.get(identity))
    tables = _by_split(manifest, [table for table, _, _ in references])
    return Features(storage, manifest, columns, _by_split(manifest, identities), tables)


def fits(manifest: Manifest, columns: Iterable[str], object_store_bytes: float) -> bool:
    """True if all clips fit into an object store of that size, with room left for the trials' own data."""
    needed = sum(manifest.counts.values()) * manifest.bytes_per_clip(columns)
    return needed <= OBJECT_STORE_SHARE * object_store_bytes


def object_store_bytes() -> float:
    """Size of the smallest object store in the cluster: each training node gets its own copy."""
    sizes = [node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes() if node["Alive"]]
    return min(sizes, default=0.0)


def _identities(storage: Storage, shards: Sequence[tuple[str, Shard]]) -> list[pa.Table]:
    def read(shard: Shard) -> pa.Table:
        name = shard.files["log_mel"]
        try:
            with storage.open(name) as file:
                return pq.read_table(file, columns=list(CLIP_FIELDS), use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise AsdRayError(f"{storage.url(name)}: cannot be read ({error}); {REMEDY}") from None

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(read, (shard for _, shard in shards)))


def _by_split(manifest: Manifest, of_shards: Sequence[Any]) -> dict[str, tuple[Any, ...]]:
    rest = iter(of_shards)
    return {split: tuple(next(rest) for _ in shards) for split, shards in manifest.shards.items()}
