"""Which searched keys decide a study's objective, told from its complete trials alone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from asd_ray.report.tables import plain

optuna.logging.set_verbosity(optuna.logging.WARNING)
FEWEST = 10
FANOVA_UP_TO = 150  # trials; fANOVA's cost grows with their square, to 6 s at 500
CONDITIONAL = 50  # trials, whose best tenth PED-ANOVA wants to be at least five


@dataclass(frozen=True)
class Importance:
    """Shares of the importance, or why there are none.

    Attributes:
        shares: searched key -> share; all together 1. Empty where ``missing`` says why.
        how: the method, for a caption.
        missing: why nothing can be said, else empty.
    """

    shares: dict[str, float]
    how: str = ""
    missing: str = ""

    @property
    def keys(self) -> list[str]:
        """The most important first."""
        return sorted(self.shares, key=lambda key: -self.shares[key])


def importance(
    trials: pd.DataFrame, keys: Sequence[str], space: Mapping[str, Mapping[str, Sequence[Any]]]
) -> Importance:
    """How much of the objective's variation each searched key explains.

    Optuna's evaluators see our own complete trials, not its storage: there a trial that a scheduler stopped, or one
    without a finite objective, is not always told from a complete one. fANOVA (Hutter et al., ICML 2014: shares of the
    variance of a random forest's prediction) for up to 150 trials, PED-ANOVA (Watanabe et al., IJCAI 2023: which keys
    tell the best tenth from the rest) beyond. Keys that only some trials have, because of a condition,
    are left out below 50 trials; beyond, PED-ANOVA takes them in, which fANOVA cannot.

    Args:
        trials: the table of trials.
        keys: searched keys; one that never changes is left out.
        space: searched key -> ``{uniform: [low, high]}``, perhaps with ``when``.
    """
    complete = trials[(trials["status"] == "complete") & trials["objective"].notna()]
    keys = [key for key in keys if complete[key].nunique() > 1]
    conditional = [key for key in keys if complete[key].isna().any()]
    treated = len(complete) >= CONDITIONAL and all("when" in space.get(key, {}) for key in conditional)
    if conditional and not treated:
        keys = [key for key in keys if key not in conditional]
    needed = max(FEWEST, 2 * len(keys))
    if len(complete) < needed:
        return Importance({}, missing=f"{len(complete)} complete trials are too few for it; {needed} are needed.")
    if not keys or complete["objective"].nunique() < 2:
        return Importance({}, missing="No searched key, or no objective, differs between the complete trials.")
    axes = {key: _distribution(complete[key].dropna(), space.get(key, {})) for key in keys}
    study = optuna.create_study(direction="maximize", storage=optuna.storages.InMemoryStorage())
    for row in complete[[*keys, "objective"]].itertuples(index=False, name=None):
        values = {key: _value(value, axes[key]) for key, value in zip(keys, row, strict=False) if not pd.isna(value)}
        own = {key: axes[key] for key in values}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=own, value=float(row[-1])))
    evaluator: optuna.importance.BaseImportanceEvaluator
    if len(complete) <= FANOVA_UP_TO and not (conditional and treated):
        evaluator, how = optuna.importance.FanovaImportanceEvaluator(seed=0), "fANOVA"
    else:
        evaluator, how = optuna.importance.PedAnovaImportanceEvaluator(), "PED-ANOVA"
    if conditional and not treated:
        how += f", without {', '.join(conditional)}, which not every trial has"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return Importance({key: float(share) for key, share in shares.items()}, how)


def _distribution(values: pd.Series, given: Mapping[str, Sequence[Any]]) -> BaseDistribution:
    """Optuna's form of a searched key, wide enough for warm starts outside of its distribution."""
    kind, bounds = next(iter(given.items()), ("choice", ()))
    if kind == "choice":
        return CategoricalDistribution(sorted({plain(value) for value in values}))
    low, high = (float(pick([*bounds, extreme])) for pick, extreme in ((min, values.min()), (max, values.max())))
    return FloatDistribution(low, high, log=kind.startswith("log"))


def _value(value: Any, axis: BaseDistribution) -> str | float:
    return plain(value) if isinstance(axis, CategoricalDistribution) else float(value)
