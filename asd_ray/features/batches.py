"""Batches of a worker's clips: shuffled for an epoch of training, or in the store's order for scoring.

Legend: N clips of this worker, B batch.

An epoch's order depends only on the values that the caller passes (seed, stage, epoch), never on time or threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from asd_ray.data.clips import Clip, groups_of, stable_hash


@dataclass(frozen=True)
class Batch:
    """A batch of clips.

    Attributes:
        inputs: column name -> (B, …), as stored.
        labels: (B,) class numbers (:func:`class_numbers`).
    """

    inputs: dict[str, Tensor]
    labels: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        inputs = {name: column.to(device, non_blocking=True) for name, column in self.inputs.items()}
        return Batch(inputs, self.labels.to(device, non_blocking=True))


class Batches(Protocol):
    """A worker's clips, in memory or on disk."""

    clips: Sequence[Clip]
    """The N clips, in the store's order."""

    def shuffled(self, batch_size: int, *order: object) -> Iterator[Batch]:
        """Batches of exactly ``batch_size`` clips in a random order that depends on ``order`` alone.

        Every clip comes at most once: the last N mod ``batch_size`` clips of the order are left out.
        """

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All N clips in the order of ``clips``; the last batch may be smaller."""

    def where(self, keep: np.ndarray) -> Batches:
        """The clips that a mask (N,) keeps."""


class Blocks:
    """Several arrays (n, …) that act as one array (N, …) without being joined: only requested rows are copied.

    With arrays in shared memory (Ray's object store) all processes of a node share one copy.

    Args:
        blocks: arrays (n, …) of one type and shape.
        pin: return page-locked tensors, which a GPU copies in the background.
    """

    def __init__(self, blocks: Sequence[np.ndarray], pin: bool = False) -> None:
        self.blocks, self.pin = blocks, pin
        self.starts = np.cumsum([0, *map(len, blocks)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, rows: Tensor) -> Tensor:
        first = self.blocks[0]
        out = empty(len(rows), first, self.pin)
        target, numbers = out.numpy(), rows.numpy()
        of_block = np.searchsorted(self.starts, numbers, side="right") - 1
        within = numbers - self.starts[of_block]
        for position, (block, row) in enumerate(zip(of_block.tolist(), within.tolist(), strict=True)):
            target[position] = self.blocks[block][row]
        return out

    def on(self, device: torch.device) -> Tensor:
        """All rows as one contiguous tensor on a device, copied block by block."""
        out = torch.empty((len(self), *self.blocks[0].shape[1:]), dtype=_dtype(self.blocks[0]), device=device)
        for start, block in zip(self.starts[:-1].tolist(), self.blocks, strict=True):
            out[start : start + len(block)] = torch.from_numpy(block.copy())
        return out


class CachedBatches:
    """Clips in memory.

    Args:
        clips: N clips.
        columns: column name -> (N, …) tensor on any device, or blocks in shared memory.
        classes: class names in label order.
        rows: (N,) the clips' rows in the columns; by default 0 to N - 1.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        columns: Mapping[str, Tensor | Blocks],
        classes: Sequence[str],
        rows: Tensor | None = None,
    ) -> None:
        self.clips, self.columns, self.classes = clips, columns, classes
        self.rows = torch.arange(len(clips)) if rows is None else rows
        self.labels = class_numbers(clips, classes)

    def shuffled(self, batch_size: int, *order: object) -> Iterator[Batch]:
        shuffled = permutation(len(self.clips), *order)
        for start in range(0, len(shuffled) - batch_size + 1, batch_size):
            yield self._batch(shuffled[start : start + batch_size])

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        for chosen in torch.arange(len(self.clips)).split(batch_size) if self.clips else ():
            yield self._batch(chosen)

    def where(self, keep: np.ndarray) -> CachedBatches:
        chosen = np.flatnonzero(keep)
        return CachedBatches(
            [self.clips[number] for number in chosen.tolist()], self.columns, self.classes, self.rows[chosen]
        )

    def _batch(self, chosen: Tensor) -> Batch:
        rows = self.rows[chosen]
        return Batch({name: column[rows] for name, column in self.columns.items()}, self.labels[chosen])


def empty(count: int, like: np.ndarray, pin: bool = False) -> Tensor:
    """An uninitialised tensor for ``count`` rows with the type and shape of an array's rows."""
    return torch.empty((count, *like.shape[1:]), dtype=_dtype(like), pin_memory=pin)


def _dtype(array: np.ndarray) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype


def permutation(count: int, *order: object) -> Tensor:
    """A permutation (count,) that depends on ``order`` alone."""
    return torch.randperm(count, generator=generator(*order))


def generator(*order: object) -> torch.Generator:
    """A random generator whose numbers depend on ``order`` alone."""
    return torch.Generator().manual_seed(stable_hash(*order) >> 1)


def class_numbers(clips: Sequence[Clip], classes: Sequence[str]) -> Tensor:
    """Class numbers (N,) of clips: positions in ``classes`` (from ``class_names``), or -1.

    A training clip's class is its machine, ID and attributes, if there is such a class. Otherwise, and for any other
    clip, it is machine and ID.
    """
    number = {name: position for position, name in enumerate(classes)}

    def of(clip: Clip) -> int:
        of_group = number.get(clip.group, -1)
        return number.get(f"{clip.group}/{clip.attributes}", of_group) if clip.split == "train" else of_group

    return torch.tensor([of(clip) for clip in clips], dtype=torch.long)


def group_numbers(clips: Sequence[Clip], classes: Sequence[str]) -> Tensor:
    """Group numbers (N,) of clips: positions among the groups of ``classes``, or -1 for a group without training."""
    number = {name: position for position, name in enumerate(groups_of(classes))}
    return torch.tensor([number.get(clip.group, -1) for clip in clips], dtype=torch.long)
