"""Embeddings and logits of clips: the input of every score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asd_ray.data.clips import group_of, groups_of
from asd_ray.errors import AsdRayError

Scores = NDArray[np.float64]
"""Anomaly scores, one for each clip; higher is more anomalous. Comparable between clips of one ID only."""

DOMAINS = ("none", "source", "target")
"""Domains by their number in :attr:`Embedded.domain`."""

_LARGEST = 1e12  # its square and sums of such squares are far from the end of fp32


@dataclass(frozen=True)
class Embedded:
    """Embeddings and logits of N clips.

    A group is a machine and ID; G groups were trained on. A class is a group or a part of one (``data.classes``).

    Attributes:
        embedding: (N, D) float32.
        group_logits: (N, G) float32 (:func:`group_logits`).
        group: (N,) int, number of the clip's group (machine and ID), or -1 if that group was never trained.
        domain: (N,) int, positions in :data:`DOMAINS`; by default no clip has a domain. Only training clips' are used:
            a test clip's domain is hidden in the challenge.
        own: (N,) float32, the method's own scores; empty if it has none.
        label: (N,) int, number of the clip's class; by default its group. Only training clips' are used: a test clip's
            attributes are hidden in the challenge.
    """

    embedding: NDArray[np.float32]
    group_logits: NDArray[np.float32]
    group: NDArray[np.int64]
    domain: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    own: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    label: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        n, groups = len(self.group), self.group_logits.shape[-1]
        if not len(self.domain):
            object.__setattr__(self, "domain", np.zeros(n, dtype=np.int64))
        if not len(self.label):
            object.__setattr__(self, "label", self.group)
        if (self.embedding.shape[:1], self.group_logits.shape, self.domain.shape) != ((n,), (n, groups), (n,)):
            raise AsdRayError(
                f"{n} clips need as many embeddings, logits and domains, found shapes {self.embedding.shape}, "
                f"{self.group_logits.shape} and {self.domain.shape}."
            )
        if self.own.shape not in ((0,), (n,)):
            raise AsdRayError(f"{n} clips need as many own scores or none, found the shape {self.own.shape}.")
        if self.label.shape != (n,):
            raise AsdRayError(f"{n} clips need as many class labels, found the shape {self.label.shape}.")
        for name, values, lowest, highest in (
            ("Groups", self.group, -1, groups - 1),
            ("Domains", self.domain, 0, len(DOMAINS) - 1),
        ):
            if n and not lowest <= values.min() <= values.max() <= highest:
                raise AsdRayError(f"{name} must lie in {lowest} to {highest}, found {values.min()} to {values.max()}.")
        for name, numbers in (
            ("embedding", self.embedding),
            ("logits", self.group_logits),
            ("score", self.own[:, None]),
        ):
            bad = ~(np.abs(numbers) < _LARGEST).all(axis=1)
            if bad.any():
                raise AsdRayError(
                    f"The network's {name} of {int(bad.sum())} of {n} clips hold NaN, infinity or numbers beyond "
                    f"{_LARGEST:g} (first: clip number {int(np.flatnonzero(bad)[0])}): the training diverged; lower "
                    f"the learning rate."
                )


def group_logits(logits: Tensor, classes: Sequence[str]) -> Tensor:
    """Logits (B, G) of groups from those (B, C) of classes: the logarithm of the sum of a group's exponentials.

    Their softmax is the sum of p over each group's classes. Logits of groups with one class are what they were.

    Args:
        logits: (B, C).
        classes: names of the C classes; the groups are in their order (:func:`asd_ray.data.clips.groups_of`).
    """
    groups = groups_of(classes)
    if len(groups) == len(classes):
        return logits
    members = [[number for number, name in enumerate(classes) if group_of(name) == group] for group in groups]
    return torch.stack([logits[:, of_group].logsumexp(dim=1) for of_group in members], dim=1)


def domain_codes(domains: Sequence[str]) -> NDArray[np.int64]:
    """Positions (N,) in :data:`DOMAINS` of clips' domains.

    Raises:
        AsdRayError: a domain has another name.
    """
    unknown = sorted(set(domains) - set(DOMAINS))
    if unknown:
        raise AsdRayError(f"A clip's domain must be one of {', '.join(DOMAINS)}; found {unknown[0]!r}.")
    return np.array([DOMAINS.index(domain) for domain in domains], dtype=np.int64)
