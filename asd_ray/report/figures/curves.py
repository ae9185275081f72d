"""Learning curves: the metrics of every trial over its epochs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from asd_ray.report.figures.svg import C, svg

OWN = ("trial", "seed", "epoch", "epochs", "seconds")
GROUPS = {
    "learning": ("loss", "validation_loss", "accuracy", "knn_auc"),
    "similarity and collapse": (
        "positive_similarity",
        "negative_similarity",
        "alignment",
        "uniformity",
        "embedding_std",
        "queue_filled",
    ),
    "speed and schedule": ("samples_per_s", "lr"),
}
"""Groups of metrics in the order of the page; an unknown metric ends the first group."""
MOST_LINES = 60  # drawn as lines; more become a picture, whose size does not grow with the number of trials
_GREY = "#8a8f98"  # for pictures, which cannot follow the page: readable on light and dark


def learning_curves(history: pd.DataFrame, trials: pd.DataFrame, best: int | None) -> dict[str, dict[str, list[str]]]:
    """Stage -> group of metrics -> figures; stages in the order of their first epochs."""
    if history.empty:
        return {}
    pruned = set(trials.loc[trials["status"] == "pruned", "trial"])
    end = history.groupby("trial")["epoch"].max()
    figures: dict[str, dict[str, list[str]]] = {}
    for stage in dict.fromkeys(history.sort_values("epoch", kind="stable")["stage"]):
        of_stage = history[history["stage"] == stage].dropna(axis="columns", how="all")
        ended = {trial for trial, epoch in of_stage.groupby("trial")["epoch"].max().items() if epoch == end[trial]}
        names = [str(name) for name in of_stage.select_dtypes("number") if name not in OWN]
        figures[stage] = {
            group: [_figure(of_stage, f"{stage}: {name}", name, best, pruned & ended) for name in members]
            for group, members in grouped(names).items()
        }
    return figures


def grouped(names: list[str]) -> dict[str, list[str]]:
    """Metrics by group, in the order of :data:`GROUPS`; without empty groups."""
    known = {name for group in GROUPS.values() for name in group}
    order = {group: [name for name in members if name in names] for group, members in GROUPS.items()}
    order["learning"] += [name for name in names if name not in known]
    return {group: members for group, members in order.items() if members}


def _figure(history: pd.DataFrame, title: str, metric: str, best: int | None, pruned: set[int]) -> str:
    """A metric over the epochs, one line per trial through the epochs with a value, the best trial in front.

    ``pruned``: trials that were stopped in this stage.
    """
    epochs_of = history.groupby("trial")["epoch"].nunique()
    points = history.dropna(subset=[metric]).sort_values(["trial", "epoch"])
    trials, starts = np.unique(points["trial"], return_index=True)
    lines = dict(zip(trials, np.split(points[["epoch", metric]].to_numpy(np.float64), starts[1:]), strict=True))
    sparse = [line for trial, line in lines.items() if len(line) < max(2, epochs_of[trial])]
    many = len(lines) > MOST_LINES
    alpha = 0.3 * (MOST_LINES / len(lines)) ** 0.5 if many else 0.45
    look: dict[str, Any] = {"alpha": alpha, "rasterized": many, "zorder": 2}
    look["color"] = _GREY if many else C["muted"]

    def draw(axes: Axes) -> None:
        axes.add_collection(LineCollection([line for trial, line in lines.items() if trial != best], lw=1, **look))
        if sparse:
            axes.plot(*np.concatenate(sparse).T, ls="", marker="o", markersize=3.5, markeredgewidth=0, **look)
        if best in lines:
            axes.plot(*lines[best].T, color=C["accent"], lw=2, zorder=4, marker="o" if len(lines[best]) == 1 else None)
        ends = [line[-1] for trial, line in lines.items() if trial in pruned]
        if ends:
            x, y = np.transpose(ends)
            axes.scatter(x, y, marker="v", s=18, color=C["bad"], alpha=0.8, linewidths=0, zorder=3)
        axes.autoscale_view()
        axes.set_xlim(history["epoch"].min() - 0.5, history["epoch"].max() + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set(xlabel="epoch", ylabel=metric.replace("_", " "))

    return svg(title, draw, (300, 220), left=70)
