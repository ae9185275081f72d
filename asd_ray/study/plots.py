"""The figures of a report, as SVG text to put into a page.

Colours are CSS variables of the page (``--ink``, ``--accent``, …), so the figures follow its light or dark scheme, and
text stays text in the page's font.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from asd_ray.study.tables import plain

# Stand-ins that matplotlib draws with and that become CSS variables afterwards.
COLOURS = {
    "ink": "#010101",
    "muted": "#010102",
    "rule": "#010103",
    "accent": "#010104",
    "default": "#010105",
    "level": "#010106",
    "knn": "#010107",
    "bad": "#010108",
    "card": "#010109",
}
C = COLOURS
MOST_CURVES = 60

_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are names, even with a dollar sign
    "font.size": 12,
    "axes.edgecolor": C["rule"],
    "axes.labelcolor": C["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": C["rule"],
    "grid.linewidth": 0.7,
    "text.color": C["ink"],
    "xtick.color": C["rule"],
    "ytick.color": C["rule"],
    "xtick.labelcolor": C["muted"],
    "ytick.labelcolor": C["muted"],
    "legend.frameon": False,
    "legend.labelcolor": C["ink"],
    "lines.solid_capstyle": "round",
}


def objective_over_trials(trials: pd.DataFrame, best: int | None) -> str:
    """Every trial's objective in the order of their numbers, and the best so far."""

    def draw(axes: Axes) -> None:
        complete = trials[trials["status"] == "complete"].sort_values("trial")
        steps = 100 * complete["objective"].astype(float).cummax()
        axes.step(complete["trial"], steps, where="post", color=C["accent"], lw=1.5, label="best so far")
        _points(axes, trials, "trial", best)
        low, high = axes.get_ylim()
        for status, marker, colour in (("pruned", "v", "muted"), ("failed", "x", "bad")):
            lost = trials.loc[(trials["status"] == status) & trials["objective"].isna(), "trial"]
            if len(lost):
                axes.scatter(lost, [low] * len(lost), marker=marker, s=36, color=C[colour], label=status, clip_on=False)
        axes.set_ylim(low, high)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="trial", ylabel="objective (%)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=7, columnspacing=1.2, handletextpad=0.4)

    return _svg("objective", draw, (920, 300), top=34)


def key_against_objective(trials: pd.DataFrame, key: str, distribution: dict[str, list], best: int | None) -> str:
    """A searched key's values against the objective, over its whole distribution (``{uniform: [0.1, 0.6]}``)."""
    kind, bounds = next(iter(distribution.items()), ("choice", sorted(trials[key].dropna().unique(), key=plain)))

    def draw(axes: Axes) -> None:
        if kind == "choice":
            names = [plain(choice) for choice in bounds]
            places = {name: place for place, name in enumerate(names)}
            _points(axes, trials.assign(**{key: trials[key].map(plain).map(places)}), key, best)
            axes.set_xticks(range(len(names)), names)
            axes.set_xlim(-0.5, len(names) - 0.5)
        else:
            low, high = map(float, bounds)
            if kind.startswith("log") and low < high:
                margin = (high / low) ** 0.04
                axes.set_xscale("log")
                axes.set_xlim(low / margin, high * margin)
                ticks = _log_ticks(low, high)
                axes.set_xticks(ticks, [plain(tick) for tick in ticks])
                axes.xaxis.set_minor_locator(NullLocator())
            elif low < high:
                axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
            _points(axes, trials, key, best)
        axes.set(xlabel=key.rsplit(".", 1)[-1], ylabel="objective (%)")

    return _svg(f"key-{key}", draw, (440, 260))


def machine_means(table: pd.DataFrame, labels: dict[str, str]) -> str:
    """Held-out AUC of every machine and of their average: one row each, one mark per system."""
    rows = table[table["kind"] != "id"]
    names = [machine if machine != "all" else "average" for machine in rows["machine"]]
    marks = {"best": ("o", "accent", 70), "default": ("D", "default", 40), "level": ("|", "level", 130)}
    marks["knn_log_mel"] = ("s", "knn", 34)

    def draw(axes: Axes) -> None:
        places = np.arange(len(rows))[::-1]
        for system, (marker, colour, size) in reversed(marks.items()):
            values = 100 * rows[f"{system}_holdout_auc"]
            axes.scatter(
                values, places, marker=marker, s=size, color=C[colour], label=labels[system], zorder=3, linewidths=2.2
            )
        axes.axvline(50, color=C["muted"], lw=1, ls=(0, (2, 3)))
        axes.set_yticks(places, names)
        axes.tick_params(axis="y", labelcolor=C["ink"], length=0)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("AUC on the holdout split (%)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, handletextpad=0.2, reverse=True)
        axes.spines["left"].set_visible(False)

    return _svg("machines", draw, (920, 90 + 30 * len(rows)), top=34, left=24 + 8 * max(map(len, names)))


def learning_curve(history: pd.DataFrame, name: str, metric: str, best: int | None) -> str:
    """A metric over the epochs, one line per trial, the best trial's in front. ``name`` is unique on the page."""

    def draw(axes: Axes) -> None:
        for trial, curve in history.dropna(subset=[metric]).sort_values("epoch").groupby("trial"):
            look: dict[str, Any] = {"color": C["muted"], "alpha": 0.45, "lw": 1, "zorder": 2}
            if trial == best:
                look = {"color": C["accent"], "lw": 2, "zorder": 3}
            axes.plot(curve["epoch"], curve[metric], marker="o" if len(curve) == 1 else None, markersize=4, **look)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set(xlabel="epoch", ylabel=metric.replace("_", " "))

    return _svg(name, draw, (300, 220), left=70)


def _points(axes: Axes, trials: pd.DataFrame, column: str, best: int | None) -> None:
    """Trials as points over a column: complete ones, the best, the default (trial 0), pruned ones."""
    trials = trials[trials["objective"].notna()]
    status, number = trials["status"], trials["trial"]
    complete = status == "complete"
    for chosen, marker, size, colour, label in (
        (status == "pruned", "v", 36, "muted", "pruned"),
        (complete & ~number.isin([0, best]), "o", 40, "muted", "trial"),
        (complete & (number == 0) & (number != best), "D", 48, "default", "default"),
        (complete & (number == best), "o", 80, "accent", "best"),
    ):
        if chosen.any():
            part = trials[chosen]
            axes.scatter(
                part[column],
                100 * part["objective"].astype(float),
                marker=marker,
                s=size,
                color=C[colour],
                edgecolors=C["card"],
                linewidths=0.8,
                label=label,
                zorder=3,
            )


def _log_ticks(low: float, high: float) -> list[float]:
    """Two to seven numbers within a range: 1, 2, 5 x powers of ten, only the powers if wide, the ends if narrow."""
    powers = [10.0**p for p in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    for steps in ((1, 2, 5), (1,)):
        ticks = [step * power for power in powers for step in steps if low <= step * power <= high]
        if 2 <= len(ticks) <= 7:
            return ticks
    return [low, high]


def _svg(name: str, draw: Callable[[Axes], None], size: tuple[int, int], top: int = 10, left: int = 58) -> str:
    """A figure as an ``<svg>`` element whose ids are its own.

    Args:
        name: unique on the page.
        draw: fills the axes.
        size: width and height in CSS pixels.
        top, left: margins in CSS pixels, for a legend above and labels beside the axes.
    """
    width, height = size
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width / 72, height / 72))
        # Margins by hand: matplotlib's automatic layouts draw everything twice, which a report of many figures feels.
        right, bottom = 14, 44
        box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
        draw(figure.add_axes(box))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower())
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    head, body = svg.split(">", 1)
    return re.sub(r' (width|height)="[^"]*"', "", head) + ">" + body
