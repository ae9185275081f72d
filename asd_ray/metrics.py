"""AUC and pAUC per ID, the challenge's averages over them, and bootstrap intervals.

A row of results is one split x machine x ID (x domain): ``split, machine, id, domain, n_normal, n_anomaly, auc, pauc``.
Two rules average rows, told apart by their domains: DCASE 2020 Task 2 (arithmetic; y-kawagu/dcase2020_task2_evaluator)
and DCASE 2022 Task 2 (harmonic over domain AUCs and section pAUCs; Kota-Dohi/dcase2022_evaluator).

All metrics are fractions of 1. A metric is undefined, NaN, where normal or anomalous clips are missing; averages leave
undefined values out and say how many there are (``n_ids`` against ``n_defined``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_auc_score

from asd_ray.clips import stable_hash
from asd_ray.errors import AsdRayError

SPLITS = ("select", "holdout")
Key = tuple[str, str, str, str]
ROW_COLUMNS = ("split", "machine", "id", "domain", "n_normal", "n_anomaly", "auc", "pauc")
SECTION = ("none", "all")
"""Domains of the rows that hold all clips of an ID."""

_CLIP_COLUMNS = ("split", "machine", "id", "domain", "label", "score")


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: ``sklearn.metrics.roc_auc_score(labels, scores)``.

    Args:
        labels: (N,) 1 for anomaly, 0 for normal.
        scores: (N,) anomaly scores, higher is more anomalous.

    Returns:
        0 to 1; 0.5 for constant scores; NaN where one of the two classes is missing.

    Raises:
        AsdRayError: a score is NaN or infinite, or the arrays do not fit together.
    """
    y, s = _checked(labels, scores)
    return float(roc_auc_score(y, s)) if len(np.unique(y)) == 2 else float("nan")


def pauc(labels: ArrayLike, scores: ArrayLike, max_fpr: float = 0.1) -> float:
    """Partial AUC over false-positive rates in [0, ``max_fpr``], McClish-standardised: chance is 0.5, perfect is 1.

    Exactly ``sklearn.metrics.roc_auc_score(labels, scores, max_fpr=max_fpr)``. Otherwise as :func:`auc`.
    """
    y, s = _checked(labels, scores)
    return float(roc_auc_score(y, s, max_fpr=max_fpr)) if len(np.unique(y)) == 2 else float("nan")


def per_id(clips: pd.DataFrame, max_fpr: float = 0.1, *, ids: Iterable[tuple[str, str]] | None = None) -> pd.DataFrame:
    """AUC and pAUC of every split x machine x ID.

    Where the clips have domains (DCASE 2022), an ID has a row per domain, which holds the normal clips of that domain
    against the anomalous clips of all domains, and a row ``all`` of the whole section.

    Args:
        clips: one row per scored clip: ``split, machine, id, domain, label`` (``normal`` or ``anomaly``), ``score``.
        max_fpr: p of pAUC.
        ids: ``(machine, id)`` pairs that get a row in every split, with or without clips there; by default each split
            has the IDs of its clips.

    Returns:
        Rows with ``ROW_COLUMNS``, ordered by split (select first), machine, ID.

    Raises:
        AsdRayError: a column is missing, a label is neither, or a score is not finite; names the clip or ID.
    """
    _check_clips(clips)
    rows = []
    for key, group in _rows(clips, ids):
        y, s = group["label"].eq("anomaly").to_numpy(), group["score"].to_numpy(dtype=np.float64)
        rows.append((*key, int((~y).sum()), int(y.sum()), auc(y, s), pauc(y, s, max_fpr)))
    return pd.DataFrame(rows, columns=list(ROW_COLUMNS))


def pooled(clips: pd.DataFrame, max_fpr: float = 0.1) -> pd.DataFrame:
    """AUC and pAUC of each split x machine with the clips of all its IDs in one ROC curve.

    Not the official metric; the published code of OS-SCL and Noisy-ArcMix reports it. Arguments and errors as
    :func:`per_id`.

    Returns:
        ``split, machine, n_normal, n_anomaly, pooled_auc, pooled_pauc``.
    """
    _check_clips(clips)
    merged = clips.assign(id="pooled", domain="none")
    rows = per_id(merged, max_fpr).drop(columns=["id", "domain"])
    return rows.rename(columns={"auc": "pooled_auc", "pauc": "pooled_pauc"})


def per_machine(rows: pd.DataFrame, by: Sequence[str] = ("split",)) -> pd.DataFrame:
    """Means over the IDs of each machine, by the rule that the rows' domains ask for.

    Args:
        rows: from :func:`per_id`, perhaps of several trials.
        by: columns that tell apart what must not be averaged together, for example ``("trial", "seed", "split")``.

    Returns:
        The columns ``by``, ``machine``, ``auc``, ``pauc``, ``mauc`` (the smallest AUC of an ID), ``n_ids``,
        ``n_defined`` (IDs without an undefined AUC).
    """
    by = [*by, "machine"]
    sections = rows[rows["domain"].isin(SECTION)]
    if has_domains(rows):
        means = pd.concat([_harmonic(_domain_rows(rows), by, "auc"), _harmonic(sections, by, "pauc")], axis=1)
    else:
        means = sections.groupby(by)[["auc", "pauc"]].mean()
    means["mauc"] = sections.groupby(by)["auc"].min()
    defined = rows.assign(defined=rows["auc"].notna()).groupby([*by, "id"])["defined"].all().groupby(by)
    means["n_ids"], means["n_defined"] = defined.size(), defined.sum()
    return means.reset_index()


def averages(rows: pd.DataFrame, by: Sequence[str] = ("split",)) -> pd.DataFrame:
    """The over-all averages: :func:`average_2022`'s rule where rows have domains, else :func:`average_2020`'s.

    Returns:
        The columns ``by``, ``auc``, ``pauc``, ``auc_pauc`` (the mean of both; 2022: the official score), ``mauc``,
        ``n_ids``, ``n_defined``, and with domains ``auc_<domain>``.
    """
    by = list(by)
    machines = per_machine(rows, by).groupby(by)
    means = machines[["auc", "pauc", "mauc"]].mean()
    means[["n_ids", "n_defined"]] = machines[["n_ids", "n_defined"]].sum()
    means.insert(2, "auc_pauc", means[["auc", "pauc"]].mean(axis=1, skipna=False))
    if has_domains(rows):
        domains = _domain_rows(rows)
        sections = rows[rows["domain"] == "all"].drop(columns="auc").rename(columns={"pauc": "auc"})
        means["auc"] = _harmonic(domains, by, "auc")
        means["pauc"] = _harmonic(sections, by, "auc")
        means["auc_pauc"] = _harmonic(pd.concat([domains, sections]), by, "auc")
        for domain, members in domains.groupby("domain"):
            means[f"auc_{domain}"] = _harmonic(members, by, "auc")
    return means.reset_index()


def average_2020(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """DCASE 2020: the mean over IDs, then over machines, of AUC and pAUC.

    Returns:
        ``split -> {auc, pauc, auc_pauc, mauc, n_ids, n_defined}``, ``mauc`` being the mean over machines of the
        smallest AUC of an ID. Rows of single domains are not looked at.
    """
    sections = rows[rows["domain"].isin(SECTION)].assign(domain="none")
    return _by_split(averages(sections))


def average_2022(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """DCASE 2022: the harmonic mean over sections, domain AUCs and section pAUCs together, floored at float epsilon.

    Returns:
        ``split -> {auc, pauc, auc_pauc, mauc, n_ids, n_defined, auc_source, auc_target}``: harmonic means of the
        domain AUCs, of the pAUCs, and of both together (the official score); ``mauc`` is arithmetic over machines.

    Raises:
        AsdRayError: the rows have no domains.
    """
    if not has_domains(rows):
        raise AsdRayError("The average of DCASE 2022 needs rows per domain; these rows have domain 'none' only.")
    return _by_split(averages(rows))


def has_domains(rows: pd.DataFrame) -> bool:
    """Whether an ID's clips are told apart by domain, as from DCASE 2021 on."""
    return bool((~rows["domain"].isin(SECTION)).any())


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
    _check_clips(clips)
    clips = clips.reset_index(drop=True)
    weights = np.empty((len(clips), resamples), dtype=np.uint16)  # how often each draw holds each clip
    for stratum, members in clips.groupby(["split", "machine", "id", "domain", "label"], observed=True):
        n = len(members)
        rng = np.random.default_rng([seed, stable_hash(*stratum)])
        weights[members.index] = rng.multinomial(n, np.full(n, 1 / n), size=resamples).T
    parts = []
    for key, group in _rows(clips, None):
        y, s = group["label"].eq("anomaly").to_numpy(), group["score"].to_numpy(dtype=np.float64)
        if len(np.unique(y)) == 2:
            part = pd.DataFrame([(*key, int((~y).sum()), int(y.sum()))] * resamples, columns=list(ROW_COLUMNS[:6]))
            part["auc"], part["pauc"] = _areas(y, s, weights[group.index].astype(np.float64), max_fpr)
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
    key = ["split", "machine", "id", "domain"]
    if draws.empty:
        return pd.DataFrame(columns=[*key, "auc_low", "auc_high", "pauc_low", "pauc_high"])
    mean = averages(draws, ("split", "resample")).assign(machine="mean", id="mean", domain="mean")
    together = pd.concat([draws, mean[[*key, "resample", "auc", "pauc"]]]).groupby(key, sort=False)[["auc", "pauc"]]
    low, high = together.quantile((1 - level) / 2), together.quantile((1 + level) / 2)
    bounds = pd.concat([low.add_suffix("_low"), high.add_suffix("_high")], axis=1)
    return bounds[["auc_low", "auc_high", "pauc_low", "pauc_high"]].reset_index()


def _areas(
    y: NDArray[np.bool_], s: NDArray[np.float64], weights: NDArray[np.float64], max_fpr: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUC and standardised pAUC of N weighted clips, for R weightings (N, R) at once."""
    _, position = np.unique(-s, return_inverse=True)  # thresholds from the highest score down; ties share one
    starts = np.flatnonzero(np.diff(np.sort(position), prepend=-1))
    order = np.argsort(position, kind="stable")

    def rate(of: NDArray[np.bool_]) -> NDArray[np.float64]:
        counts = np.add.reduceat((weights * of[:, None])[order], starts, axis=0).cumsum(axis=0)
        return np.concatenate([np.zeros((1, weights.shape[1])), counts / counts[-1]])

    tpr, fpr = rate(y), rate(~y)
    width, rise = np.diff(fpr, axis=0), np.diff(tpr, axis=0)
    area = (width * (tpr[:-1] + rise / 2)).sum(axis=0)
    inside = np.clip(max_fpr - fpr[:-1], 0, width)  # the part of each segment left of max_fpr
    slope = np.divide(rise, width, out=np.zeros_like(rise), where=width > 0)
    partial = (inside * (tpr[:-1] + slope * inside / 2)).sum(axis=0)
    chance = max_fpr**2 / 2
    return area, 0.5 * (1 + (partial - chance) / (max_fpr - chance))


def _rows(clips: pd.DataFrame, ids: Iterable[tuple[str, str]] | None) -> Iterator[tuple[Key, pd.DataFrame]]:
    """The key (split, machine, ID, domain) of every row and the clips that it is made of."""
    domains = sorted(set(clips["domain"].astype(str)) - {"none"})
    groups = {
        (str(split), str(machine), str(machine_id)): group
        for (split, machine, machine_id), group in clips.groupby(["split", "machine", "id"], observed=True)
    }
    asked = {(split, *pair) for split in {key[0] for key in groups} for pair in ids or ()}
    for key in sorted({*groups, *asked}, key=lambda key: (key[0] not in SPLITS[:1], *key)):
        group = groups.get(key, clips.iloc[:0])
        for domain in domains:
            yield (*key, domain), group[(group["label"] == "anomaly") | (group["domain"] == domain)]
        yield (*key, "all" if domains else "none"), group


def _domain_rows(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[~rows["domain"].isin(SECTION)]


def _harmonic(rows: pd.DataFrame, by: list[str], column: str) -> pd.Series:
    floored = rows[column].clip(lower=np.finfo(np.float64).eps)
    return 1 / (1 / floored).groupby([rows[name] for name in by]).mean()


def _by_split(means: pd.DataFrame) -> dict[str, dict[str, float]]:
    records = [{str(name): value for name, value in row.items()} for row in means.to_dict("records")]
    return {row.pop("split"): {name: float(value) for name, value in row.items()} for row in records}


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    y, s = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if y.ndim != 1 or y.shape != s.shape:
        raise AsdRayError(f"One label per score is expected, found labels of shape {y.shape}, scores of {s.shape}.")
    if not np.isin(y, (0, 1)).all():
        raise AsdRayError(f"Labels must be 0 (normal) or 1 (anomaly), found {sorted(set(y.tolist()), key=str)[:5]}.")
    if not np.isfinite(s).all():
        raise AsdRayError(
            f"Scores must be finite numbers, found {s[~np.isfinite(s)][0]} at position "
            f"{int(np.flatnonzero(~np.isfinite(s))[0])}."
        )
    return y.astype(np.int64), s


def _check_clips(clips: pd.DataFrame) -> None:
    missing = [column for column in _CLIP_COLUMNS if column not in clips]
    if missing:
        raise AsdRayError(f"Scored clips need the columns {', '.join(_CLIP_COLUMNS)}; missing: {', '.join(missing)}.")
    for bad, what in (
        (~clips["label"].isin(["normal", "anomaly"]), "label"),
        (~np.isfinite(clips["score"].to_numpy(dtype=np.float64)), "score"),
    ):
        if np.any(bad):
            clip = clips[np.asarray(bad)].iloc[0]
            name = clip.get("path", f"a clip of {clip['machine']} {clip['id']}")
            expected = "normal or anomaly" if what == "label" else "a finite number"
            raise AsdRayError(f"{name}: its {what} is {clip[what]}, expected {expected}.")
