"""A worker's clips for training and scoring: shuffled batches of an epoch, or all clips in the store's order.

Legend: N clips of this worker, B batch.

Every epoch's order depends only on what the caller names it by (seed, stage, epoch, worker), never on time or threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from asd_ray.clips import Clip, stable_hash


@dataclass(frozen=True)
class Batch:
    """Some clips.

    Attributes:
        inputs: column name -> (B, …), as stored.
        labels: (B,) class numbers, -1 for a class without training clips.
    """

    inputs: dict[str, Tensor]
    labels: Tensor

    def to(self, device: torch.device) -> Batch:
        inputs = {name: column.to(device, non_blocking=True) for name, column in self.inputs.items()}
        return Batch(inputs, self.labels.to(device, non_blocking=True))


class Batches(Protocol):
    """What the training loop asks of a worker's clips, wherever they are kept."""

    clips: Sequence[Clip]
    """Identities of the N clips, in the store's order."""

    def shuffled(self, batch_size: int, *order: object) -> Iterator[Batch]:
        """Batches of exactly ``batch_size`` in a random order that depends on ``order`` alone; no clip comes twice.

        The last N mod ``batch_size`` clips of the order are left out of this epoch.
        """

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All N clips in the order of ``clips``; the last batch may be smaller."""

    def where(self, keep: np.ndarray) -> Batches:
        """The clips that a mask (N,) keeps."""


class CachedBatches:
    """Clips in memory.

    Args:
        clips: N identities.
        columns: column name -> (N, …) tensor, on any device.
        classes: class names in label order.
    """

    def __init__(self, clips: Sequence[Clip], columns: Mapping[str, Tensor], classes: Sequence[str]) -> None:
        self.clips, self.columns, self.classes = clips, columns, classes
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
        columns = {name: column[chosen] for name, column in self.columns.items()}
        return CachedBatches([self.clips[number] for number in chosen], columns, self.classes)

    def _batch(self, chosen: Tensor) -> Batch:
        return Batch({name: column[chosen] for name, column in self.columns.items()}, self.labels[chosen])


def permutation(count: int, *order: object) -> Tensor:
    """A permutation (count,) that depends on ``order`` alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(stable_hash(*order) >> 1))


def class_numbers(clips: Sequence[Clip], classes: Sequence[str]) -> Tensor:
    """Class number (N,) of every clip, -1 for a class without training clips."""
    number = {name: position for position, name in enumerate(classes)}
    return torch.tensor([number.get(clip.class_name, -1) for clip in clips], dtype=torch.long)
