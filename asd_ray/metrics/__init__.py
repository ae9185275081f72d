"""AUC and pAUC per ID, the challenge's averages over them, bootstrap intervals, and metrics of decisions.

A row of results is one split x machine x ID (x domain): ``split, machine, id, domain, n_normal, n_anomaly, auc, pauc``.
Two rules average rows, told apart by their domains: DCASE 2020 Task 2 (arithmetic; y-kawagu/dcase2020_task2_evaluator)
and DCASE 2022 Task 2 (harmonic over domain AUCs and section pAUCs; Kota-Dohi/dcase2022_evaluator).

All metrics are fractions of 1. A metric is undefined, NaN, where normal or anomalous clips are missing; averages leave
undefined values out and say how many there are (``n_ids`` against ``n_defined``).
"""

from __future__ import annotations

from asd_ray.metrics.areas import auc, pauc
from asd_ray.metrics.averages import average_2020, average_2022, averages, over_seeds, per_machine
from asd_ray.metrics.bootstrap import bootstrap, paired_difference, resample
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
    "auc",
    "average_2020",
    "average_2022",
    "averages",
    "bootstrap",
    "decisions_per_id",
    "has_domains",
    "over_seeds",
    "paired_difference",
    "pauc",
    "per_id",
    "per_machine",
    "pooled",
    "resample",
]
