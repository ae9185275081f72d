"""Parallel coordinates: a vertical axis per searched key and one for the objective, a line per complete trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd

from asd_ray.report.figures.search import Scale, Space
from asd_ray.report.tables import UNDEFINED, percent, plain

WIDTH, HEIGHT = 920, 320
LEFT, RIGHT, TOP, BOTTOM = 60, 60, 34, 34
ABSENT = -0.07
"""Where, below a key's axis, the lines of trials run that have no value of it."""


def parallel_coordinates(trials: pd.DataFrame, keys: Mapping[str, str], space: Space, best: int | None) -> str:
    """An ``<svg>`` whose lines tell their trial on hover (``<title>``, and the page's script writes it below).

    Lines are the stronger the higher their objective; the best trial's is drawn last. A line runs below the axis of a
    key that its trial has no value of.

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
    absent = [not np.isfinite(height).all() for height in heights]
    heights = [np.where(np.isfinite(height), height, ABSENT) for height in heights]
    places = np.linspace(LEFT, WIDTH - RIGHT, len(heights))
    lines = []
    for number, (_, row) in enumerate(complete.iterrows()):
        points = " ".join(f"{x:.0f},{_y(height[number]):.1f}" for x, height in zip(places, heights, strict=True))
        text = ", ".join(f"{name} {plain(row[key])}" for key, name in keys.items())
        title = escape(f"trial {row['trial']}: objective {percent(row['objective'])}, {text}")
        strength = 0.05 + 0.7 * ((number + 1) / len(complete)) ** (2 if len(complete) < 50 else 6)
        look = 'class="best"' if row["trial"] == best else f'style="opacity:{strength:.2f}"'
        lines.append((row["trial"] == best, f'<polyline {look} points="{points}"><title>{title}</title></polyline>'))
    drawn = [line for _, line in sorted(lines, key=lambda pair: pair[0])]
    marks = [
        [*zip(*scale.ticks(), strict=True)] + [(ABSENT, UNDEFINED)] * gap
        for scale, gap in zip(scales.values(), absent, strict=False)
    ]
    axes = [_axis(x, name, ticks) for x, name, ticks in zip(places, keys.values(), marks, strict=False)]
    axes.append(_axis(places[-1], "objective", [(height, percent(tick)) for height, tick in _ends(values)], "right"))
    return (
        f'<svg class="parallel" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="parallel coordinates">'
        f"{''.join(drawn)}{''.join(axes)}</svg>"
    )


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _ends(values: pd.Series) -> list[tuple[float, float]]:
    low, high = values.min(), values.max()
    return [(0.5, low)] if low == high else [(0.0, low), (0.5, (low + high) / 2), (1.0, high)]


def _axis(x: float, name: str, ticks: Sequence[tuple[float, str]], side: str = "left") -> str:
    """An axis with its ticks, (height, text), at one of its sides."""
    at = x - 6 if side == "left" else x + 6
    texts = "".join(
        f'<text class="{side}" x="{at:.0f}" y="{_y(height) + 4:.1f}">{escape(text)}</text>' for height, text in ticks
    )
    head = f'<text class="name" x="{x:.0f}" y="18">{escape(name)}</text>'
    return f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{_y(0):.1f}" y2="{_y(1):.1f}"/>{head}{texts}'
