"""Draw figures as SVG for a page.

Colours are CSS variables of the page (``--ink``, ``--accent``, …), so the figures follow its light or dark scheme, and
text stays text in the page's font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Placeholders for matplotlib; CSS variables replace them in the SVG.
C = {
    "ink": "#010101",
    "muted": "#010102",
    "rule": "#010103",
    "accent": "#010104",
    "default": "#010105",
    "level": "#010106",
    "knn": "#010107",
    "bad": "#010108",
}

_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in a name is no formula
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


RIGHT, BOTTOM = 14, 44  # margins in CSS pixels


def svg(
    name: str,
    draw: Callable[[Axes], None],
    size: tuple[int, int],
    top: int = 10,
    left: int = 58,
    picture: str = "",
) -> Markup:
    """A figure as an ``<svg>`` element with ids of its own.

    Args:
        name: unique on the page.
        draw: fills the axes.
        size: width and height in CSS pixels.
        top, left: margins in CSS pixels, for a legend above and labels beside the axes.
        picture: data URL of an image that fills the axes, in the background.
    """
    width, height = size
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width / 72, height / 72))
        # Margins by hand: matplotlib's automatic layouts draw everything twice.
        box = (left / width, BOTTOM / height, 1 - (left + RIGHT) / width, 1 - (top + BOTTOM) / height)
        draw(figure.add_axes(box))
        buffer = io.StringIO()
        metadata = {"Date": None, "Creator": None}
        figure.savefig(buffer, format="svg", dpi=144, transparent=True, metadata=metadata)  # dpi of pictures in it
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower())
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    for variable, colour in C.items():
        text = text.replace(colour, f"var(--{variable})")
    head, body = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    if picture:
        place = f'x="{left}" y="{top}" width="{width - left - RIGHT}" height="{height - top - BOTTOM}"'
        body = f'<image {place} preserveAspectRatio="none" href="{picture}"/>{body}'
    return Markup(f'{head} role="img" aria-label="{escape(name)}">{body}')
