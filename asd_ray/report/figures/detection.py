"""Figures of detection: machine means with intervals, ROC curves, histograms of scores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from asd_ray.metrics.areas import roc as curve_of
from asd_ray.metrics.intervals import OVERALL, Estimate, machines_of
from asd_ray.metrics.rows import is_anomaly
from asd_ray.report.figures.svg import C, svg
from asd_ray.report.tables import SYSTEMS

MARKS = {"best": ("o", "accent", 70), "default": ("D", "default", 40), "level": ("|", "level", 130)}
MARKS["knn_log_mel"] = ("s", "knn", 34)
GRID = np.linspace(0, 1, 201)
"""False-positive rates at which the curves of IDs are averaged."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """Marks of one system: a value, and bounds if known, for every line of the figure, as fractions."""

    label: str
    marker: str
    colour: str
    size: int
    values: pd.Series
    low: pd.Series | None = None
    high: pd.Series | None = None


def machine_means(table: pd.DataFrame, estimates: Mapping[str, Estimate], labels: Mapping[str, str]) -> str:
    """AUC of every machine and their average on the holdout split: a mark per system, its interval as a line."""
    means = table[table["kind"] != "id"].set_index("machine")
    series = []
    for system, (marker, colour, size) in MARKS.items():
        bounds: list[pd.Series | None] = [None, None]
        if system in estimates:
            bounds = [_means(estimates[system].table[f"auc_{end}"], means.index) for end in ("low", "high")]
        series.append(Series(labels[system], marker, colour, size, means[f"{system}_holdout_auc"], *bounds))
    return dots(list(means.index), series)


def study_means(estimates: Mapping[str, Estimate], metric: str) -> str:
    """A metric of every machine and their average: a mark per study (its best trial), its interval as a line."""
    series = []
    machines = machines_of(next(iter(estimates.values())).table)
    looks = itertools.cycle(zip("oDs^vP", ("accent", "default", "knn", "level", "bad", "muted"), strict=True))
    for (name, estimate), (marker, colour) in zip(estimates.items(), looks, strict=False):
        columns = [_means(estimate.table[metric + end], machines) for end in ("", "_low", "_high")]
        series.append(Series(name, marker, colour, 44, *columns))
    return dots(machines, series, {"auc": "AUC", "pauc": "pAUC"}[metric])


def dots(machines: Sequence[str], series: Sequence[Series], metric: str = "AUC") -> str:
    """A row per machine with a mark and an interval per series, slightly apart."""
    names = [machine if machine != OVERALL else "average" for machine in machines]
    apart = 0.5 / max(3, len(series))

    def draw(axes: Axes) -> None:
        places = np.arange(len(machines))[::-1].astype(float)
        for number, one in enumerate(series):
            at = places + apart * ((len(series) - 1) / 2 - number)
            look: dict[str, Any] = {"color": C[one.colour], "zorder": 4 if number == 0 else 3}
            if one.low is not None and one.high is not None:
                axes.hlines(at, 100 * one.low, 100 * one.high, lw=1.2, alpha=0.7, **look)
            axes.scatter(100 * one.values, at, marker=one.marker, s=one.size, label=one.label, linewidths=2.2, **look)
        axes.axvline(50, color=C["muted"], lw=1, ls=(0, (2, 3)))
        axes.set_yticks(places, names)
        axes.tick_params(axis="y", labelcolor=C["ink"], length=0)
        axes.set_ylim(-0.6, len(machines) - 0.4)
        axes.set_xlabel(f"{metric} on the holdout split (%)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(4, len(series)), handletextpad=0.2)
        axes.spines["left"].set_visible(False)

    top = 12 + 22 * math.ceil(len(series) / 4)
    height = 56 + top + round((24 + 4 * len(series)) * len(machines))
    return svg(f"{metric} of the machines", draw, (920, height), top=top, left=24 + 8 * max(map(len, names)))


def _means(column: pd.Series, machines: Iterable[str]) -> pd.Series:
    return column.reindex([(machine, "mean", "") for machine in machines])


def roc(machine: str, systems: Mapping[str, Sequence[pd.DataFrame]], labels: Mapping[str, str]) -> str | None:
    """ROC curves of a machine: the true-positive rate at every false-positive rate, mean over IDs and seeds.

    The area below is the mean AUC of the machine's IDs (domains together). None if no ID has both labels.
    """
    curves = {name: curve for name in SYSTEMS if (curve := mean_roc(systems.get(name, ()), machine)) is not None}
    if not curves:
        return None

    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=C["muted"], lw=1, ls=(0, (2, 3)))
        for name, curve in reversed(curves.items()):
            width = 2.2 if name == "best" else 1.3
            axes.plot(100 * GRID, 100 * curve, color=C[MARKS[name][1]], lw=width, label=labels[name])
        axes.set(xlabel="false positives (%)", ylabel="true positives (%)", xlim=(0, 100), ylim=(0, 101))
        axes.set_title(machine, loc="left", fontsize=12, color=C["ink"])

    return svg(f"ROC curves of {machine}", draw, (300, 290), top=30)


def mean_roc(runs: Sequence[pd.DataFrame], machine: str) -> Floats | None:
    """True-positive rates at :data:`GRID`, mean over a machine's IDs and the seeds; None if no ID has both labels."""
    curves = []
    for run in runs:
        for _, clips in run[run["machine"] == machine].groupby("id"):
            y = is_anomaly(clips)
            if y.any() and not y.all():
                fpr, tpr = curve_of(y, clips["score"].to_numpy(np.float64))
                curves.append(np.interp(GRID, fpr[:, 0], tpr[:, 0]))
                curves[-1][0] = 0.0
    return np.mean(curves, axis=0) if curves else None


def histogram(machine: str, run: pd.DataFrame) -> str | None:
    """Scores of a machine's normal and anomalous clips, in standard deviations of the normal clips of each ID."""
    clips = run[run["machine"] == machine]
    z, y = standardised(clips), is_anomaly(clips)
    z, y = z[np.isfinite(z)], y[np.isfinite(z)]
    if len(z) == 0:
        return None
    edges = np.linspace(-3.0, max(4.0, min(12.0, float(np.quantile(z, 0.95)))), 25)

    def draw(axes: Axes) -> None:
        for of, colour in ((~y, "muted"), (y, "bad")):
            counts, _ = np.histogram(np.clip(z[of], edges[0], edges[-1]), edges)
            axes.stairs(100 * counts / max(1, of.sum()), edges, fill=True, color=C[colour], alpha=0.45)
        axes.set(xlabel="score (standard deviations)", ylabel="clips (%)", xlim=(edges[0], edges[-1]))
        axes.set_title(machine, loc="left", fontsize=12, color=C["ink"])

    return svg(f"scores of {machine}", draw, (300, 240), top=30)


def standardised(clips: pd.DataFrame) -> Floats:
    """Scores minus the mean of the normal clips of the same machine and ID, divided by their standard deviation.

    NaN if an ID has fewer than two different normal scores.
    """
    normal = clips["score"].where(~is_anomaly(clips))
    groups = normal.groupby([clips["machine"], clips["id"]])
    sd = groups.transform("std")
    return ((clips["score"] - groups.transform("mean")) / sd.where(sd > 0)).to_numpy(np.float64)
