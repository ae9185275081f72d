"""Scores from distances to training clips, by brute force, group by group.

Legend: N training clips, M clips to score, D embedding, k and K neighbours; m and r clips and references of a block.

In fp64, because distances come out of one matrix product per group: in fp32, ``1 - x·y`` is wrong by 6e-8, and normal
clips of a well-trained network are not much further apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asd_ray.errors import AsdRayError
from asd_ray.scoring.embedded import Scores

Vectors = NDArray[np.float32]
Distances = NDArray[np.float64]

_CHUNK = 512  # clips whose distances are in memory at once: 512 x 36,000 fp64 are 150 MB
_ROUNDING = 1e-14  # of squared lengths: a squared distance below is 0, so that copies have no distance at all
_SMALLEST_RADIUS = 0.01  # of the group's mean radius: what is closer counts as a copy


@dataclass(frozen=True, eq=False)
class References:
    """Training clips to measure distances to.

    A clip is compared with the training clips of its group, or with all of them where its group has none. With
    ``leave_one_out`` the clips to score are the training clips themselves, and none is compared with itself: one that
    is alone in its group is compared with all others, one that is alone altogether gets 0.

    Attributes:
        embedding: (N, D) float32.
        group: (N,) groups (machine and ID), numbers or names.
        domain: (N,) domains.
        distance: ``cosine``, 1 - cos, in [0, 2]; or ``euclidean``.
        density_neighbours: K of :meth:`local_density`.
    """

    embedding: Vectors
    group: NDArray[Any]
    domain: NDArray[Any]
    distance: Literal["cosine", "euclidean"]
    density_neighbours: int = 16

    def __post_init__(self) -> None:
        if not len(self.group):
            raise AsdRayError("There are no training clips to measure a distance to; every machine and ID needs some.")

    def knn(
        self,
        embedding: Vectors,
        group: NDArray[Any],
        k: int,
        *,
        per_domain: bool = False,
        leave_one_out: bool = False,
    ) -> Scores:
        """Mean distance (M,) to the k nearest training clips, all of them where there are fewer.

        ``per_domain`` takes the k nearest of each domain apart and the smallest of these means, so that an ID's ten
        target clips count like its thousand source clips (the k-NN of dcase-asd-toolkit).
        """
        scores = np.zeros(len(embedding))
        for block in self._blocks(embedding, group, leave_one_out):
            domains = self.domain[block.reference] if per_domain else np.zeros(len(block.reference))
            smallest = np.full(len(block.members), np.inf)
            for domain in np.unique(domains):
                nearest = _smallest(block.distance[:, domains == domain], k)
                others = np.isfinite(nearest)  # a clip itself can be among so few
                total, count = nearest.sum(axis=1, where=others), others.sum(axis=1)
                smallest = np.minimum(smallest, np.where(count > 0, total / np.maximum(count, 1), np.inf))
            scores[block.members] = smallest
        return scores

    def local_density(self, embedding: Vectors, group: NDArray[Any], *, leave_one_out: bool = False) -> Scores:
        """Distance (M,) relative to how far apart training clips are where the clip lies.

        min over y of d(x, y) / (1/K Σ d(y, y_k)), y the training clips and y_k the K nearest of y's group to y: local
        density-based score normalisation (Wilkinghoff et al., "Keeping the Balance", ICASSP 2025; arXiv 2509.10951). It
        puts domains of different spread on one scale without knowing them. With ``leave_one_out`` x is left out of y's
        surroundings too. A radius is at least 1 % of its group's mean radius, or of that of all training clips if all
        clips of the group are copies; a clip without neighbours has the mean radius of all training clips.
        """
        complete, without_one = self._surroundings
        scores = np.zeros(len(embedding))
        for block in self._blocks(embedding, group, leave_one_out):
            surroundings = without_one if leave_one_out and block.own_group else complete
            around = Surroundings(*(part[block.reference] for part in surroundings))
            scores[block.members] = around.relative(block.distance).min(axis=1)
        return scores

    @cached_property
    def _surroundings(self) -> tuple[Surroundings, Surroundings]:
        """Those of every training clip: with all of its group, and with a member to be left out."""
        complete, without_one = (Surroundings(*np.zeros((4, len(self.group)))) for _ in range(2))
        for block in self._blocks(self.embedding, self.group, leave_one_out=True):
            if not block.own_group:
                continue
            others = len(block.reference) - 1
            distances = np.sort(_smallest(block.distance, min(self.density_neighbours + 1, others)), axis=1)
            k = min(self.density_neighbours, others)
            complete.total[block.members], complete.k[block.members] = distances[:, :k].sum(axis=1), k
            k = min(self.density_neighbours, others - 1)
            without_one.total[block.members], without_one.k[block.members] = distances[:, : k + 1].sum(axis=1), k
            without_one.last[block.members] = distances[:, k]
        defined = complete.k > 0
        radius = np.divide(complete.total, complete.k, where=defined, out=np.zeros_like(complete.total))
        overall = radius[defined].mean() if radius.any() else 1.0
        for group in np.unique(self.group):
            own = np.flatnonzero(self.group == group)
            smallest = _SMALLEST_RADIUS * (radius[own].mean() or overall)
            for surroundings in (complete, without_one):
                surroundings.smallest[own] = smallest
                undefined = own[surroundings.k[own] == 0]
                surroundings.total[undefined], surroundings.last[undefined] = overall, 0
                surroundings.k[undefined] = 1
        return complete, without_one

    def _blocks(self, embedding: Vectors, group: NDArray[Any], leave_one_out: bool) -> Iterator[Block]:
        """The clips of every group, in chunks, with what they are compared with; none where there is nothing."""
        for of_group in np.unique(group):
            reference = np.flatnonzero(self.group == of_group)
            own_group = len(reference) > leave_one_out
            if not own_group:
                reference = np.arange(len(self.group))
                if len(reference) == leave_one_out:
                    continue
            y = self.embedding[reference].astype(np.float64)
            centre = y.mean(axis=0)  # against cancellation
            y = _unit(y) if self.distance == "cosine" else y - centre
            lengths = np.einsum("rd,rd->r", y, y)
            members = np.flatnonzero(group == of_group)
            for start in range(0, len(members), _CHUNK):
                chunk = members[start : start + _CHUNK]
                x = embedding[chunk].astype(np.float64)
                x = _unit(x) if self.distance == "cosine" else x - centre
                squared = x @ y.T
                squared *= -2
                both = np.einsum("md,md->m", x, x)[:, None] + lengths
                squared += both
                squared[squared < _ROUNDING * both] = 0
                distance = squared / 2 if self.distance == "cosine" else np.sqrt(squared, out=squared)
                if leave_one_out:
                    distance[np.arange(len(chunk)), np.searchsorted(reference, chunk)] = np.inf
                yield Block(chunk, reference, own_group, distance)


def _unit(x: Distances) -> Distances:
    """Vectors (N, D) of unit length; a vector of zeros stays one."""
    length = np.sqrt(np.einsum("nd,nd->n", x, x))[:, None]
    return x / np.where(length > 0, length, 1)


def _smallest(values: Distances, k: int) -> Distances:
    """The k smallest values of every row, or all if there are fewer, in no order."""
    return values if k >= values.shape[1] else np.partition(values, k - 1, axis=1)[:, :k]


class Block(NamedTuple):
    """Some clips of one group and the training clips that they are compared with.

    Attributes:
        members: (m,) positions of the clips.
        reference: (r,) positions of the training clips, ascending.
        own_group: whether these are the clips' own group, rather than all training clips for lack of it.
        distance: (m, r) distances; infinite where a training clip would be compared with itself.
    """

    members: NDArray[np.int64]
    reference: NDArray[np.int64]
    own_group: bool
    distance: Distances


class Surroundings(NamedTuple):
    """How close training clips y have their neighbours; every part has one value per y.

    Attributes:
        total: sum of the distances to the neighbours, and to one more if a clip x is to be left out.
        last: distance to that one more, or 0.
        k: K, the number of neighbours without it.
        smallest: the least radius.
    """

    total: Distances
    last: Distances
    k: Distances
    smallest: Distances

    def relative(self, distance: Distances) -> Distances:
        """d(x, y) over y's radius. A left-out x takes its own distance out of the sum, or else the last falls out."""
        radius = (self.total - np.minimum(distance, self.last)) / self.k
        return distance / np.maximum(radius, self.smallest)
