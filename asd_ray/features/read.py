"""Reading a feature store for a study's trials: from Ray's object store, filled once, or from the shards.

Cached, the driver has every shard read once by a Ray task; its table lies in the object store, and all trials and
workers of a node look at the same memory: one copy of the features per node that trains, none per trial (on a GPU, one
more of the worker's clips if they fit there). Streamed, every worker reads its shards again each epoch. Both hand out
the same clips: the store's order is cut into one contiguous piece per worker, so every clip is with exactly one of
them, none is dropped, and their numbers differ by at most one. One process that shares its features with nobody reads
its own, without Ray.
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
from asd_ray.features.read_apart import read_apart
from asd_ray.features.storage import Storage
from asd_ray.features.store import REMEDY, DamagedShard, Manifest, Place, Shard, clips_of, joined, read_joined, views
from asd_ray.features.stream import WINDOW, Part, StreamedBatches

log = logging.getLogger("asd_ray")
PATIENCE_SECONDS = 60.0  # with storage that fails in the middle of training
PAUSE_SECONDS = 2.0
OBJECT_STORE_SHARE = 0.8  # of its memory may be features; the rest is for what trials send each other
DEVICE_SHARE = 0.5  # of a GPU's free memory may become features
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
    """A study's features, as its driver hands them to trials and workers: small, and the same for all.

    Attributes:
        storage, manifest: the store.
        columns: what batches hold.
        identities: split -> a table of the clips' fields for each shard.
        tables: split -> for each shard the reference of its table in Ray's object store, or (``own``) the table itself;
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
        """One worker's clips of one split, or of several that are mixed in proportion.

        On a GPU, cached clips become one tensor there if they fit into half of its free memory. Keep the result and use
        it again: every call takes room of its own.

        Args:
            splits: ``train``, ``test``, ``extra``.
            classes: class names in label order.
            rank, workers: which of how many workers.
            device: where the batches will be needed.
            window: shards that streamed batches are mixed from.
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
        """A worker's rows. The shards of several splits alternate, so that every worker has its part of each."""
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
        """A shard's features from its files. Storage that fails is asked again for a while: a bucket may be away for
        seconds, and the epoch need not be lost.

        Raises:
            StorageError: it still fails, or a file is gone or damaged.
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
    """Makes a study's features ready for its trials. Called once, by the driver.

    Args:
        store, manifest: what :func:`asd_ray.features.build.build` has made.
        columns: that the method asks for.
        reading: ``cached`` or, by size (:func:`fits`), ``auto``, for which Ray must be running; ``streamed``; or
            ``own``: into the memory of this process, for itself alone (sent elsewhere, all the features are copied).

    Raises:
        AsdRayError: a shard is gone or damaged.
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
    task = ray.remote(num_cpus=1, num_returns=3, scheduling_strategy="SPREAD")(read_apart)
    references = [task.remote(storage, shard, columns) for _, shard in shards]
    identities = []
    for _, identity, error in references:
        if reason := ray.get(error):
            raise AsdRayError(reason)
        identities.append(ray.get(identity))
    tables = _by_split(manifest, [table for table, _, _ in references])
    return Features(storage, manifest, columns, _by_split(manifest, identities), tables)


def fits(manifest: Manifest, columns: Iterable[str], object_store_bytes: float) -> bool:
    """Whether all clips fit into an object store of that size, with room left for what trials send each other."""
    needed = sum(manifest.counts.values()) * manifest.bytes_per_clip(columns)
    return needed <= OBJECT_STORE_SHARE * object_store_bytes


def object_store_bytes() -> float:
    """Size of the smallest object store in the cluster: each node that trains gets a copy of its own."""
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
