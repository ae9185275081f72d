"""Batches from shards on disk, a few in memory at a time: for features that do not fit in memory.

Legend: N clips of this worker, B batch, W window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from asd_ray.data.clips import Clip
from asd_ray.features.batches import Batch, class_numbers, empty, generator

WINDOW = 8
Load = Callable[[], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Part:
    """A worker's part of a shard.

    Attributes:
        load: reads the shard: column name -> (n, …).
        rows: the worker's rows, ascending.
    """

    load: Load
    rows: np.ndarray


class StreamedBatches:
    """Clips read from shards: the same clips and values as cached ones, in another random order.

    A thread reads the next shard while an epoch runs. At most ``window`` + 1 shards are in memory, whatever the size of
    the data set (the newest one twice while it is decoded). With the default 8, and shards of 100 clips of 10 s at
    16 kHz, that is 80 MB of Log-Mel per worker, or 400 MB with waveforms. Reading does not use Ray: if the workers have
    taken all cores, a Ray task would never start.

    Args:
        parts: the worker's parts of the store, in the store's order.
        clips: N clips, of all parts' rows in order.
        classes: class names in label order.
        window: W, number of shards that are mixed with each other.
        pin: return page-locked tensors, which a GPU copies in the background.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        clips: Sequence[Clip],
        classes: Sequence[str],
        window: int = WINDOW,
        pin: bool = False,
    ) -> None:
        self.parts, self.clips, self.classes, self.window, self.pin = parts, clips, classes, window, pin
        self.labels = class_numbers(clips, classes)
        self.starts = np.cumsum([0, *(len(part.rows) for part in parts)])

    def shuffled(self, batch_size: int, *order: object) -> Iterator[Batch]:
        walk = window_order([len(part.rows) for part in self.parts], self.window, *order)
        return self._batches(walk[: len(walk) // batch_size * batch_size], batch_size)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        lengths = [len(part.rows) for part in self.parts]
        rows = [np.arange(length) for length in lengths]
        walk = np.stack(
            [np.repeat(np.arange(len(lengths)), lengths), np.concatenate([*rows, np.empty(0, np.int64)])], axis=1
        )
        return self._batches(walk, batch_size)

    def where(self, keep: np.ndarray) -> StreamedBatches:
        parts = []
        for part, start in zip(self.parts, self.starts.tolist(), strict=False):
            rows = part.rows[keep[start : start + len(part.rows)]]
            if len(rows):
                parts.append(replace(part, rows=rows))
        clips = [clip for clip, kept in zip(self.clips, keep, strict=True) if kept]
        return StreamedBatches(parts, clips, self.classes, self.window, self.pin)

    def _batches(self, walk: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """Batches along a walk (N, 2) of part and position in its rows; a part is in memory from first to last use."""
        numbers, firsts, counts = np.unique(walk[:, 0], return_index=True, return_counts=True)
        order = np.argsort(firsts)
        left = dict(zip(numbers[order].tolist(), counts[order].tolist(), strict=True))  # part -> rows still to come
        held: dict[int, Mapping[str, np.ndarray]] = {}
        with _Ahead([self.parts[number].load for number in left]) as ahead:
            for start in range(0, len(walk), batch_size):
                chosen = walk[start : start + batch_size]
                inputs: dict[str, Tensor] = {}
                targets: dict[str, np.ndarray] = {}
                for position, (number, row) in enumerate(chosen.tolist()):
                    if number not in held:
                        held[number] = ahead.next()
                    for name, column in held[number].items():
                        if name not in inputs:
                            inputs[name] = empty(len(chosen), column, self.pin)
                            targets[name] = inputs[name].numpy()
                        targets[name][position] = column[self.parts[number].rows[row]]
                    left[number] -= 1
                    if not left[number]:
                        del held[number]
                yield Batch(inputs, self.labels[torch.from_numpy(self.starts[chosen[:, 0]] + chosen[:, 1])])


class _Ahead:
    """Calls functions in a thread, one after the other, and always one ahead of the caller."""

    def __init__(self, loads: Sequence[Load]) -> None:
        self.loads = iter(loads)
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="asd_ray-shards")
        self.pending: Future[Mapping[str, np.ndarray]] | None = None

    def __enter__(self) -> _Ahead:
        self._submit()
        return self

    def __exit__(self, *exception: object) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> None:
        load = next(self.loads, None)
        self.pending = None if load is None else self.pool.submit(load)

    def next(self) -> Mapping[str, np.ndarray]:
        assert self.pending is not None
        loaded = self.pending.result()
        self._submit()
        return loaded


def window_order(lengths: Sequence[int], window: int, *order: object) -> np.ndarray:
    """A random order (N, 2) of part and row, over parts of the given lengths. It depends on ``order`` alone.

    The parts are permuted; the rows of each part are permuted and cut into W pieces. Step t mixes one piece of each of
    W consecutive parts, from the first piece of part t to the last piece of part t - W + 1. So every row comes once,
    and no step needs more than W parts. W shards mix well enough, because a shard is a random sample of its split.
    """
    random = generator(*order)
    parts = torch.randperm(len(lengths), generator=random).tolist()
    window = max(1, min(window, len(parts)))
    steps: list[list[np.ndarray]] = [[] for _ in range(len(parts) + window - 1)]
    for first, part in enumerate(parts):
        rows = torch.randperm(lengths[part], generator=random)
        for step, piece in enumerate(rows.tensor_split(window), first):
            steps[step].append(np.stack([np.full(len(piece), part), piece.numpy()], axis=1))
    mixed = [np.concatenate(step)[torch.randperm(sum(map(len, step)), generator=random).numpy()] for step in steps]
    return np.concatenate([*mixed, np.empty((0, 2), np.int64)])
