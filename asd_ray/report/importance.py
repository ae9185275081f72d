"""Importance of the searched keys for a study's objective, from its complete trials."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
import pandas as pd

from asd_ray.report.optuna_study import Space, optuna_study
from asd_ray.report.tables import ranked

FEWEST = 10
FANOVA_UP_TO = 150  # trials; fANOVA's cost grows with their square, to 6 s at 500
CONDITIONAL = 50  # trials; PED-ANOVA needs at least five in its best tenth


@dataclass(frozen=True)
class Importance:
    """Shares of the importance, or the reason for none.

    Attributes:
        shares: searched key -> share; the sum is 1. Empty if ``missing`` gives a reason.
        how: the method, for a caption.
        missing: the reason for no shares, else empty.
    """

    shares: dict[str, float]
    how: str = ""
    missing: str = ""

    @property
    def keys(self) -> list[str]:
        """Keys in descending order of importance."""
        return sorted(self.shares, key=lambda key: -self.shares[key])


def importance(trials: pd.DataFrame, keys: Sequence[str], space: Space) -> Importance:
    """Share of the objective's variation that each searched key explains.

    Optuna computes it. Up to 150 trials: fANOVA (Hutter et al., ICML 2014: shares of the variance of a random forest's
    prediction). Beyond: PED-ANOVA (Watanabe et al., IJCAI 2023: keys that tell the best tenth from the rest). A key
    under a condition, which some trials lack, is left out below 50 trials. From 50 on PED-ANOVA includes it; fANOVA
    cannot.

    Args:
        trials: the table of trials.
        keys: searched keys; constant ones are left out.
        space: searched key -> distribution.
    """
    complete = ranked(trials)
    keys = [key for key in keys if complete[key].nunique() > 1]
    conditional = [key for key in keys if complete[key].isna().any()]
    included = len(complete) >= CONDITIONAL and all("when" in space.get(key, {}) for key in conditional)
    if conditional and not included:
        keys = [key for key in keys if key not in conditional]
    needed = max(FEWEST, 2 * len(keys))
    if len(complete) < needed:
        return Importance({}, missing=f"{len(complete)} complete trials are too few for it; {needed} are needed.")
    if not keys or complete["objective"].nunique() < 2:
        return Importance({}, missing="No searched key, or no objective, differs between the complete trials.")
    evaluator: optuna.importance.BaseImportanceEvaluator
    if len(complete) <= FANOVA_UP_TO and not (conditional and included):
        evaluator, how = optuna.importance.FanovaImportanceEvaluator(seed=0), "fANOVA"
    else:
        evaluator, how = optuna.importance.PedAnovaImportanceEvaluator(), "PED-ANOVA"
    if conditional and not included:
        how += f", without {', '.join(conditional)}, which not every trial has"
    study = optuna_study(complete, {key: key for key in keys}, space)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return Importance({key: float(share) for key, share in shares.items()}, how)
