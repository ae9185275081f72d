"""Confidence intervals over clips, spread over seeds, and paired differences between systems.

A system is a trial with its repeats, or a baseline. Its estimate is the mean over seeds of the data's official metrics.
The interval is a percentile bootstrap over clips. All seeds and all systems get the same draws of clips, so differences
are paired. The interval tells how much other clips of the same machines would change the number; the standard
deviation tells how much other seeds would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from asd_ray.data.clips import stable_hash
from asd_ray.metrics.areas import areas
from asd_ray.metrics.averages import averages, per_machine
from asd_ray.metrics.rows import KEY, ROW_COLUMNS, check_clips, is_anomaly, members_by, per_id, pooled, row_members

RESAMPLES = 1000
LEVEL = 0.95
ROW = ["machine", "id", "domain"]
"""Index of every table here. A machine's mean is at ``("fan", "mean", "")``, the average at ``("all", "mean", "")``."""
OVERALL = "all"
_ESTIMATE = -1  # number of the "draw" that is the clips as they are


@dataclass(frozen=True)
class Estimate:
    """A system's metrics on one split, with intervals and spread.

    Attributes:
        table: by ``ROW``: ``auc, auc_low, auc_high, auc_sd``, the same for ``pauc``; for machines and the average also
            ``mauc, mauc_sd, pooled_auc, pooled_pauc`` (NaN for IDs). Standard deviations are the sample's (n - 1), NaN
            for one seed. Bounds are NaN if the metric is undefined.
        draws: ``auc`` and ``pauc`` -> by ``ROW``, one column per draw of clips, and -1 for the clips as they are.
        seeds: ``auc`` and ``pauc`` -> by ``ROW``, one column per seed.
    """

    table: pd.DataFrame
    draws: dict[str, pd.DataFrame]
    seeds: dict[str, pd.DataFrame]

    @property
    def n_seeds(self) -> int:
        return self.seeds["auc"].shape[1]


def estimate(runs: Sequence[pd.DataFrame], max_fpr: float = 0.1, resamples: int = RESAMPLES) -> Estimate:
    """Estimate a system's metrics from its scored clips.

    Args:
        runs: one table per seed, with the clips of one split in the same order (``on_split``).
        max_fpr: p of pAUC.
        resamples: number of draws of clips; 0 for no intervals.
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
    """The difference between two systems on the same clips, first minus second.

    Returns:
        By ``ROW``: ``auc, auc_low, auc_high`` of the difference, ``auc_sd`` (its standard deviation over seeds, n-th
        seed against n-th seed), ``auc_wins`` (number of seeds in which the first is higher), and the same for ``pauc``.
        ``auc_sd`` and ``auc_wins`` are NaN unless both systems have the same number of seeds, two or more.
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
    """One machine's mean, or the average over all machines, from a table by ``ROW``."""
    row = table.to_numpy(np.float64)[table.index.get_loc((machine, "mean", ""))]
    return dict(zip(map(str, table), map(float, row), strict=True))


def machines_of(table: pd.DataFrame) -> list[str]:
    """The machines of a table by ``ROW``, sorted, then ``all``."""
    return [*sorted({machine for machine, *_ in table.index} - {OVERALL}), OVERALL]


def resample(clips: pd.DataFrame, max_fpr: float = 0.1, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """The rows of :func:`asd_ray.metrics.per_id` for each of many draws of the clips with replacement.

    Draws are stratified: every ID (and domain) keeps its numbers of normal and anomalous clips. A draw depends on the
    seed and the ID alone. Two systems that score the same clips in the same order get the same draws: pair them.

    Args:
        clips: one row per scored clip, see :func:`asd_ray.metrics.per_id`.
        max_fpr: p of pAUC.
        resamples: number of draws R.
        seed: random seed of the draws.

    Returns:
        ``ROW_COLUMNS`` and ``resample`` (0 to R - 1). IDs with an undefined AUC have no rows.
    """
    check_clips(clips)
    weights = np.empty((len(clips), resamples), dtype=np.uint16)  # how often each draw holds each clip
    for stratum, members in members_by(clips, [*KEY, "label"]).items():
        n = len(members)
        rng = np.random.default_rng([seed, stable_hash(*stratum)])
        weights[members] = rng.multinomial(n, np.full(n, 1 / n), size=resamples).T
    y, s = is_anomaly(clips), clips["score"].to_numpy(dtype=np.float64)
    parts = []
    for key, members in row_members(clips, None):
        normal, anomalous = int((~y[members]).sum()), int(y[members].sum())
        if normal and anomalous:
            part = pd.DataFrame([(*key, normal, anomalous)] * resamples, columns=list(ROW_COLUMNS[:6]))
            drawn = weights[members].astype(np.float64)
            part["auc"], part["pauc"] = areas(y[members], s[members], max_fpr, drawn)
            parts.append(part.assign(resample=np.arange(resamples)))
    columns = [*ROW_COLUMNS, "resample"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _drawn(clips: pd.DataFrame, max_fpr: float, resamples: int) -> pd.DataFrame:
    """AUC and pAUC (of means also mAUC) of every row, machine and the average: of the clips and of every draw."""
    rows = per_id(clips, max_fpr).assign(resample=_ESTIMATE)
    if resamples and rows["auc"].notna().any():
        draws = resample(clips, max_fpr, resamples=resamples)
        rows = pd.concat([rows, draws], ignore_index=True)
    machines = per_machine(rows, ("resample",)).assign(id="mean", domain="")
    overall = averages(rows, ("resample",)).assign(machine=OVERALL, id="mean", domain="")
    columns = [*ROW, "resample", "auc", "pauc", "mauc"]
    together = pd.concat([rows.assign(mauc=float("nan"))[columns], machines[columns], overall[columns]])
    return together.set_index([*ROW, "resample"])


def _bounds(draws: pd.DataFrame, metric: str) -> pd.DataFrame:
    drawn = draws.drop(columns=_ESTIMATE)
    low, high = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    bounds = {"": draws[_ESTIMATE], "_low": drawn.quantile(low, axis=1), "_high": drawn.quantile(high, axis=1)}
    return pd.DataFrame({metric + end: values for end, values in bounds.items()})


def _pooled(clips: pd.DataFrame, max_fpr: float) -> pd.DataFrame:
    """Pooled AUC and pAUC of every machine, and their arithmetic mean over all machines."""
    columns = ["pooled_auc", "pooled_pauc"]
    machines = pooled(clips, max_fpr)[["machine", *columns]]
    overall = machines[columns].mean().to_frame().T.assign(machine=OVERALL)
    return pd.concat([machines, overall]).assign(id="mean", domain="").set_index(ROW)
