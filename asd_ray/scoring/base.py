"""What an anomaly score is: fitted to training clips, it gives every clip a number.

Legend: N training clips, M clips to score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from asd_ray.scoring.embedded import Embedded, Scores

if TYPE_CHECKING:
    from asd_ray.scoring.scorer import Scorer


class Score(ABC):
    """One kind of anomaly score. Subclasses define :meth:`score`, and the other methods where the default is not right.

    Args:
        scorer: the scorer that it belongs to.

    Attributes:
        scorer: for what several scores share, and for other scores of the same clips.
        train: the training clips; all are normal.
        config: ``evaluation`` of the study.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.train, self.config = scorer, scorer.train, scorer.config
        self.fit()

    @classmethod
    def exists(cls, train: Embedded) -> bool:
        """Whether a method with such training clips has this score; if not, it is left out of ``evaluation.scores``."""
        return True

    def fit(self) -> None:  # noqa: B027
        """Prepare what :meth:`score` needs of the training clips. Called once."""

    @abstractmethod
    def score(self, test: Embedded) -> Scores:
        """Scores (M,) of clips, finite; higher is more anomalous. ``test.group`` is -1 where an ID was not trained."""

    def score_train(self) -> Scores:
        """Scores (N,) of the training clips as if they were new, to fit thresholds to: best, each clip left out."""
        return self.score(self.train)
