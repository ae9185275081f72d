"""Parallel coordinates: a vertical axis per searched key and one for the objective, a line per complete trial."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
import pandas as pd

from asd_ray.study.report.search import Scale, Space
from asd_ray.study.tables import percent, plain

WIDTH, HEIGHT = 920, 320
LEFT, RIGHT, TOP, BOTTOM = 60, 60, 34, 16


def parallel_coordinates(trials: pd.DataFrame, keys: Mapping[str, str], space: Space, best: int | None) -> str:
    """An ``<svg>`` whose lines tell their trial on hover (``<title>``, and the page's script writes it below).

    Lines are the stronger the higher their objective; the best trial's is drawn last. Lines end at a key that their
    trial has no value of.

    Args:
        trials: the table of trials.
        keys: searched keys and their short names.
        space: searched key -> its distribution.
        best: number of the best trial.
    """
    complete = trials[(trials["status"] == "complete") & trials["objective"].notna()].sort_values("objective")
    values = complete["objective"].astype(float)
    scales = {key: Scale(key, space, complete[key]) for key in keys}
    objective = Scale("objective", {"objective": {"uniform": [values.min(), values.max()]}}, values)
    heights = [*(scales[key](complete[key]) for key in keys), objective(values)]
    places = np.linspace(LEFT, WIDTH - RIGHT, len(heights))
    lines = []
    for number, (_, row) in enumerate(complete.iterrows()):
        at = [(x, _y(height[number])) for x, height in zip(places, heights, strict=True) if np.isfinite(height[number])]
        points = " ".join(f"{x:.0f},{y:.1f}" for x, y in at)
        text = ", ".join(f"{name} {plain(row[key])}" for key, name in keys.items())
        title = escape(f"trial {row['trial']}: objective {percent(row['objective'])}, {text}")
        strength = 0.05 + 0.7 * ((number + 1) / len(complete)) ** (2 if len(complete) < 50 else 6)
        look = 'class="best"' if row["trial"] == best else f'style="opacity:{strength:.2f}"'
        lines.append((row["trial"] == best, f'<polyline {look} points="{points}"><title>{title}</title></polyline>'))
    drawn = [line for _, line in sorted(lines, key=lambda pair: pair[0])]
    axes = [_axis(x, name, scale) for x, name, scale in zip(places, keys.values(), scales.values(), strict=False)]
    axes.append(_axis(places[-1], "objective", objective, [(height, percent(tick)) for height, tick in _ends(values)]))
    return (
        f'<svg class="parallel" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="parallel coordinates">'
        f"{''.join(drawn)}{''.join(axes)}</svg>"
    )


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _ends(values: pd.Series) -> list[tuple[float, float]]:
    low, high = values.min(), values.max()
    return [(0.5, low)] if low == high else [(0.0, low), (0.5, (low + high) / 2), (1.0, high)]


def _axis(x: float, name: str, scale: Scale, ticks: list[tuple[float, str]] | None = None) -> str:
    """An axis with its ticks at the left, or the given (height, text) at the right."""
    marks = ticks if ticks is not None else list(zip(*scale.ticks(), strict=True))
    at, side = (x - 6, "left") if ticks is None else (x + 6, "right")
    texts = "".join(
        f'<text class="{side}" x="{at:.0f}" y="{_y(height) + 4:.1f}">{escape(text)}</text>' for height, text in marks
    )
    head = f'<text class="name" x="{x:.0f}" y="18">{escape(name)}</text>'
    return f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{_y(0):.1f}" y2="{_y(1):.1f}"/>{head}{texts}'
