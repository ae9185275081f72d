"""Made-up scored clips, and slow, obvious areas under their curves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from asd_ray import metrics

scored = st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=60).filter(
    lambda clips: len({label for label, _ in clips}) == 2
)


def slow_auc(labels, scores) -> float:
    """The probability that an anomaly scores higher than a normal clip, ties counting half."""
    anomalies = [s for y, s in zip(labels, scores, strict=True) if y]
    normals = [s for y, s in zip(labels, scores, strict=True) if not y]
    return sum((a > n) + (a == n) / 2 for a in anomalies for n in normals) / (len(anomalies) * len(normals))


def slow_pauc(labels, scores, p) -> float:
    """McClish's standardised area under the ROC points, walked threshold by threshold."""
    y, s = np.asarray(labels, bool), np.asarray(scores, float)
    points = [(0.0, 0.0)]
    points += [((s[~y] >= t).mean(), (s[y] >= t).mean()) for t in sorted(set(s), reverse=True)]
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        end = min(x1, p)
        if end > x0:
            area += (end - x0) * (y0 + (y0 + (y1 - y0) * (end - x0) / (x1 - x0))) / 2
    return 0.5 * (1 + (area - p * p / 2) / (p - p * p / 2))


def clip_frame(rng, machines=("fan", "valve"), ids=("00", "02"), domains=("none",), normal=8, anomaly=6):
    rows = [
        (split, machine, number, domain, label, rng.normal() + (label == "anomaly"))
        for split in metrics.SPLITS
        for machine in machines
        for number in ids
        for domain in domains
        for label, count in (("normal", normal), ("anomaly", anomaly))
        for _ in range(count)
    ]
    return pd.DataFrame(rows, columns=["split", "machine", "id", "domain", "label", "score"])
