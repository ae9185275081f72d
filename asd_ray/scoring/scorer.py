"""All scores of a trained network's clips, from its training clips' embeddings and logits.

Legend: N training clips, M clips to score, G groups (machine and ID).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from asd_ray.config.evaluation import KINDS, EvaluationConfig, ScoreKind, SingleScore
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.scoring.embedded import Embedded, Scores
from asd_ray.scoring.gaussian import GroupMixtures, SharedGaussian
from asd_ray.scoring.neighbours import References

SINGLE: tuple[SingleScore, ...] = get_args(SingleScore)


class Scorer:
    """Scores clips by their distance from training clips, in every way of :data:`KINDS`.

    What several scores share is fitted once, when it is first needed, and kept. A clip's *own* clips are the training
    clips of its group, machine and ID, however finely these were told apart in training (``data.classes``).

    * ``own``: what the method itself says (:meth:`asd_ray.methods.base.Method.own_score`), if it says anything.
    * ``classification``: -log p(own group), the field's usual score (STgram-MFN, OS-SCL); p of a group is the sum over
      its classes.
    * ``knn``: :meth:`asd_ray.scoring.neighbours.References.knn`.
    * ``local_density``: :meth:`asd_ray.scoring.neighbours.References.local_density`.
    * ``mahalanobis``: :class:`asd_ray.scoring.gaussian.SharedGaussian`, to the closest of the group's classes.
    * ``gmm``: :class:`asd_ray.scoring.gaussian.GroupMixtures`.
    * ``ensemble``: the mean of the scores that ``evaluation.ensemble`` lists, each standardised with mean and standard
      deviation of the own group's training scores (:meth:`score_train`). A group with fewer than two training clips, or
      without spread, takes those of all training clips.

    A clip whose group has no training clips gets the smallest score that any group would give it (``classification``:
    -log of the largest p; the neighbours: from all training clips). Every score is a finite number.

    Args:
        train: training clips; only normal ones.
        config: the settings of the scores.

    Raises:
        AsdRayError: there are no training clips, or one of them is of no trained group.
    """

    def __init__(self, train: Embedded, config: EvaluationConfig) -> None:
        if not len(train.group):
            raise AsdRayError("There are no training clips to score by; every machine and ID needs some.")
        if (train.group < 0).any():
            raise AsdRayError("A training clip has group -1; only clips of a trained group can be compared with.")
        self.train, self.config = train, config
        self._train_scores: dict[SingleScore, Scores] = {}

    def score(self, test: Embedded, kinds: Sequence[ScoreKind] | None = None) -> dict[ScoreKind, Scores]:
        """Scores (M,) of other clips than the training clips.

        Args:
            test: the clips.
            kinds: of scores; by default those of ``config.scores`` that the method has.

        Raises:
            ConfigError: there is no such score.
        """
        single = {kind: self._single(kind, test) for kind in self._needed(kinds)}
        return self._chosen(kinds, single, test.group)

    def score_train(self, kinds: Sequence[ScoreKind] | None = None) -> dict[ScoreKind, Scores]:
        """Scores (N,) of the training clips as if they were new: what thresholds are fitted to.

        A clip is left out of its neighbours and of its class's mean, and scored by a mixture of the other half of its
        group's clips. Of the network itself it cannot be left out: its ``classification`` is too confident.
        """
        single = {kind: self._single_train(kind) for kind in self._needed(kinds)}
        return self._chosen(kinds, single, self.train.group)

    def _needed(self, kinds: Sequence[ScoreKind] | None) -> list[SingleScore]:
        asked = self._asked(kinds)
        unknown = [kind for kind in asked if kind not in KINDS]
        if unknown:
            raise ConfigError(f"evaluation.score: expected one of {', '.join(KINDS)}; found {unknown[0]!r}.")
        if "own" in asked and not len(self.train.own):
            raise ConfigError("evaluation.score: the method has no score of its own.")
        return [kind for kind in SINGLE if kind in asked or ("ensemble" in asked and kind in self.config.ensemble)]

    def _asked(self, kinds: Sequence[ScoreKind] | None) -> Sequence[ScoreKind]:
        if kinds is None:
            return [kind for kind in self.config.scores if kind != "own" or len(self.train.own)]
        return kinds

    def _chosen(
        self, kinds: Sequence[ScoreKind] | None, single: dict[SingleScore, Scores], group: NDArray[np.int64]
    ) -> dict[ScoreKind, Scores]:
        chosen: dict[ScoreKind, Scores] = {}
        for kind in self._asked(kinds):
            chosen[kind] = self._ensemble(single, group) if kind == "ensemble" else single[kind]
        return chosen

    def _single(self, kind: SingleScore, test: Embedded) -> Scores:
        config = self.config
        if kind == "own":
            return test.own.astype(np.float64)
        if kind == "classification":
            return classification(test)
        if kind == "knn":
            return self._references.knn(test.embedding, test.group, config.neighbours, per_domain=config.per_domain)
        if kind == "local_density":
            return self._references.local_density(test.embedding, test.group)
        if kind == "mahalanobis":
            return self._gaussian.mahalanobis(test.embedding, test.group)
        return self._mixtures.score(test.embedding, test.group)

    def _single_train(self, kind: SingleScore) -> Scores:
        if kind not in self._train_scores:
            self._train_scores[kind] = self._scored_train(kind)
        return self._train_scores[kind]

    def _scored_train(self, kind: SingleScore) -> Scores:
        train, config = self.train, self.config
        if kind == "own":
            return train.own.astype(np.float64)
        if kind == "classification":
            return classification(train)
        if kind == "knn":
            return self._references.knn(
                train.embedding, train.group, config.neighbours, per_domain=config.per_domain, leave_one_out=True
            )
        if kind == "local_density":
            return self._references.local_density(train.embedding, train.group, leave_one_out=True)
        if kind == "mahalanobis":
            return self._gaussian.mahalanobis_leave_one_out(train.embedding, train.group, train.label)
        return self._mixtures.score_left_out()

    def _ensemble(self, single: dict[SingleScore, Scores], group: NDArray[np.int64]) -> Scores:
        members = self.config.ensemble
        standardised = [
            standardise(single[kind], group, self._single_train(kind), self.train.group) for kind in members
        ]
        return np.mean(standardised, axis=0)

    @cached_property
    def _references(self) -> References:
        train, config = self.train, self.config
        return References(train.embedding, train.group, train.domain, config.distance, config.density_neighbours)

    @cached_property
    def _gaussian(self) -> SharedGaussian:
        return SharedGaussian.fit(self.train.embedding, self.train.group, self.train.label)

    @cached_property
    def _mixtures(self) -> GroupMixtures:
        train, config = self.train, self.config
        same = train.embedding.shape[1] <= config.gmm_dims and np.array_equal(train.label, train.group)
        shared = self._gaussian if same else None
        return GroupMixtures(train.embedding, train.group, config.gmm_components, config.gmm_dims, shared)


def classification(clips: Embedded) -> Scores:
    """-log p(own group); for a clip whose group was never trained, -log of the largest p."""
    log_p = F.log_softmax(torch.as_tensor(clips.group_logits, dtype=torch.float64), dim=1).numpy()
    own = log_p[np.arange(len(log_p)), clips.group]
    return -np.where(clips.group >= 0, own, log_p.max(axis=1))


def standardise(
    scores: Scores, group: NDArray[np.int64], train_scores: Scores, train_group: NDArray[np.int64]
) -> Scores:
    """(score - mean) / standard deviation, with the statistics of the own group's training scores.

    A group whose training scores are fewer than two, or differ by less than fp32 resolves of the largest of all, takes
    the statistics of all groups with at least two clips, or of all clips; where these do not differ either, scores
    stay as they are.
    """
    standardised = np.empty_like(scores)
    counts = np.bincount(train_group)
    in_company = counts[train_group] >= 2
    overall = train_scores[in_company] if in_company.any() else train_scores
    resolution = np.finfo(np.float32).eps * np.abs(train_scores).max()
    for number in np.unique(group):
        own = train_scores[train_group == number]
        reference = own if len(own) >= 2 and own.std() > resolution else overall
        mean, deviation = reference.mean(), reference.std()
        if deviation > resolution:
            standardised[group == number] = (scores[group == number] - mean) / deviation
        else:
            standardised[group == number] = scores[group == number]
    return standardised
