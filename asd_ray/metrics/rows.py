"""Tables of metrics: one row per split x machine x ID (x domain)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from asd_ray.errors import AsdRayError
from asd_ray.metrics.areas import areas

SPLITS = ("select", "holdout")
KEY = ("split", "machine", "id", "domain")
ROW_COLUMNS = (*KEY, "n_normal", "n_anomaly", "auc", "pauc")
DECISION_COLUMNS = (*KEY, "n_normal", "n_anomaly", "precision", "recall", "f1")
SECTION = ("none", "all")
"""Domain values of rows with all clips of an ID."""

Key = tuple[str, ...]
Positions = NDArray[np.int64]


def per_id(clips: pd.DataFrame, max_fpr: float = 0.1, *, ids: Iterable[tuple[str, str]] | None = None) -> pd.DataFrame:
    """AUC and pAUC of every split x machine x ID.

    With domains (DCASE 2022) an ID has one row per domain and one row ``all``. A domain's row compares the normal clips
    of that domain with the anomalous clips of all domains. The row ``all`` has every clip of the ID.

    Args:
        clips: one row per scored clip: ``split, machine, id, domain, label`` (``normal`` or ``anomaly``), ``score``.
        max_fpr: p of pAUC.
        ids: ``(machine, id)`` pairs that get a row in every split, even without clips; by default each split has the
            IDs of its clips.

    Returns:
        Rows with ``ROW_COLUMNS``, ordered by split (select first), machine, ID.

    Raises:
        AsdRayError: a column is missing, a label is neither ``normal`` nor ``anomaly``, or a score is not finite. Names
            the clip or ID.
    """
    check_clips(clips)
    y, s = is_anomaly(clips), clips["score"].to_numpy(dtype=np.float64)
    rows = []
    for key, members in row_members(clips, ids):
        normal, anomalous = int((~y[members]).sum()), int(y[members].sum())
        area = partial = np.array([np.nan])
        if normal and anomalous:
            area, partial = areas(y[members], s[members], max_fpr)
        rows.append((*key, normal, anomalous, area[0], partial[0]))
    return pd.DataFrame(rows, columns=list(ROW_COLUMNS))


def pooled(clips: pd.DataFrame, max_fpr: float = 0.1) -> pd.DataFrame:
    """AUC and pAUC of each split x machine, from one ROC curve over the clips of all its IDs.

    This is not the official metric. The published code of OS-SCL and Noisy-ArcMix reports it. Arguments and errors: see
    :func:`per_id`.

    Returns:
        ``split, machine, n_normal, n_anomaly, pooled_auc, pooled_pauc``.
    """
    check_clips(clips)
    merged = clips.assign(id="pooled", domain="none")
    rows = per_id(merged, max_fpr).drop(columns=["id", "domain"])
    return rows.rename(columns={"auc": "pooled_auc", "pauc": "pooled_pauc"})


def decisions_per_id(clips: pd.DataFrame) -> pd.DataFrame:
    """Precision, recall and F1 score of decisions, for every split x machine x ID (x domain).

    The same rule as DCASE 2022 Task 2's evaluator: a domain's row has only its own normal and anomalous clips, unlike
    its AUC. The row ``all`` is our addition. (The challenge's MobileNetV2 baseline gives each domain the anomalies of
    both, so its two recalls are equal: an error.)

    Args:
        clips: one row per clip: ``split, machine, id, domain, label``, ``decision`` (1 for anomaly, 0 for normal).

    Returns:
        Rows with ``DECISION_COLUMNS``. Precision is 0 if no clip is called anomalous. All three are undefined (NaN) if
        there are no anomalous clips.

    Raises:
        AsdRayError: a column is missing, or a label or a decision has another value.
    """
    check_clips(clips, "decision")
    y, called = is_anomaly(clips), clips["decision"].to_numpy() == 1
    domain = clips["domain"].to_numpy()
    rows = []
    for key, members in row_members(clips, None):
        own = members if key[3] in SECTION else members[domain[members] == key[3]]
        hits, anomalous, positive = (int(mask[own].sum()) for mask in (y & called, y, called))
        precision = recall = f1 = np.nan
        if anomalous:
            precision, recall = hits / max(positive, 1), hits / anomalous
            f1 = 2 * hits / (positive + anomalous)
        rows.append((*key, len(own) - anomalous, anomalous, precision, recall, f1))
    return pd.DataFrame(rows, columns=list(DECISION_COLUMNS))


def has_domains(rows: pd.DataFrame) -> bool:
    """True if rows have domains, as in DCASE 2021 and later."""
    return bool((~rows["domain"].isin(SECTION)).any())


def domain_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of single domains."""
    return rows[~rows["domain"].isin(SECTION)]


def is_anomaly(clips: pd.DataFrame) -> NDArray[np.bool_]:
    """Mask (N,) of the anomalous clips."""
    return clips["label"].eq("anomaly").to_numpy(dtype=bool)


def row_members(clips: pd.DataFrame, ids: Iterable[tuple[str, str]] | None) -> Iterator[tuple[Key, Positions]]:
    """The key (split, machine, ID, domain) of every row, and the positions of its clips."""
    y, domain = is_anomaly(clips), clips["domain"].astype(str).to_numpy()
    domains = sorted(set(domain) - {"none"})
    groups = members_by(clips, KEY[:3])
    asked = {(split, *pair) for (split, *_), pair in product(groups, ids or ())}
    for key in sorted({*groups, *asked}, key=lambda key: (key[0] not in SPLITS[:1], *key)):
        members = groups.get(key, np.empty(0, dtype=np.int64))
        for one in domains:
            yield (*key, one), members[y[members] | (domain[members] == one)]
        yield (*key, "all" if domains else "none"), members


def members_by(clips: pd.DataFrame, columns: Sequence[str]) -> dict[Key, Positions]:
    """Group clips by columns: the values of each group -> positions of its clips."""
    found = cast("dict[tuple[object, ...], Positions]", clips.groupby(list(columns), observed=True).indices)
    return {tuple(str(value) for value in key): members for key, members in found.items()}


def check_clips(clips: pd.DataFrame, value: str = "score") -> None:
    """Raise AsdRayError for a missing column, an unknown label, or a value out of range."""
    needed = [*KEY, "label", value]
    missing = [column for column in needed if column not in clips]
    if missing:
        raise AsdRayError(f"Scored clips need the columns {', '.join(needed)}; missing: {', '.join(missing)}.")
    if value == "score":
        good, expected = np.isfinite(clips["score"].to_numpy(dtype=np.float64)), "a finite number"
    else:
        good, expected = clips[value].isin([0, 1]).to_numpy(), "0 (normal) or 1 (anomaly)"
    for name, valid, what in (
        ("label", clips["label"].isin(["normal", "anomaly"]).to_numpy(), "normal or anomaly"),
        (value, good, expected),
    ):
        if not valid.all():
            clip = clips[~valid].iloc[0]
            who = clip.get("path", f"a clip of {clip['machine']} {clip['id']}")
            raise AsdRayError(f"{who}: its {name} is {clip[name]}, expected {what}.")
