"""How far metrics would move with other clips: bootstrap intervals, of one system and of the difference of two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from asd_ray.data.clips import stable_hash
from asd_ray.errors import AsdRayError
from asd_ray.metrics.areas import areas
from asd_ray.metrics.averages import averages
from asd_ray.metrics.rows import KEY, ROW_COLUMNS, check_clips, is_anomaly, members_by, per_id, row_members

_BOUNDS = ["auc_low", "auc_high", "pauc_low", "pauc_high"]


def resample(clips: pd.DataFrame, max_fpr: float = 0.1, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Bootstrap over clips: the rows of :func:`per_id` for each of many draws with replacement.

    Draws are stratified: every ID keeps its numbers of normal and anomalous clips (per domain). They depend on the
    seed and the ID alone, so two systems' scores of the same clips in the same order are drawn alike and can be paired.

    Args:
        clips: as :func:`per_id`.
        max_fpr: p of pAUC.
        resamples: number of draws R.
        seed: of the draws.

    Returns:
        ``ROW_COLUMNS`` and ``resample`` (0 to R - 1).
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


def bootstrap(
    clips: pd.DataFrame, max_fpr: float = 0.1, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Percentile bootstrap intervals of AUC and pAUC, for every defined row and for every split's average.

    Args:
        clips: as :func:`per_id`; ``max_fpr``, ``resamples`` and ``seed`` as :func:`resample`.
        level: probability that the interval is to cover.

    Returns:
        ``split, machine, id, domain, auc_low, auc_high, pauc_low, pauc_high``; a split's average (:func:`averages`) is
        the row with ``mean`` for machine, ID and domain. It says what other clips of the same machines would change,
        not what other machines or training seeds would.
    """
    draws = resample(clips, max_fpr, resamples=resamples, seed=seed)
    if draws.empty:
        return pd.DataFrame(columns=[*KEY, *_BOUNDS])
    return _bounds(_with_average(draws, ("split", "resample")), level).reset_index()


def paired_difference(
    first: pd.DataFrame,
    second: pd.DataFrame,
    max_fpr: float = 0.1,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """By how much one system's AUC and pAUC exceed another's on the same clips, with bootstrap intervals.

    Both are evaluated on the same draws of clips, so what makes a draw hard for both cancels: the interval of the
    difference is narrower than those of the two systems suggest. An interval without 0 says that other clips of these
    machines would hardly turn the order around; it says nothing of other training seeds.

    Args:
        first: as :func:`per_id`.
        second: the same clips, in any order if both tables have a column ``path``, else in the same order.
        max_fpr, resamples, level, seed: as :func:`bootstrap`.

    Returns:
        ``split, machine, id, domain, auc_difference, pauc_difference`` and the bounds of :func:`bootstrap`, first minus
        second; a split's average is the row with ``mean`` for machine, ID and domain.

    Raises:
        AsdRayError: the tables do not hold the same clips, or no ID has both normal and anomalous ones.
    """
    second = _aligned(first, second)
    draws, estimates = [], []
    for clips in (first, second):
        drawn = resample(clips, max_fpr, resamples=resamples, seed=seed)
        if drawn.empty:
            raise AsdRayError("No ID has both normal and anomalous clips, so there is no AUC to compare.")
        draws.append(_with_average(drawn, ("split", "resample")).set_index([*KEY, "resample"]))
        estimates.append(_with_average(per_id(clips, max_fpr).dropna(subset=["auc"]), ("split",)).set_index(list(KEY)))
    difference = (draws[0] - draws[1]).reset_index()
    result = (estimates[0] - estimates[1]).add_suffix("_difference").join(_bounds(difference, level))
    return result.reset_index()


def _with_average(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Key, AUC and pAUC of rows, and of every average over them."""
    mean = averages(rows, by).assign(machine="mean", id="mean", domain="mean")
    columns = [*KEY, *(name for name in by if name not in KEY), "auc", "pauc"]
    return pd.concat([rows[columns], mean[columns]], ignore_index=True)


def _bounds(draws: pd.DataFrame, level: float) -> pd.DataFrame:
    groups = draws.groupby(list(KEY), sort=False)[["auc", "pauc"]]
    low, high = groups.quantile((1 - level) / 2), groups.quantile((1 + level) / 2)
    return pd.concat([low.add_suffix("_low"), high.add_suffix("_high")], axis=1)[_BOUNDS]


def _aligned(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """The second table in the first one's order."""
    for clips in (first, second):
        check_clips(clips)
    identity = [*KEY, "label"]
    if "path" in first and "path" in second:
        for clips in (first, second):
            repeated = clips["path"][clips["path"].duplicated()]
            if len(repeated):
                raise AsdRayError(f"{repeated.iloc[0]}: this clip is scored twice by one system; expected once.")
        identity.append("path")
        if set(first["path"]) == set(second["path"]):
            second = second.set_index("path", drop=False).loc[first["path"]]
    ours, theirs = first[identity].astype(str).to_numpy(), second[identity].astype(str).to_numpy()
    if ours.shape != theirs.shape or (ours != theirs).any():
        raise AsdRayError(
            f"Two systems can be compared on the same clips only; found {len(first)} and {len(second)} clips that "
            f"differ in {', '.join(identity)} or in their order."
        )
    return second.reset_index(drop=True)
