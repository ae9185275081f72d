"""Draw spectrograms of clips, their augmented views, and a data set's mean spectra.

Legend: F mel bands, T frames. Frequency axes are in mel, as the features are, and labelled in Hz.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from asd_ray.config import FeatureConfig
from asd_ray.explore.mel_axis import TICKS, Real, band_edges, mel_position
from asd_ray.explore.spectra import Spectra
from asd_ray.explore.views import View
from asd_ray.files import write_atomically

SUFFIXES = (".png", ".svg", ".pdf")
LINES = {  # split, label -> name, colour (safe for colour-blind readers), line
    ("train", "normal"): ("normal, training", "#777777", (0, (4, 2))),
    ("test", "normal"): ("normal, test", "#0072b2", "-"),
    ("test", "anomaly"): ("anomalous, test", "#d55e00", "-"),
}
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "text.parse_math": False,  # a dollar sign in a name is no formula
    "svg.hashsalt": "asd_ray",
    "figure.dpi": 120,
    "savefig.dpi": 120,
}


@dataclass(frozen=True)
class Panel:
    """A clip's Log-Mel features (F, T) under a title."""

    title: str
    log_mel: NDArray[np.floating]


def spectrograms(panels: Sequence[Panel], features: FeatureConfig) -> Figure:
    """Draw one panel per clip with a common colour scale."""
    columns = 1 if len(panels) <= 3 else 2
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=((9.0, 12.0)[columns - 1], 0.5 + 2.5 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        colours = _colours([panel.log_mel for panel in panels])
        for axes, panel in zip(grid.flat, panels, strict=False):
            image = _spectrogram(axes, panel.log_mel, features, colours)
            axes.set_title(panel.title)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        drawn = list(grid.flat[: len(panels)])
        figure.colorbar(image, ax=drawn, label=_unit(features), fraction=0.05, pad=0.01, aspect=12 * rows)
    return figure


def augmentations(views: Sequence[View], features: FeatureConfig) -> Figure:
    """Draw a row per view: the clip, the background clip, their mixture on the canvas with the crop, and the crop."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(15, 0.5 + 2.6 * len(views)), layout="constrained")
        grid = figure.subplots(len(views), 4, squeeze=False, width_ratios=[1, 1, 1.35, 1])
        colours = _colours([image for view in views for image in (view.original, view.other)])
        for (original, other, canvas, crop), view in zip(grid, views, strict=True):
            _spectrogram(original, view.original, features, colours)
            original.set_title(f"{view.title}\nview {view.number}: pre-normed")
            _spectrogram(other, view.other, features, colours)
            other.set_title(f"mixed with\n{view.other_title}")
            _spectrogram(canvas, view.mixed, features, colours)
            low, left, height, width = view.canvas
            canvas.set(xlim=_seconds([left, left + width], features), ylim=(low - 0.5, low + height - 0.5))
            canvas.set_facecolor(matplotlib.colormaps["magma"](colours(0.0)))  # the canvas outside of the clip
            low, left, height, width = view.crop
            start, stop = _seconds([left, left + width], features)
            corner, size = (start, low - 0.5), (stop - start, height)
            canvas.add_patch(
                Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=2, clip_on=False, zorder=5)
            )
            canvas.set_title(f"after log-mixup-exp, λ = {view.ratio:.2f}\non the canvas, with the crop")
            image = _spectrogram(crop, view.cropped, features, colours, corner=(low, left), size=(height, width))
            share = f"{height / view.mixed.shape[0]:.2f} F × {width / view.mixed.shape[1]:.2f} T"
            crop.set_title(f"after Random Resize Crop\n{share}, stretched to F × T")
        label = "pre-normed Log-Mel (0 is the mean)"
        figure.colorbar(image, ax=grid, label=label, fraction=0.04, pad=0.01, aspect=12 * len(views))
    return figure


def mean_spectra(spectra: Spectra, table: pd.DataFrame, synthetic: bool) -> Figure:
    """Draw one panel per machine: spectra, their difference from the ID's training mean, and the AUC of the bands.

    Lines are means, areas are standard deviations. Only IDs with normal and anomalous test clips are shown; all have
    equal weights.

    Args:
        spectra: of training clips and labelled test clips.
        table: ``bands.analyse`` of the spectra.
        synthetic: mark the titles as synthetic.
    """
    machines = sorted({clip.machine for clip in spectra.clips})
    features, levels = spectra.features, spectra.decibels
    clips = pd.DataFrame([(c.machine, c.id, c.split, c.label) for c in spectra.clips])
    clips.columns = pd.Index(["machine", "id", "split", "label"])
    columns = min(2, len(machines))
    rows = math.ceil(len(machines) / columns)
    with matplotlib.rc_context({**_STYLE, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(6.5 * columns, 0.6 + 5.4 * rows), layout="constrained")
        panels = figure.subfigures(rows, columns, squeeze=False)
        for machine, panel in zip(machines, panels.flat, strict=False):
            spectrum, distance, areas = panel.subplots(3, 1, sharex=True, height_ratios=[3, 2, 1.6])
            own = clips[clips["machine"] == machine]
            _mean_lines(spectrum, own, levels)
            _mean_lines(distance, own, levels - _usual(own, levels))
            means = table[(table["machine"] == machine) & (table["id"] == "mean") & (table["fault"] == "")]
            _auc_lines(areas, means, features)
            for axes in (spectrum, distance, areas):
                for edge in mel_position(band_edges(features)[1:-1], features):
                    axes.axvline(edge, color="#dddddd", linewidth=0.7, zorder=0)
            _mel_ticks(areas, features, "x")
            spectrum.set(title=machine + " (synthetic)" * synthetic, ylabel="mel spectrum (dB)")
            distance.set(ylabel="against training (dB)")
            areas.set(xlabel="frequency (Hz)", ylabel="AUC", ylim=(0, 1), xlim=(-0.5, features.n_mels - 0.5))
        handles = [*spectrum.get_legend_handles_labels()[0], *areas.get_legend_handles_labels()[0]]
        figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure atomically in the format of the path's ending; equal figures give equal files."""
    kind = path.suffix.lower().removeprefix(".")
    metadata: dict[str, Any] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    with matplotlib.rc_context(_STYLE):
        write_atomically(path, lambda beside: figure.savefig(beside, format=kind, metadata=metadata))


# --- Axes ------------------------------------------------------------------------------------------------------------


def _spectrogram(
    axes: Axes,
    image: NDArray[np.floating],
    features: FeatureConfig,
    colours: Normalize,
    corner: tuple[int, int] = (0, 0),
    size: tuple[int, int] | None = None,
) -> Any:
    """Draw an image (F, T) over ``size`` bands and frames from ``corner`` on."""
    (low, left), (height, width) = corner, size or image.shape
    left_s, right_s = _seconds([left, left + width], features)
    drawn = axes.imshow(
        image,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="magma",
        norm=colours,
        extent=(left_s, right_s, low - 0.5, low + height - 0.5),
    )
    _mel_ticks(axes, features, "y", low, low + height)
    axes.set(xlabel="time (s)", ylabel="frequency (Hz)")
    return drawn


def _seconds(frames: Sequence[int], features: FeatureConfig) -> tuple[float, ...]:
    """Times of frames' left edges; frame n is centred at n hops."""
    return tuple((frame - 0.5) * features.hop_length / features.sample_rate for frame in frames)


def _mel_ticks(axes: Axes, features: FeatureConfig, which: str, low: int = 0, high: int | None = None) -> None:
    """Label round frequencies on a mel axis of the bands ``low`` to ``high``."""
    high = features.n_mels if high is None else high
    places = mel_position(TICKS, features)
    names = [(place, f"{hertz:,}") for place, hertz in zip(places, TICKS, strict=True)]
    shown: list[tuple[float, str]] = []
    for place, name in names:
        room = (high - low) / 15
        # The upper end of the axis is half a band below the last filter's.
        if low - 0.5 <= place <= high + 0.01 and (not shown or place - shown[-1][0] > room):
            shown.append((min(place, high - 0.5), name))
    getattr(axes, f"set_{which}ticks")([place for place, _ in shown], [name for _, name in shown])


def _colours(images: Sequence[NDArray[np.floating]]) -> Normalize:
    """Make one colour scale without the lowest 1 % (the floor of a low-pass filter) and the top 0.1 %."""
    low = min(float(np.percentile(image, 1)) for image in images)
    high = max(float(np.percentile(image, 99.9)) for image in images)
    return Normalize(low, max(high, low + 1e-6))


def _unit(features: FeatureConfig) -> str:
    what = {1.0: "magnitude", 2.0: "power"}.get(features.power, f"|X|^{features.power:g}")
    return f"natural logarithm of mel {what}" if features.log == "natural" else "mel level (dB)"


def _usual(clips: pd.DataFrame, levels: Real) -> Real:
    """(N, F) mean of each clip's ID over training clips; NaN for IDs without any and for clips not in ``clips``."""
    usual = np.full_like(levels, np.nan)
    for _, members in clips.groupby("id"):
        train = members.index[members["split"] == "train"]
        if len(train):
            usual[members.index] = levels[train].mean(axis=0)
    return usual


def _mean_lines(axes: Axes, clips: pd.DataFrame, values: Real) -> None:
    """Draw lines for training, normal and anomalous clips; IDs without values are left out."""
    known = clips[np.isfinite(values[clips.index]).all(axis=1)]
    test = known[known["split"] == "test"]
    ids = set(test.loc[test["label"] == "normal", "id"]) & set(test.loc[test["label"] == "anomaly", "id"])
    for (split, label), (name, colour, line) in LINES.items():
        chosen = clips[(clips["split"] == split) & (clips["label"] == label) & clips["id"].isin(ids)]
        if len(chosen):
            mean, spread = _mean_and_spread(values[chosen.index], chosen["id"].to_list())
            places = np.arange(len(mean))
            axes.plot(places, mean, color=colour, linestyle=line, linewidth=1.4, label=name)
            axes.fill_between(places, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)


def _mean_and_spread(values: Real, ids: Sequence[str]) -> tuple[Real, Real]:
    """Mean and standard deviation (F,) over clips (N, F), with equal weights of IDs."""
    _, which, counts = np.unique(ids, return_inverse=True, return_counts=True)
    weights = 1 / counts[which] / len(counts)
    mean = weights @ values
    return mean, np.sqrt(weights @ np.square(values - mean))


def _auc_lines(axes: Axes, rows: pd.DataFrame, features: FeatureConfig) -> None:
    bands = rows[rows["band"] > 0].sort_values("band")
    edges = mel_position(band_edges(features), features)
    centres = (edges[1:] + edges[:-1]) / 2
    chance = 2 * float(bands["chance_sd"].to_numpy()[0])
    if np.isfinite(chance):
        axes.axhspan(
            0.5 - chance, 0.5 + chance, color="#999999", alpha=0.2, linewidth=0, label="chance, 19 times of 20"
        )
    for measure, name, colour, marker in (
        ("energy_either", "AUC of unusual energy", "#999999", "s"),
        ("shape_either", "AUC of unusual shape", "black", "o"),
    ):
        axes.plot(centres, bands[measure], color=colour, marker=marker, markersize=4, linewidth=1, label=name)
