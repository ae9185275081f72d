"""From scores to what a trial is judged by: rows of metrics, the objective, and which kind of score is the best.

A choice is made on the select split alone (``evaluation_splits``); the holdout split is reported.
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
    """What the test clips of a study are judged against.

    Attributes:
        clips: labelled test clips.
        splits: path -> ``select`` or ``holdout``.
    """

    clips: tuple[Clip, ...]
    splits: Mapping[str, EvaluationSplit]

    def identity(self) -> pd.DataFrame:
        """Who the labelled test clips are: ``path, machine, id, domain, label, split``."""
        return pd.DataFrame(
            [(c.path, c.machine, c.id, c.domain, c.label, self.splits[c.path]) for c in self.clips],
            columns=["path", "machine", "id", "domain", "label", "split"],
        )

    def ids(self) -> list[tuple[str, str]]:
        """``(machine, id)`` of all labelled test clips: each has a row in every split, defined or not."""
        return sorted({(clip.machine, clip.id) for clip in self.clips})

    def scored(self, paths: Sequence[str], scores: Mapping[Any, np.ndarray]) -> pd.DataFrame:
        """The identity with a column for each of the scores (M,), by path; clips without a label are left out."""
        frame = pd.DataFrame({"path": list(paths), **scores})
        return self.identity().merge(frame, on="path", how="left", validate="one_to_one")

    def rows(self, scored: pd.DataFrame, column: str, max_fpr: float) -> pd.DataFrame:
        """AUC and pAUC of every split x machine x ID (:func:`asd_ray.metrics.per_id`) by one column of scores."""
        return metrics.per_id(scored.assign(score=scored[column]), max_fpr, ids=self.ids())

    def best_kind(self, scored: pd.DataFrame, kinds: Sequence[str], config: EvaluationConfig) -> str:
        """The score with the highest objective on the select split (of several objectives, the first); the first of
        those that are equal."""
        select = scored[scored["split"] == "select"]

        def value(kind: str) -> float:
            found = objective(self.rows(select, kind, config.max_fpr), config.objectives[0]) if len(select) else None
            return -math.inf if found is None else found

        return max(kinds, key=value)


def objective(rows: pd.DataFrame, kind: str) -> float | None:
    """The average over the select split that a search maximises, or None where no ID of it has a defined AUC.

    Args:
        rows: from :func:`asd_ray.metrics.per_id`.
        kind: ``auc``, ``pauc``, ``auc_pauc`` or ``mauc``, of :func:`asd_ray.metrics.averages`.
    """
    averages = metrics.averages(rows).set_index("split")[kind]
    value = float(averages.get("select", math.nan))
    return value if math.isfinite(value) else None
