"""Figures of a search: the objective over the trials, importance, and the searched keys alone and in pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.ticker import MaxNLocator
from matplotlib.tri import Triangulation
from numpy.typing import NDArray

from asd_ray.report.figures.svg import C, svg
from asd_ray.report.tables import plain

Floats = NDArray[np.float64]
Space = Mapping[str, Mapping[str, Sequence[Any]]]
"""Searched key -> its distribution as in a study file: ``{uniform: [0.1, 0.6]}``."""


class Scale:
    """Where the values of a searched key lie between 0 and 1: linear, logarithmic, or one place per choice."""

    def __init__(self, key: str, space: Space, values: pd.Series) -> None:
        listed = sorted(values.dropna().unique(), key=plain)
        kind, bounds = next(iter(space.get(key, {}).items()), ("choice", listed))
        self.name = key.rsplit(".", 1)[-1]
        self.names = [plain(choice) for choice in bounds] if kind == "choice" else []
        known = [] if self.names else [float(value) for value in (*bounds, *listed)]  # a warm start may lie outside
        self.low, self.high = (min(known), max(known)) if known else (0.0, 1.0)
        self.log = kind.startswith("log") and self.low < self.high

    def __call__(self, values: pd.Series) -> Floats:
        if self.names:
            places = {name: (number + 0.5) / len(self.names) for number, name in enumerate(self.names)}
            return np.asarray(values.map(plain).map(places), dtype=np.float64)
        return self._share(np.asarray(pd.to_numeric(values), dtype=np.float64))

    def ticks(self) -> tuple[list[float], list[str]]:
        """Places and names of some values."""
        if self.names:
            return [(number + 0.5) / len(self.names) for number in range(len(self.names))], self.names
        if self.log:
            shown = _log_ticks(self.low, self.high)
        else:
            locator = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10])
            shown = [tick for tick in locator.tick_values(self.low, self.high) if self.low <= tick <= self.high]
        return list(self._share(np.array(shown))), [plain(float(f"{tick:.6g}")) for tick in shown]

    def label(self, axes: Axes, which: str) -> None:
        """Draws the key's ticks and name along one axis of a figure."""
        places, names = self.ticks()
        getattr(axes, f"set_{which}ticks")(places, names)
        getattr(axes, f"set_{which}lim")(-0.04, 1.04)
        getattr(axes, f"set_{which}label")(self.name)

    def _share(self, values: Floats) -> Floats:
        if self.low == self.high:
            return np.full(len(values), 0.5)
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        return ((np.log(values) if self.log else values) - low) / (high - low)


def objective_over_trials(trials: pd.DataFrame, best: int | None) -> str:
    """Every trial's objective in the order of their numbers, and the best so far."""

    def draw(axes: Axes) -> None:
        complete = trials[trials["status"] == "complete"].sort_values("trial")
        steps = 100 * complete["objective"].astype(float).cummax()
        axes.step(complete["trial"], steps, where="post", color=C["accent"], lw=1.5, label="best so far")
        _points(axes, trials, np.asarray(trials["trial"], dtype=np.float64), best)
        low, high = axes.get_ylim()
        for status, marker, colour in (("pruned", "v", "muted"), ("failed", "x", "bad")):
            lost = trials.loc[(trials["status"] == status) & trials["objective"].isna(), "trial"]
            if len(lost):
                axes.scatter(lost, [low] * len(lost), marker=marker, s=36, color=C[colour], label=status, clip_on=False)
        axes.set_ylim(low, high)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="trial", ylabel="objective (%)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=7, columnspacing=1.2, handletextpad=0.4)

    return svg("objective of every trial", draw, (920, 300), top=34)


def slice_of(trials: pd.DataFrame, key: str, space: Space, best: int | None) -> str:
    """A searched key's values against the objective, over its whole distribution."""
    scale = Scale(key, space, trials[key])

    def draw(axes: Axes) -> None:
        _points(axes, trials, scale(trials[key]), best)
        scale.label(axes, "x")
        axes.set_ylabel("objective (%)")

    return svg(f"slice of {key}", draw, (440, 260))


def contour(trials: pd.DataFrame, keys: tuple[str, str], space: Space, best: int | None) -> str:
    """The objective of complete trials over two searched keys, linear between neighbouring trials, and the trials."""
    complete = trials[(trials["status"] == "complete") & trials["objective"].notna()]
    complete = complete.dropna(subset=list(keys))
    scales = [Scale(key, space, complete[key]) for key in keys]
    x, y = (scale(complete[key]) for scale, key in zip(scales, keys, strict=True))
    value = 100 * np.asarray(complete["objective"], dtype=np.float64)

    def draw(axes: Axes) -> None:
        axes.grid(visible=False)
        triangles = _triangles(x, y) if not any(scale.names for scale in scales) else None
        if triangles is not None:
            levels = MaxNLocator(nbins=7).tick_values(value.min(), value.max())
            strengths = np.linspace(0.04, 0.75, len(levels) - 1)
            shades = [to_rgba(C["accent"], strength) for strength in strengths]
            axes.tricontourf(triangles, value, levels=levels, colors=shades)
        _points(axes, complete, x, best, y)
        for scale, which in zip(scales, "xy", strict=True):
            scale.label(axes, which)

    return svg(f"contours of {' and '.join(keys)}", draw, (440, 320), left=70)


def importance_bars(importance: Mapping[str, float], names: Mapping[str, str]) -> str:
    """Bars of the searched keys' importances, the largest at the top."""
    order = sorted(importance, key=importance.__getitem__)

    def draw(axes: Axes) -> None:
        bars = axes.barh([names[key] for key in order], [100 * importance[key] for key in order], color=C["accent"])
        axes.bar_label(bars, fmt="%.0f %%", padding=4, color=C["ink"])
        axes.tick_params(axis="y", labelcolor=C["ink"], length=0)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="share of the importance (%)", xlim=(0, 108))

    return svg("importance", draw, (920, 70 + 32 * len(order)), left=30 + 8 * max(len(names[key]) for key in order))


def _points(axes: Axes, trials: pd.DataFrame, x: Floats, best: int | None, at: Floats | None = None) -> None:
    """Trials as points: complete ones, the best, the default (trial 0), pruned ones; by their objective, or ``at``."""
    y = 100 * np.asarray(trials["objective"], dtype=np.float64) if at is None else at
    status, number = trials["status"].to_numpy(), trials["trial"].to_numpy()
    complete = status == "complete"
    smaller = max(0.5, 1 / (1 + len(trials) / 200))
    alpha = min(1.0, max(0.45, (100 / len(trials)) ** 0.5))
    for chosen, marker, size, colour, label, opacity in (
        (status == "pruned", "v", 36 * smaller, "muted", "pruned", alpha),
        (complete & (number != 0) & (number != best), "o", 40 * smaller, "muted", "trial", alpha),
        (complete & (number == 0) & (number != best), "D", 48, "default", "default", 1.0),
        (complete & (number == best), "o", 80, "accent", "best", 1.0),
    ):
        chosen = chosen & np.isfinite(x) & np.isfinite(y)
        if chosen.any():
            look: dict[str, Any] = {"marker": marker, "s": size, "color": C[colour], "alpha": opacity}
            edge = {"edgecolors": C["card"], "linewidths": 0.8} if opacity == 1 else {"linewidths": 0}
            axes.scatter(x[chosen], y[chosen], label=label, zorder=3, **look, **edge)


def _triangles(x: Floats, y: Floats) -> Triangulation | None:
    """Delaunay triangles between points, or None where there are too few or they lie on a line."""
    try:
        return Triangulation(x, y) if len(x) > 3 else None
    except (RuntimeError, ValueError):
        return None


def _log_ticks(low: float, high: float) -> list[float]:
    """Two to seven numbers within a range: 1, 2, 5 x powers of ten, only the powers if wide, the ends if narrow."""
    powers = [10.0**p for p in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    for steps in ((1, 2, 5), (1,)):
        ticks = [step * power for power in powers for step in steps if low <= step * power <= high]
        if 2 <= len(ticks) <= 7:
            return ticks
    return [low, high]
