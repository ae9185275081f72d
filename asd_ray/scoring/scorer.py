"""All scores of a trained network's clips, from its training clips' embeddings and logits.

Legend: N training clips, M clips to score, G groups (machine and ID).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from asd_ray.config.evaluation import EvaluationConfig
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.registry import SCORES
from asd_ray.scoring.base import Score
from asd_ray.scoring.embedded import Embedded, Scores
from asd_ray.scoring.gaussian import SharedGaussian
from asd_ray.scoring.neighbours import References


class Scorer:
    """Score clips by every registered score (:mod:`asd_ray.scoring.scores`).

    Each score is fitted when it is first needed, and kept; so is what several of them share. A clip's *own* clips are
    the training clips of its group (machine and ID), however fine the classes are (``data.classes``). A clip whose
    group has no training clips gets the smallest score that any group would give it. Every score is a finite number.

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
        self._fitted: dict[str, Score] = {}
        self._of_train: dict[str, Scores] = {}
        self._of_test: tuple[Embedded, dict[str, Scores]] = (train, {})

    def score(self, test: Embedded, kinds: Sequence[str] | None = None) -> dict[str, Scores]:
        """Scores (M,) of other clips than the training clips.

        Args:
            test: the clips.
            kinds: of scores; by default those of ``config.scores`` that the method has.

        Raises:
            ConfigError: there is no such score.
        """
        return {kind: self.of_test(kind, test) for kind in self._asked(kinds)}

    def score_train(self, kinds: Sequence[str] | None = None) -> dict[str, Scores]:
        """Scores (N,) of the training clips as if they were new: thresholds are fitted to them.

        A clip is left out of its neighbours and of its class's mean, and scored by a mixture of the other half of its
        group's clips. The network itself has seen it: its ``classification`` is too confident.
        """
        return {kind: self.of_train(kind) for kind in self._asked(kinds)}

    def of_test(self, kind: str, test: Embedded) -> Scores:
        """Scores (M,) of one kind; computed once for the same clips."""
        if self._of_test[0] is not test:
            self._of_test = (test, {})
        known = self._of_test[1]
        if kind not in known:
            known[kind] = self._score(kind).score(test)
        return known[kind]

    def of_train(self, kind: str) -> Scores:
        """Scores (N,) of one kind of the training clips; computed once."""
        if kind not in self._of_train:
            self._of_train[kind] = self._score(kind).score_train()
        return self._of_train[kind]

    @cached_property
    def references(self) -> References:
        """The training clips to measure distances to."""
        train, config = self.train, self.config
        return References(train.embedding, train.group, train.domain, config.distance, config.density_neighbours)

    @cached_property
    def gaussian(self) -> SharedGaussian:
        """One Gaussian for each class of the training clips."""
        return SharedGaussian.fit(self.train.embedding, self.train.group, self.train.label)

    def _asked(self, kinds: Sequence[str] | None) -> Sequence[str]:
        if kinds is None:
            return [kind for kind in self.config.scores if SCORES.get(kind).target.exists(self.train)]
        return kinds

    def _score(self, kind: str) -> Score:
        if kind not in self._fitted:
            score: type[Score] = SCORES.get(kind).target
            if not score.exists(self.train):
                raise ConfigError(f"evaluation.score: the method has no score {kind!r}; choose another.")
            self._fitted[kind] = score(self)
        return self._fitted[kind]
