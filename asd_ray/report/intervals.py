"""How sure a system's numbers are: intervals over clips, spread over seeds, and paired differences between systems.

A system is a trial with its repeats, or a baseline. What is estimated is the mean over its seeds of the data's official
metrics. The interval is a percentile bootstrap over clips; every seed sees the same draws of clips, and so does every
other system, so that differences are paired. It says what other clips of the same machines would change; what other
seeds would change is the standard deviation beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from asd_ray import metrics

RESAMPLES = 1000
LEVEL = 0.95
ROW = ["machine", "id", "domain"]
"""Index of every table here; a machine's mean has ``("fan", "mean", "")``, the average ``("all", "mean", "")``."""
OVERALL = "all"
_ESTIMATE = -1  # stands among the numbers of the draws for the clips as they are


@dataclass(frozen=True)
class Estimate:
    """What one split's clips say of a system.

    Attributes:
        table: by ``ROW``: ``auc, auc_low, auc_high, auc_sd``, the same of ``pauc``; for machines and the average also
            ``mauc, mauc_sd, pooled_auc, pooled_pauc`` (NaN for IDs). Standard deviations are the sample's, NaN for one
            seed; bounds are NaN where the metric is undefined.
        draws: ``auc`` and ``pauc`` -> by ``ROW``, a column for each draw of clips, and -1 for the clips as they are.
        seeds: ``auc`` and ``pauc`` -> by ``ROW``, a column for each seed.
    """

    table: pd.DataFrame
    draws: dict[str, pd.DataFrame]
    seeds: dict[str, pd.DataFrame]

    @property
    def n_seeds(self) -> int:
        return self.seeds["auc"].shape[1]


def estimate(runs: Sequence[pd.DataFrame], max_fpr: float = 0.1, resamples: int = RESAMPLES) -> Estimate:
    """Estimates a system from its scored clips.

    Args:
        runs: a table for each seed, of one split's clips in the same order (``on_split``).
        max_fpr: p of pAUC.
        resamples: draws of clips; 0 for none.
    """
    of_seeds = [_drawn(run, max_fpr, resamples) for run in runs]
    draws, seeds = {}, {}
    for metric in ("auc", "pauc", "mauc"):
        each = [values[metric].unstack("resample") for values in of_seeds]
        draws[metric] = sum(each[1:], each[0]) / len(each)
        seeds[metric] = pd.concat([values[_ESTIMATE] for values in each], axis=1, keys=range(len(each)))
    table = pd.concat([_bounds(draws[metric], metric) for metric in ("auc", "pauc")], axis=1)
    table["mauc"] = draws["mauc"][_ESTIMATE]
    for metric, values in seeds.items():
        table[f"{metric}_sd"] = values.std(axis=1)
    table = table.join(pd.concat([_pooled(run, max_fpr) for run in runs]).groupby(level=ROW).mean())
    return Estimate(table, {key: draws[key] for key in ("auc", "pauc")}, {key: seeds[key] for key in ("auc", "pauc")})


def difference(first: Estimate, second: Estimate) -> pd.DataFrame:
    """By how much the first system exceeds the second on the same clips.

    Returns:
        By ``ROW``: ``auc, auc_low, auc_high`` of the difference, ``auc_sd`` (over seeds, the n-th of one against the
        n-th of the other; NaN unless both have the same number, above one), ``auc_wins`` (seeds in which the first is
        higher; NaN likewise), and the same of ``pauc``.
    """
    parts = []
    for metric in ("auc", "pauc"):
        part = _bounds(first.draws[metric] - second.draws[metric], metric)
        part[[f"{metric}_sd", f"{metric}_wins"]] = float("nan")
        if first.n_seeds == second.n_seeds > 1:
            of_seeds = first.seeds[metric] - second.seeds[metric]
            part[f"{metric}_sd"], part[f"{metric}_wins"] = of_seeds.std(axis=1), (of_seeds > 0).sum(axis=1)
        parts.append(part)
    return pd.concat(parts, axis=1)


def mean_of(table: pd.DataFrame, machine: str = OVERALL) -> dict[str, float]:
    """A machine's mean, or the average over all, from a table by ``ROW``."""
    row = table.to_numpy(np.float64)[table.index.get_loc((machine, "mean", ""))]
    return dict(zip(map(str, table), map(float, row), strict=True))


def machines_of(table: pd.DataFrame) -> list[str]:
    """The machines of a table by ``ROW``, in order, and ``all`` at the end."""
    return [*sorted({machine for machine, *_ in table.index} - {OVERALL}), OVERALL]


def _drawn(clips: pd.DataFrame, max_fpr: float, resamples: int) -> pd.DataFrame:
    """AUC, pAUC (and mAUC of means) of every row, machine and the average, for the clips as they are and every draw."""
    rows = metrics.per_id(clips, max_fpr).assign(resample=_ESTIMATE)
    if resamples and rows["auc"].notna().any():
        draws = metrics.resample(clips, max_fpr, resamples=resamples)
        rows = pd.concat([rows, draws], ignore_index=True)
    machines = metrics.per_machine(rows, ("resample",)).assign(id="mean", domain="")
    overall = metrics.averages(rows, ("resample",)).assign(machine=OVERALL, id="mean", domain="")
    columns = [*ROW, "resample", "auc", "pauc", "mauc"]
    together = pd.concat([rows.assign(mauc=float("nan"))[columns], machines[columns], overall[columns]])
    return together.set_index([*ROW, "resample"])


def _bounds(draws: pd.DataFrame, metric: str) -> pd.DataFrame:
    drawn = draws.drop(columns=_ESTIMATE)
    low, high = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    bounds = {"": draws[_ESTIMATE], "_low": drawn.quantile(low, axis=1), "_high": drawn.quantile(high, axis=1)}
    return pd.DataFrame({metric + end: values for end, values in bounds.items()})


def _pooled(clips: pd.DataFrame, max_fpr: float) -> pd.DataFrame:
    """Pooled AUC and pAUC of every machine, and their arithmetic mean over machines."""
    columns = ["pooled_auc", "pooled_pauc"]
    machines = metrics.pooled(clips, max_fpr)[["machine", *columns]]
    overall = machines[columns].mean().to_frame().T.assign(machine=OVERALL)
    return pd.concat([machines, overall]).assign(id="mean", domain="").set_index(ROW)
