"""Interactive figures of the report: plotly figures as data, which the page's script draws.

Colours are CSS variables of the page (``var(--ink)``), which the script replaces by their values, so that the figures
follow the page's light, dark or printed scheme.
"""

from __future__ import annotations

import base64
import gzip
import json
from functools import cache
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

INK, MUTED, RULE, CARD = "var(--ink)", "var(--muted)", "var(--rule)", "var(--card)"
ACCENT, DEFAULT_COLOUR, BAD = "var(--accent)", "var(--default)", "var(--bad)"
SHADES = [[0, RULE], [1, ACCENT]]
"""Colour scale, from weak to strong."""
_AXIS = {
    "gridcolor": RULE,
    "linecolor": RULE,
    "tickfont": {"color": MUTED},
    "title": {"font": {"color": MUTED}},
    "zeroline": False,
    "automargin": True,
    "minorloglabels": "complete",
}
_LAYOUT = {
    "font": {"size": 12, "color": INK},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "margin": {"l": 50, "r": 20, "t": 34, "b": 44},
    "xaxis": _AXIS,
    "yaxis": _AXIS,
    "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
    "hovermode": "closest",
    "hoverlabel": {"bgcolor": CARD, "bordercolor": RULE, "align": "left", "font": {"color": INK}},
    "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": MUTED, "activecolor": ACCENT},
}


def embed(figure: go.Figure | dict[str, Any], name: str, height: int) -> Markup:
    """The figure as HTML: its place in the page, and its data for the script.

    Args:
        figure: of plotly, or its form in JSON.
        name: its description for those who do not see it.
        height: in CSS pixels.
    """
    drawn = figure if isinstance(figure, dict) else figure.to_plotly_json()
    layout = {key: value for key, value in drawn["layout"].items() if key not in ("title", "plot_bgcolor", "legend")}
    layout["template"] = {"layout": _LAYOUT}
    for axis in (layout.get("xaxis", {}), layout.get("yaxis", {})):
        if axis.get("type") == "log":
            axis["dtick"] = "D2"  # 1, 2, 5 of every power of ten
    data = json.loads(to_json_plotly({"data": drawn["data"], "layout": layout}), parse_float=_short)
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return Markup(
        '<div class="plot" role="img" aria-label="{}" style="height: {}px"></div>\n'
        '<script type="application/json">{}</script>'
    ).format(name, height, Markup(text))


@cache
def packed_plotly() -> str:
    """plotly.js for the page, compressed and in base64: 2 MB instead of 4.8 MB; once per process."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _short(number: str) -> float:
    return float(f"{float(number):.6g}")
