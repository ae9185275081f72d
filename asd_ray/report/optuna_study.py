"""The table of trials as an Optuna study in memory, for Optuna's importances and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from asd_ray.report.tables import plain, ranked

optuna.logging.set_verbosity(optuna.logging.WARNING)
Space = Mapping[str, Mapping[str, Sequence[Any]]]
"""Searched key -> its distribution as in a study file: ``{uniform: [0.1, 0.6]}``, perhaps with ``when``."""


class Goal(NamedTuple):
    """A column of the table of trials, its direction, and the factor from the table's unit to the figure's."""

    column: str
    direction: str = "maximize"
    factor: float = 1.0


def optuna_study(
    trials: pd.DataFrame, names: Mapping[str, str], space: Space, goals: Sequence[Goal] = (Goal("objective"),)
) -> optuna.Study:
    """Build a study in memory. Trials keep their numbers; only complete ones have values and count.

    Our table decides what is complete, not Optuna's storage, in which a trial that a scheduler stopped, or one without
    a finite objective, may look complete. A key under a condition is a parameter of the trials that have a value of it.

    Args:
        trials: the table of trials.
        names: searched key -> name of the parameter.
        space: searched key -> distribution.
        goals: the objectives.
    """
    study = optuna.create_study(directions=[goal.direction for goal in goals])
    complete = ranked(trials).sort_values("trial").set_index("trial")
    axes = {key: _distribution(complete[key].dropna(), space.get(key, {})) for key in names}
    columns = [*names, *(goal.column for goal in goals)]
    rows = dict(zip(complete.index, complete[columns].itertuples(index=False, name=None), strict=True))
    for number in range(int(trials["trial"].max()) + 1):
        if number not in rows:
            study.add_trial(create_trial(state=TrialState.FAIL))
            continue
        given = {key: value for key, value in zip(names, rows[number], strict=False) if not pd.isna(value)}
        values = [goal.factor * float(value) for goal, value in zip(goals, rows[number][len(names) :], strict=True)]
        study.add_trial(
            create_trial(
                params={names[key]: _value(value, axes[key]) for key, value in given.items()},
                distributions={names[key]: axes[key] for key in given},
                values=values,
            )
        )
    return study


def _distribution(values: pd.Series, given: Mapping[str, Sequence[Any]]) -> BaseDistribution:
    """A searched key's distribution, widened to hold warm starts outside of it."""
    kind, bounds = next(iter(given.items()), ("choice", ()))
    if kind == "choice":
        return CategoricalDistribution(sorted({escape(plain(value)) for value in values}) or [""])
    low, high = (float(pick([*bounds, *values])) for pick in (min, max))
    return FloatDistribution(low, high, log=kind.startswith("log"))


def _value(value: Any, axis: BaseDistribution) -> str | float:
    return escape(plain(value)) if isinstance(axis, CategoricalDistribution) else float(value)
