"""Scores from Gaussian models of training clips' embeddings.

Legend: N training clips, M clips to score, D embedding, G groups (machine and ID), C classes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asd_ray.errors import AsdRayError
from asd_ray.scoring.embedded import Scores

if TYPE_CHECKING:
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

_RIDGE = 1e-6  # of the mean variance: dimensions that never vary (dead units) stay invertible
_LEAST_VARIANCE = 0.1  # added to a mixture's variances, in units of the variance that groups have on average
_CLIPS_PER_COMPONENT = 10


@dataclass(frozen=True, eq=False)
class SharedGaussian:
    """One Gaussian per class: each class has its own mean, all share one covariance.

    A clip to score is known by its group, which has one class or several (``data.classes``), and belongs to the closest
    of them: to ask for one Gaussian of a group that is several clusters would count the distance between these clusters
    as normal. The covariance is that of the clips around their class's mean, shrunk towards a multiple of the identity
    by the formula of Ledoit and Wolf (2004), so that it can be inverted whatever D and N are.

    Attributes:
        factor: (D, D) Cholesky factor of the covariance, lower triangular, fp64.
        centre: (D,) mean of all training clips.
        classes: (C,) numbers of the classes with training clips, ascending.
        groups: (C,) their groups.
        counts: (C,) their training clips.
        means: (C, D) whitened class means.
    """

    factor: Tensor
    centre: Tensor
    classes: NDArray[np.int64]
    groups: NDArray[np.int64]
    counts: Tensor
    means: Tensor

    @classmethod
    def fit(
        cls, embedding: NDArray[np.float32], group: NDArray[np.int64], label: NDArray[np.int64] | None = None
    ) -> SharedGaussian:
        """Fits (N, D) embeddings.

        Args:
            embedding: (N, D).
            group: (N,) groups.
            label: (N,) classes, each within one group; by default the groups.

        Raises:
            AsdRayError: there are no clips.
        """
        if not len(group):
            raise AsdRayError("There are no training clips to fit a Gaussian to; every machine and ID needs some.")
        x = torch.as_tensor(embedding, dtype=torch.float64)
        centre = x.mean(dim=0)
        classes, first, position, counts = np.unique(
            group if label is None else label, return_index=True, return_inverse=True, return_counts=True
        )
        of_clip = torch.from_numpy(position)
        clips = torch.from_numpy(counts).double()
        means = torch.zeros(len(classes), x.shape[1], dtype=x.dtype)
        means = means.index_add_(0, of_clip, x - centre) / clips[:, None]
        centred = x - centre - means[of_clip]
        if centred.square().mean() <= torch.finfo(torch.float32).eps ** 2 * x.square().mean():
            centred = torch.zeros_like(centred)  # copies, but for rounding
        factor = torch.linalg.cholesky(ledoit_wolf(centred))
        whitened = torch.linalg.solve_triangular(factor, means.T, upper=False).T
        return cls(factor, centre, classes, group[first], clips, whitened)

    def whiten(self, embedding: NDArray[np.float32]) -> Tensor:
        """Embeddings (M, D) in coordinates in which the shared covariance is the identity; fp64."""
        centred = torch.as_tensor(embedding, dtype=torch.float64) - self.centre
        return torch.linalg.solve_triangular(self.factor, centred.T, upper=False).T

    def mahalanobis(self, embedding: NDArray[np.float32], group: NDArray[np.int64]) -> Scores:
        """Mahalanobis distance (M,) to the closest class mean of the own group, or of all if the group has no clips."""
        return self._closest(self._distances(embedding), group).numpy()

    def mahalanobis_leave_one_out(
        self, embedding: NDArray[np.float32], group: NDArray[np.int64], label: NDArray[np.int64] | None = None
    ) -> Scores:
        """The same (N,) for the training clips themselves, each left out of its class's mean.

        The covariance keeps all clips: one of them hardly moves it. A clip that is alone in its class is compared with
        the other classes of its group, one that is alone in its group with all others; 0 if there is no other.
        """
        distance = self._distances(embedding)
        own = torch.from_numpy(np.searchsorted(self.classes, group if label is None else label))
        rows, counts = torch.arange(len(own)), self.counts[own]
        left_out = distance[rows, own] * counts / (counts - 1).clamp(min=1)
        distance[rows, own] = torch.where(counts > 1, left_out, torch.inf)
        closest = self._closest(distance, group)
        return torch.where(closest.isfinite(), closest, 0.0).numpy()

    def _distances(self, embedding: NDArray[np.float32]) -> Tensor:
        """Mahalanobis distances (M, C) to all class means."""
        return torch.cdist(self.whiten(embedding), self.means, compute_mode="donot_use_mm_for_euclid_dist")

    def _closest(self, distance: Tensor, group: NDArray[np.int64]) -> Tensor:
        """The smallest (M,) of distances (M, C) within the own group, or of all if none of these is finite."""
        others = torch.from_numpy(self.groups != group[:, None])
        own = distance.masked_fill(others, torch.inf).amin(dim=1)
        return torch.where(own.isfinite(), own, distance.amin(dim=1))


def ledoit_wolf(centred: Tensor) -> Tensor:
    """Covariance (D, D) of centred clips (N, D), shrunk towards a multiple of the identity, always invertible.

    The formula of Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices" (2004), as
    in ``sklearn.covariance.ledoit_wolf``, with one product of D x D where that takes three. Clips without any spread
    get the identity.
    """
    n, dims = centred.shape
    covariance = centred.T @ centred / n
    variance = covariance.trace() / dims
    if not variance > 0:
        return torch.eye(dims, dtype=centred.dtype)
    squared = covariance.square().sum()
    noise = (centred.square().sum(dim=1).square().sum() / n - squared) / n
    spread = squared - dims * variance**2
    shrinkage = float((noise / spread).clamp(0, 1)) if spread > 0 else 1.0
    target = torch.eye(dims, dtype=centred.dtype) * variance
    return (1 - shrinkage) * covariance + (shrinkage + _RIDGE) * target


class GroupMixtures:
    """One Gaussian mixture for each group's training clips, however fine the classes are.

    Embeddings are first reduced to ``dims`` principal components of all training clips, if they have more, and
    whitened with the covariance that all groups share; in these coordinates a mixture needs only diagonal covariances,
    which few clips suffice for. 0.1 is added to the variances, which are 1 on average, so that even a single clip makes
    a mixture. An ID with fewer than 10 clips per component gets fewer components.

    Args:
        embedding: (N, D) of training clips.
        group: (N,) their groups.
        components: of every mixture, at most.
        dims: dimensions that the mixtures see, at most.
        shared: the shared Gaussian of the same clips with groups as classes, if there is one already.
    """

    def __init__(
        self,
        embedding: NDArray[np.float32],
        group: NDArray[np.int64],
        components: int,
        dims: int,
        shared: SharedGaussian | None = None,
    ) -> None:
        from sklearn.decomposition import PCA  # 0.7 s that a worker which does not score saves

        self.components = components
        self.pca: PCA | None = None
        if embedding.shape[1] > dims and len(group) > 1:
            with np.errstate(invalid="ignore"):  # shares of a variance of 0, which nobody asks for
                self.pca = PCA(min(dims, len(group) - 1), random_state=0).fit(embedding)
            shared = None
        self.shared = shared or SharedGaussian.fit(self._reduced(embedding), group)
        self.train = self._coordinates(embedding)
        self.group = group
        self.groups = np.unique(group)
        self.mixtures = [self._fit(self.train[group == number]) for number in self.groups]

    def score(self, embedding: NDArray[np.float32], group: NDArray[np.int64]) -> Scores:
        """-log density (M,) under the own group's mixture, up to a constant; the smallest of all where there is none.

        In nats, of the whitened coordinates; may be negative.
        """
        x = self._coordinates(embedding)
        scores = np.empty(len(x))
        for number in np.unique(group):
            members = group == number
            own = np.flatnonzero(self.groups == number)
            models = [self.mixtures[own[0]]] if len(own) else self.mixtures
            scores[members] = np.min([-model.score_samples(x[members]) for model in models], axis=0)
        return scores

    def score_left_out(self) -> Scores:
        """The same (N,) for the training clips themselves, by mixtures of the other half of their group's clips.

        Every second clip of a group makes a half. A clip that is alone in its group gets the smallest score of the
        other groups, or 0 if there is none.
        """
        scores = np.zeros(len(self.train))
        for number, mixture in zip(self.groups, self.mixtures, strict=True):
            members = np.flatnonzero(self.group == number)
            if len(members) == 1:
                others = [-m.score_samples(self.train[members]) for m in self.mixtures if m is not mixture]
                scores[members] = np.min(others, axis=0) if others else 0
                continue
            for half in range(2):
                left_out, rest = members[half::2], members[1 - half :: 2]
                scores[left_out] = -self._fit(self.train[rest]).score_samples(self.train[left_out])
        return scores

    def _reduced(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        return embedding if self.pca is None else self.pca.transform(embedding)

    def _coordinates(self, embedding: NDArray[np.float32]) -> NDArray[np.float64]:
        return self.shared.whiten(self._reduced(embedding)).contiguous().numpy()

    def _fit(self, x: NDArray[np.float64]) -> GaussianMixture:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        components = max(1, min(self.components, len(x) // _CLIPS_PER_COMPONENT))
        x = np.repeat(x, 2, axis=0) if len(x) == 1 else x  # the least that the library takes
        mixture = GaussianMixture(
            components, covariance_type="diag", reg_covar=_LEAST_VARIANCE, init_params="k-means++", random_state=0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 100 steps of EM are enough to rank clips
            return mixture.fit(x)
