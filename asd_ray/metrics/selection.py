"""Judge a trial by its scores: rows of metrics, the objective, and the best kind of score.

Only the select split (``evaluation_splits``) chooses. The holdout split is reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from asd_ray import metrics
from asd_ray.config import EvaluationConfig
from asd_ray.data.clips import Clip, EvaluationSplit


@dataclass(frozen=True)
class Evaluation:
    """A study's labelled test clips and their splits: the truth that scores are compared with.

    Attributes:
        clips: labelled test clips.
        splits: path -> ``select`` or ``holdout``.
    """

    clips: tuple[Clip, ...]
    splits: Mapping[str, EvaluationSplit]

    def identity(self) -> pd.DataFrame:
        """A table of the labelled test clips: ``path, machine, id, domain, label, split``."""
        return pd.DataFrame(
            [(c.path, c.machine, c.id, c.domain, c.label, self.splits[c.path]) for c in self.clips],
            columns=["path", "machine", "id", "domain", "label", "split"],
        )

    def ids(self) -> list[tuple[str, str]]:
        """``(machine, id)`` of all labelled test clips. Each gets a row in every split, even an undefined one."""
        return sorted({(clip.machine, clip.id) for clip in self.clips})

    def scored(self, paths: Sequence[str], scores: Mapping[Any, np.ndarray]) -> pd.DataFrame:
        """The labelled test clips with one column per kind of score; other clips are left out.

        Args:
            paths: of M scored clips.
            scores: kind of score -> (M,).
        """
        frame = pd.DataFrame({"path": list(paths), **scores})
        return self.identity().merge(frame, on="path", how="left", validate="one_to_one")

    def rows(self, scored: pd.DataFrame, column: str, max_fpr: float) -> pd.DataFrame:
        """AUC and pAUC of every split x machine x ID (:func:`asd_ray.metrics.per_id`) by one column of scores."""
        return metrics.per_id(scored.assign(score=scored[column]), max_fpr, ids=self.ids())

    def best_kind(self, scored: pd.DataFrame, kinds: Sequence[str], config: EvaluationConfig) -> str:
        """The kind of score with the highest (first) objective on the select split; of equal kinds, the first."""
        select = scored[scored["split"] == "select"]

        def value(kind: str) -> float:
            found = objective(self.rows(select, kind, config.max_fpr), config.objectives[0]) if len(select) else None
            return -math.inf if found is None else found

        return max(kinds, key=value)


def objective(rows: pd.DataFrame, kind: str) -> float | None:
    """The average over the select split that a search maximises, or None if no ID there has a defined AUC.

    Args:
        rows: from :func:`asd_ray.metrics.per_id`.
        kind: ``auc``, ``pauc``, ``auc_pauc`` or ``mauc``, a column of :func:`asd_ray.metrics.averages`.
    """
    averages = metrics.averages(rows).set_index("split")[kind]
    value = float(averages.get("select", math.nan))
    return value if math.isfinite(value) else None
