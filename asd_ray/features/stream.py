"""Batches from shards that do not fit in memory: read again every epoch, a few at a time.

Legend: N clips of this worker, B batch, W window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from asd_ray.clips import Clip
from asd_ray.features.batches import Batch, class_numbers, empty, generator

WINDOW = 8
Load = Callable[[], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Part:
    """What a worker uses of a shard.

    Attributes:
        load: reads the shard: column name -> (n, …).
        rows: those of its rows that are used, ascending.
    """

    load: Load
    rows: np.ndarray


class StreamedBatches:
    """Clips read from shards; the same clips and values as cached ones, in another random order.

    While an epoch runs, one thread reads the next shard. At most ``window`` + 1 shards are in memory, whatever the size
    of the data set (the newest twice while its file is taken apart): with the default 8 and shards of 100 clips of 10 s
    at 16 kHz, 80 MB of Log-Mel or 400 MB with waveforms, per worker. No Ray is involved: a training worker that waited
    for a Ray task would wait for ever where workers have taken all cores.

    Args:
        parts: the worker's share of the store, in the store's order.
        clips: N identities, of all parts' rows in order.
        classes: class names in label order.
        window: W, shards that are mixed with each other.
        pin: gather into page-locked memory, from which a GPU copies while the processor goes on.
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
        walk = [(number, row) for number, part in enumerate(self.parts) for row in range(len(part.rows))]
        return self._batches(walk, batch_size)

    def where(self, keep: np.ndarray) -> StreamedBatches:
        parts = []
        for part, kept in zip(self.parts, np.split(np.asarray(keep, dtype=bool), self.starts[1:-1]), strict=True):
            if kept.any():
                parts.append(replace(part, rows=part.rows[kept]))
        clips = [clip for clip, kept in zip(self.clips, keep, strict=True) if kept]
        return StreamedBatches(parts, clips, self.classes, self.window, self.pin)

    def _batches(self, walk: Sequence[tuple[int, int]], batch_size: int) -> Iterator[Batch]:
        """Batches along a walk of (part, position in its rows), each part in memory from its first row to its last."""
        left: dict[int, int] = {}  # parts in the order of their first rows, and how many rows of them are to come
        for number, _ in walk:
            left[number] = left.get(number, 0) + 1
        held: dict[int, Mapping[str, np.ndarray]] = {}
        with _Ahead([self.parts[number].load for number in left]) as ahead:
            for start in range(0, len(walk), batch_size):
                chosen = walk[start : start + batch_size]
                inputs: dict[str, Tensor] = {}
                targets: dict[str, np.ndarray] = {}
                for position, (number, row) in enumerate(chosen):
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
                clips = [self.starts[number] + row for number, row in chosen]
                yield Batch(inputs, self.labels[torch.tensor(clips)])


class _Ahead:
    """Calls functions one after the other in a thread, always one ahead of what has been asked for."""

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


def window_order(lengths: Sequence[int], window: int, *order: object) -> list[tuple[int, int]]:
    """A random walk (part, row) over parts of the given lengths that depends on ``order`` alone.

    The parts are permuted; the rows of each are permuted and cut into W pieces. Step t mixes one piece of each of W
    consecutive parts, among them the first piece of part t and the last of part t - W + 1. So every row comes once, and
    no step needs more than W parts. Shards are random samples of their split, which is why W of them are mixed enough.
    """
    random = generator(*order)
    parts = torch.randperm(len(lengths), generator=random).tolist()
    window = max(1, min(window, len(parts)))
    steps: list[list[tuple[int, int]]] = [[] for _ in range(len(parts) + window - 1)]
    for first, part in enumerate(parts):
        rows = torch.randperm(lengths[part], generator=random)
        for step, piece in enumerate(rows.tensor_split(window), first):
            steps[step] += [(part, row) for row in piece.tolist()]
    return [step[chosen] for step in steps for chosen in torch.randperm(len(step), generator=random).tolist()]
