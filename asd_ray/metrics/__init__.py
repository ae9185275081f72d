"""Metrics: AUC and pAUC per ID, the challenge's averages, precision, recall and F1 of decisions.

A row of results is one split x machine x ID (x domain): ``split, machine, id, domain, n_normal, n_anomaly, auc, pauc``.
There are two rules for averages. Rows without domains: DCASE 2020 Task 2 (arithmetic means;
y-kawagu/dcase2020_task2_evaluator). Rows with domains: DCASE 2022 Task 2 (harmonic mean over domain AUCs and section
pAUCs; Kota-Dohi/dcase2022_evaluator).

All metrics are fractions of 1. A metric is undefined (NaN) if normal or anomalous clips are missing. Averages leave
undefined values out and count them (``n_ids`` against ``n_defined``).
"""

from __future__ import annotations

from asd_ray.metrics.averages import averages, per_machine
from asd_ray.metrics.rows import (
    DECISION_COLUMNS,
    ROW_COLUMNS,
    SECTION,
    SPLITS,
    decisions_per_id,
    has_domains,
    per_id,
    pooled,
)

__all__ = [
    "DECISION_COLUMNS",
    "ROW_COLUMNS",
    "SECTION",
    "SPLITS",
    "averages",
    "decisions_per_id",
    "has_domains",
    "per_id",
    "per_machine",
    "pooled",
]
