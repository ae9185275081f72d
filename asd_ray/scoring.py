"""Anomaly scores of clips from what a trained network leaves behind, and two baselines that need no network.

Legend: N training clips, M test clips, D embedding, C classes, F mel bands. A class is one machine and ID.
Higher scores are more anomalous. Scores of different IDs are not comparable: metrics are per ID.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from asd_ray.errors import AsdRayError

ScoreKind = Literal["classification", "knn", "mean"]
KINDS: tuple[ScoreKind, ...] = get_args(ScoreKind)
Scores = NDArray[np.float64]

SILENCE_DB = -200.0
"""Level that stands for digital silence, whose own is minus infinity; far below any 24-bit recording."""

_CHUNK = 2048  # test clips whose distances are in memory at once: 2048 x 36,000 fp32 are 300 MB


@dataclass(frozen=True)
class Embedded:
    """What a method says about clips.

    Attributes:
        embedding: (N, D) float32.
        logits: (N, C) float32.
        label: (N,) int, the clip's own class, or -1 if that class was never trained.
    """

    embedding: NDArray[np.float32]
    logits: NDArray[np.float32]
    label: NDArray[np.int64]

    def __post_init__(self) -> None:
        n, classes = len(self.label), self.logits.shape[-1]
        if self.embedding.shape[:1] != (n,) or self.logits.shape != (n, classes):
            raise AsdRayError(
                f"{n} labels need as many embeddings and logits, found shapes {self.embedding.shape} and "
                f"{self.logits.shape}."
            )
        if n and not -1 <= self.label.min() <= self.label.max() < classes:
            raise AsdRayError(
                f"Labels must lie in -1 to {classes - 1}, found {self.label.min()} to {self.label.max()}."
            )
        for name in ("embedding", "logits"):
            bad = ~np.isfinite(getattr(self, name)).all(axis=1)
            if bad.any():
                raise AsdRayError(
                    f"The network's {name} of {int(bad.sum())} of {n} clips hold NaN or infinity (first: clip number "
                    f"{int(np.flatnonzero(bad)[0])}): the training diverged; lower the learning rate."
                )


def score(kind: ScoreKind, train: Embedded, test: Embedded, neighbours: int = 1) -> Scores:
    """Anomaly scores of test clips.

    * ``classification``: -log p(own class), the field's usual score (STgram-MFN, OS-SCL). A clip whose class was never
      trained has no own p: it gets -log of the largest p instead.
    * ``knn``: mean cosine distance to the ``neighbours`` nearest training clips of the own class (all of them where
      there are fewer), in [0, 2]. A clip without training clips of its class is compared with all training clips.
    * ``mean``: the mean of both, each standardised with mean and standard deviation of the same score of the own
      class's training clips, every one of which is left out of its own neighbours. A class with fewer than two training
      clips, or without spread, takes the statistics of all training clips.

    Args:
        kind: as above.
        train: training clips; only normal ones.
        test: clips to score.
        neighbours: k of ``knn``.

    Returns:
        (M,) float64.

    Raises:
        AsdRayError: there are no training clips to compare with.
    """
    if (train.label < 0).any():
        raise AsdRayError("A training clip has class -1; only clips of a trained class can be compared with.")
    if kind == "classification":
        return _classification(test)
    if kind == "knn":
        return _nearest(_unit(train), _unit(test), train.label, test.label, neighbours, _cosine)
    if kind == "mean":
        own = _nearest(_unit(train), _unit(train), train.label, train.label, neighbours, _cosine, leave_one_out=True)
        knn = score("knn", train, test, neighbours)
        return (
            _standardise(_classification(test), test.label, _classification(train), train.label)
            + _standardise(knn, test.label, own, train.label)
        ) / 2
    raise AsdRayError(f"evaluation.score: expected one of {', '.join(KINDS)}; found {kind!r}.")


def level_score(level_db: ArrayLike) -> Scores:
    """Baseline: how loud a clip is, and nothing else. An AUC far from 0.5, on either side, warns of an easy data set.

    Args:
        level_db: (M,) RMS levels in dB; minus infinity (digital silence) counts as ``SILENCE_DB``.
    """
    return np.maximum(np.asarray(level_db, dtype=np.float64), SILENCE_DB)


def knn_log_mel(
    train_mean: ArrayLike, train_class: ArrayLike, test_mean: ArrayLike, test_class: ArrayLike, neighbours: int = 1
) -> Scores:
    """Baseline: mean Euclidean distance to the nearest training clips of the own class, in time-averaged Log-Mel.

    Args:
        train_mean: (N, F) Log-Mel features of training clips, averaged over time.
        train_class: (N,) class names or numbers.
        test_mean: (M, F) those of test clips.
        test_class: (M,) class names or numbers; a class without training clips is compared with all of them.
        neighbours: how many nearest clips are averaged.

    Returns:
        (M,) float64, in the features' unit.

    Raises:
        AsdRayError: there are no training clips.
    """
    train, test = (torch.as_tensor(np.asarray(mean, dtype=np.float32)) for mean in (train_mean, test_mean))
    return _nearest(train, test, np.asarray(train_class), np.asarray(test_class), neighbours, _euclidean)


def _classification(clips: Embedded) -> Scores:
    log_p = F.log_softmax(torch.as_tensor(clips.logits, dtype=torch.float64), dim=1).numpy()
    own = log_p[np.arange(len(log_p)), clips.label]
    return np.where(clips.label >= 0, -own, -log_p.max(axis=1))


def _unit(clips: Embedded) -> Tensor:
    return F.normalize(torch.as_tensor(clips.embedding, dtype=torch.float32), dim=1)


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    return (1 - x @ y.T).clamp_(min=0)


def _euclidean(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


@torch.no_grad()
def _nearest(
    train: Tensor,
    test: Tensor,
    train_label: NDArray[Any],
    test_label: NDArray[Any],
    neighbours: int,
    distance: Callable[[Tensor, Tensor], Tensor],
    *,
    leave_one_out: bool = False,
) -> Scores:
    """Mean distance to the nearest training clips of the own class.

    With ``leave_one_out`` train and test are the same clips, none is its own neighbour, and a clip that is alone in its
    class gets NaN.
    """
    if not len(train):
        raise AsdRayError("There are no training clips to measure a distance to; every machine and ID needs some.")
    scores = np.full(len(test), np.nan)
    for label in np.unique(test_label):
        own = np.flatnonzero(train_label == label)
        reference = own if len(own) else np.arange(len(train))
        k = min(neighbours, len(reference) - leave_one_out)
        if k == 0:
            continue
        members = np.flatnonzero(test_label == label)
        for start in range(0, len(members), _CHUNK):
            chunk = members[start : start + _CHUNK]
            d = distance(test[chunk], train[reference])  # (chunk, reference)
            if leave_one_out:
                d[torch.arange(len(chunk)), torch.arange(start, start + len(chunk))] = torch.inf
            scores[chunk] = d.topk(k, dim=1, largest=False).values.double().mean(dim=1).numpy()
    return scores


def _standardise(
    scores: Scores, label: NDArray[np.int64], train_scores: Scores, train_label: NDArray[np.int64]
) -> Scores:
    """(score - mean) / standard deviation, with the statistics of the own class's training scores."""
    defined = ~np.isnan(train_scores)
    train_scores, train_label = train_scores[defined], train_label[defined]
    standardised = np.empty_like(scores)
    for number in np.unique(label):
        own = train_scores[train_label == number]
        reference = own if len(own) >= 2 and _spreads(own) else train_scores
        mean, sd = (reference.mean(), reference.std()) if _spreads(reference) else (0.0, 1.0)
        standardised[label == number] = (scores[label == number] - mean) / sd
    return standardised


def _spreads(scores: Scores) -> bool:
    """Whether the scores differ by more than fp32 rounding (network outputs and distances are fp32)."""
    return bool(len(scores) >= 2 and scores.std() > np.finfo(np.float32).eps * np.abs(scores).max())
