from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.patches import Rectangle

from asd_ray.config import FeatureConfig
from asd_ray.data.clips import Clip
from asd_ray.explore import bands, pictures
from asd_ray.explore.mel_axis import mel_points
from asd_ray.explore.spectra import Spectra
from asd_ray.explore.views import View

FEATURES = FeatureConfig(n_mels=32)
RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((32, FEATURES.frames))


def labels(axes: object) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_panel_per_clip_with_its_title_and_one_scale_of_colours(count: int) -> None:
    panels = [pictures.Panel(f"fan 0{n}, normal\nclip_{n}.wav", IMAGE + n) for n in range(count)]
    figure = pictures.spectrograms(panels, FEATURES)
    *drawn, bar = figure.axes
    assert [axes.get_title() for axes in drawn] == [panel.title for panel in panels]
    assert len({axes.images[0].get_clim() for axes in drawn}) == 1
    assert drawn[0].get_xlabel() == "time (s)"
    assert drawn[0].get_ylabel() == "frequency (Hz)"
    assert bar.get_ylabel() == "natural logarithm of mel power"
    decibels = pictures.spectrograms(panels, FeatureConfig(n_mels=32, log="db"))
    assert decibels.axes[-1].get_ylabel() == "mel level (dB)"


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_axes_are_in_seconds_and_hertz(scale: str) -> None:
    features = FeatureConfig(n_mels=32, mel_scale=scale)
    axes = pictures.spectrograms([pictures.Panel("clip", IMAGE)], features).axes[0]
    left, right, bottom, top = axes.images[0].get_extent()
    hop = 512 / 16000
    assert (left, right) == pytest.approx((-hop / 2, 312.5 * hop))  # frame 0 is centred at 0 s
    assert (bottom, top) == (-0.5, 31.5)  # filter m is centred at m
    points = mel_points(features)
    assert {"500", "1,000", "2,000", "8,000"} <= set(labels(axes))
    for place, name in zip(axes.get_yticks(), labels(axes), strict=True):
        hertz = float(name.replace(",", ""))
        below = int(np.floor(place))
        assert points[below + 1] <= hertz <= points[min(below + 2, 33)] + 1e-6


def test_views_show_the_crop_where_it_was_cut_out() -> None:
    view = View("fan 00", 1, IMAGE, "fan 02", IMAGE, 0.25, IMAGE, (0, -78, 32, 469), (4, -10, 20, 200), IMAGE)
    figure = pictures.augmentations([view, view], FEATURES)
    original, other, canvas, crop = figure.axes[:4]
    assert len(figure.axes) == 2 * 4 + 1
    assert "fan 00" in original.get_title()
    assert "fan 02" in other.get_title()
    assert "λ = 0.25" in canvas.get_title()
    hop = 512 / 16000
    assert canvas.get_xlim() == pytest.approx((-78.5 * hop, 390.5 * hop))
    [edge] = [patch for patch in canvas.patches if isinstance(patch, Rectangle)]
    assert edge.get_bbox().extents == pytest.approx((-10.5 * hop, 3.5, 189.5 * hop, 23.5))
    left, right, bottom, top = crop.images[0].get_extent()
    assert (left, bottom, right, top) == pytest.approx(edge.get_bbox().extents)
    assert "0.62 F × 0.64 T" in crop.get_title()


def test_mean_spectra_give_every_id_the_same_weight() -> None:
    layout = [
        ("00", "train", "normal", 4),
        ("00", "test", "normal", 9),
        ("00", "test", "anomaly", 3),
        ("02", "train", "normal", 2),
        ("02", "test", "normal", 2),
        ("02", "test", "anomaly", 8),
        ("04", "test", "normal", 5),  # no anomalies: in no line
    ]
    clips = [
        Clip(f"fan/{split}/{label}_{i}_{n}.wav", "fan", i, split, label)  # type: ignore[arg-type]
        for i, split, label, count in layout
        for n in range(count)
    ]
    spectra = Spectra(clips, 10 ** RNG.uniform(-6, 0, (len(clips), 32)), FEATURES)
    figure = pictures.mean_spectra(spectra, bands.analyse(spectra), synthetic=True)
    spectrum, distance, areas = figure.axes
    assert spectrum.get_title() == "fan (synthetic)"

    def members(machine_id: str, split: str, label: str) -> np.ndarray:
        return spectra.decibels[[(c.id, c.split, c.label) == (machine_id, split, label) for c in clips]]

    lines = {line.get_label(): line.get_ydata() for line in spectrum.lines if not line.get_label().startswith("_")}
    away = {line.get_label(): line.get_ydata() for line in distance.lines if not line.get_label().startswith("_")}
    assert list(lines) == ["normal, training", "normal, test", "anomalous, test"]
    for (split, label), (name, *_) in pictures.LINES.items():
        means = [members(i, split, label).mean(axis=0) for i in ("00", "02")]
        np.testing.assert_allclose(lines[name], np.mean(means, axis=0))
        usual = np.mean([members(i, "train", "normal").mean(axis=0) for i in ("00", "02")], axis=0)
        np.testing.assert_allclose(away[name], np.mean(means, axis=0) - usual, atol=1e-9)
    drawn = [line for line in areas.lines if line.get_label() == "AUC of unusual shape"]
    table = bands.analyse(spectra)
    expected = table[(table["machine"] == "fan") & (table["id"] == "mean") & (table["band"] > 0)]["shape_either"]
    np.testing.assert_allclose(drawn[0].get_ydata(), expected)


def test_spread_is_over_clips_with_equal_weight_to_ids() -> None:
    values = RNG.standard_normal((6, 3))
    mean, spread = pictures._mean_and_spread(values, ["a", "b", "b", "b", "b", "b"])
    repeated = np.concatenate([np.repeat(values[:1], 5, axis=0), values[1:]])
    np.testing.assert_allclose(mean, repeated.mean(axis=0))
    np.testing.assert_allclose(spread, repeated.std(axis=0))


@pytest.mark.parametrize("suffix", pictures.SUFFIXES)
def test_equal_figures_are_equal_files(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        pictures.save(pictures.spectrograms([pictures.Panel("$fan_00", IMAGE)], FEATURES), tmp_path / (name + suffix))
    first, second = ((tmp_path / (name + suffix)).read_bytes() for name in ("a", "b"))
    assert first == second
    assert len(list(tmp_path.iterdir())) == 2
    if suffix == ".png":
        assert imread(tmp_path / "a.png").shape == (360, 1080, 4)
