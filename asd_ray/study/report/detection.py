"""Figures of what systems detect: machine means with intervals, ROC curves, and histograms of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from asd_ray.metrics.rows import is_anomaly
from asd_ray.study.estimates import Estimate
from asd_ray.study.report.svg import C, svg
from asd_ray.study.tables import SYSTEMS

MARKS = {"best": ("o", "accent", 70), "default": ("D", "default", 40), "level": ("|", "level", 130)}
MARKS["knn_log_mel"] = ("s", "knn", 34)
GRID = np.linspace(0, 1, 201)
"""False-positive rates at which the curves of IDs are averaged."""
Floats = NDArray[np.float64]


def machine_means(table: pd.DataFrame, estimates: Mapping[str, Estimate], labels: Mapping[str, str]) -> str:
    """Held-out AUC of every machine and of their average: one row each, a mark per system, its interval as a line."""
    rows = table[table["kind"] != "id"]
    names = [machine if machine != "all" else "average" for machine in rows["machine"]]

    def draw(axes: Axes) -> None:
        places = np.arange(len(rows))[::-1].astype(float)
        for number, (system, (marker, colour, size)) in enumerate(MARKS.items()):
            at = places + 0.13 * (1.5 - number)
            look = {"color": C[colour], "zorder": 3 + (system == "best")}
            if system in estimates:
                bounds = estimates[system].table.reindex([(name, "mean", "") for name in rows["machine"]])
                axes.hlines(at, 100 * bounds["auc_low"], 100 * bounds["auc_high"], lw=1.2, alpha=0.7, **look)
            values = 100 * rows[f"{system}_holdout_auc"]
            axes.scatter(values, at, marker=marker, s=size, label=labels[system], linewidths=2.2, **look)
        axes.axvline(50, color=C["muted"], lw=1, ls=(0, (2, 3)))
        axes.set_yticks(places, names)
        axes.tick_params(axis="y", labelcolor=C["ink"], length=0)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("AUC on the holdout split (%)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, handletextpad=0.2)
        axes.spines["left"].set_visible(False)

    return svg("AUC of the machines", draw, (920, 90 + 36 * len(rows)), top=34, left=24 + 8 * max(map(len, names)))


def roc(machine: str, systems: Mapping[str, Sequence[pd.DataFrame]], labels: Mapping[str, str]) -> str | None:
    """A machine's ROC curves: the true-positive rate at every false-positive rate, mean over IDs and seeds.

    So the area below is the mean AUC of the machine's IDs (domains together). None where no ID has both kinds of clips.
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
    """True-positive rates at :data:`GRID`, averaged over the IDs of a machine and the seeds; None without an ROC."""
    curves = []
    for run in runs:
        for _, clips in run[run["machine"] == machine].groupby("id"):
            y = is_anomaly(clips)
            if y.any() and not y.all():
                fpr, tpr, _ = roc_curve(y, clips["score"], drop_intermediate=False)
                curves.append(np.interp(GRID, fpr, tpr))
                curves[-1][0] = 0.0
    return np.mean(curves, axis=0) if curves else None


def histogram(machine: str, run: pd.DataFrame) -> str | None:
    """A machine's scores, normal against anomalous clips, in standard deviations of the normal clips of each ID."""
    clips = run[run["machine"] == machine]
    z, y = standardised(clips), is_anomaly(clips)
    z, y = z[np.isfinite(z)], y[np.isfinite(z)]
    if len(z) == 0:
        return None
    edges = np.linspace(-3.0, max(4.0, min(12.0, float(np.quantile(z, 0.95)))), 25)

    def draw(axes: Axes) -> None:
        for of, colour, label in ((~y, "muted", "normal"), (y, "bad", "anomalous")):
            counts, _ = np.histogram(np.clip(z[of], edges[0], edges[-1]), edges)
            axes.stairs(100 * counts / max(1, of.sum()), edges, fill=True, color=C[colour], alpha=0.45, label=label)
        axes.set(xlabel="score (standard deviations)", ylabel="clips (%)", xlim=(edges[0], edges[-1]))
        axes.set_title(machine, loc="left", fontsize=12, color=C["ink"])
        axes.legend(loc="upper right", handlelength=1, fontsize=11)

    return svg(f"scores of {machine}", draw, (300, 240), top=30)


def standardised(clips: pd.DataFrame) -> Floats:
    """Scores less the mean of the normal clips of their machine and ID, over the standard deviation of those.

    NaN where an ID has fewer than two different normal scores.
    """
    normal = clips["score"].where(~is_anomaly(clips))
    groups = normal.groupby([clips["machine"], clips["id"]])
    sd = groups.transform("std")
    return ((clips["score"] - groups.transform("mean")) / sd.where(sd > 0)).to_numpy(np.float64)


def machines_of(runs: Sequence[pd.DataFrame]) -> list[str]:
    """Machines with clips, by name."""
    return sorted(set(runs[0]["machine"])) if runs else []
