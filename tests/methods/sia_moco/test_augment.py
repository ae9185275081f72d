from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from asd_ray.config import FeatureConfig
from asd_ray.errors import ConfigError
from asd_ray.features.log_mel import LogMel
from asd_ray.methods.sia_moco.augment import (
    LogMixupExp,
    PostNorm,
    PreNorm,
    RandomResizeCrop,
    TwoViews,
    first_band_from,
    log_mix,
    mel_centres,
    power_scale,
)

EPS = torch.finfo(torch.float32).eps
values = st.floats(-30, 30, width=32, allow_subnormal=False)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# Pre-norm and post-norm


def test_pre_norm_standardises_in_fp32() -> None:
    x = torch.tensor([[[-4.0, 2.0]]], dtype=torch.float16)
    y = PreNorm(mean=-1.0, std=2.0)(x)
    assert y.dtype == torch.float32
    assert y.tolist() == [[[-1.5, 1.5]]]


def test_pre_norm_of_silence_is_finite() -> None:
    assert PreNorm(mean=-23.0, std=0.0)(torch.full((1, 2, 2), -23.0)).eq(0).all()


def test_post_norm_has_mean_0_and_std_1_over_all_clips_together() -> None:
    x = torch.randn(6, 8, 10) * torch.arange(1.0, 7)[:, None, None] + 3
    y = PostNorm()(x)
    assert y.mean().abs() < 1e-6
    assert y.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    expected = (x - x.mean()) / x.std(correction=0)  # one affine map for the batch, not one per clip
    torch.testing.assert_close(y, expected)


def test_post_norm_of_equal_values_is_finite() -> None:
    assert PostNorm()(torch.full((2, 3, 4), 7.0)).eq(0).all()


# Log-mixup-exp


@settings(deadline=None)
@given(a=values, b=values, ratio=st.floats(0, 0.984375, width=32, allow_subnormal=False))
def test_log_mix_against_float64_and_its_bounds(a: float, b: float, ratio: float) -> None:
    mixed = log_mix(torch.tensor(a), torch.tensor(b), torch.tensor(ratio)).item()
    assert mixed == pytest.approx(math.log((1 - ratio) * math.exp(a) + ratio * math.exp(b)), abs=1e-5, rel=1e-6)
    lower = max(a + math.log1p(-ratio), b + math.log(ratio) if ratio else -math.inf)
    assert lower - 1e-5 <= mixed <= max(a, b) + 1e-5


def test_log_mix_without_ratio_is_the_identity() -> None:
    x, other = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    assert torch.equal(log_mix(x, other, torch.zeros(2, 1, 1)), x)


def test_log_mix_is_symmetric_at_one_half() -> None:
    x, other, half = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.tensor(0.5)
    torch.testing.assert_close(log_mix(x, other, half), log_mix(other, x, half))


def test_log_mix_agrees_with_byol_a_formula_and_its_eps() -> None:
    x, other, ratio = torch.randn(4, 8, 10), torch.randn(4, 8, 10), torch.rand(4, 1, 1) * 0.4
    expected = torch.log((1 - ratio) * x.exp() + ratio * other.exp() + EPS)
    torch.testing.assert_close(log_mix(x, other, ratio), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("log", ["natural", "db"])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_power_scale_mixes_mel_energies(log: str, power: float) -> None:
    """The energies of two recordings before the logarithm, against the mixture of their features."""
    transform = LogMel(FeatureConfig.model_validate({"log": log, "power": power, "seconds": 1.0})).double()
    waveforms, ratio, mean, std = 0.1 * torch.randn(2, 16_000, dtype=torch.float64), 0.3, -9.0, 3.5
    x, other = (transform(waveforms) - mean) / std
    scale = power_scale(log, std, power)
    mixed = log_mix(x, other, torch.tensor(ratio), scale)
    energy, energy_other = transform.mel(waveforms)
    expected = (1 - ratio) * energy + ratio * energy_other
    change = (scale * (mixed - x)).exp()  # of energies
    torch.testing.assert_close(change, expected / energy, rtol=1e-4, atol=0)


def test_an_empty_bank_leaves_clips_unchanged_and_then_holds_them_un_mixed() -> None:
    mix, first, second = LogMixupExp(0.4, 6, 3, 4), torch.randn(4, 3, 4), torch.randn(4, 3, 4)
    assert torch.equal(mix(first), first)
    assert not torch.equal(mix(second), second)
    stored = mix.bank.items.roll(-int(mix.bank.pointer), dims=0)
    assert torch.equal(stored, torch.cat([first, second])[-6:].half())


def test_alpha_0_is_the_identity() -> None:
    mix, x = LogMixupExp(0.0, 4, 3, 4), torch.randn(4, 3, 4)
    mix(x)
    assert torch.equal(mix(x), x)


def test_a_batch_larger_than_the_bank() -> None:
    mix, x = LogMixupExp(0.4, 3, 2, 2), torch.randn(8, 2, 2)
    mix(x)
    assert torch.equal(mix.bank.items.roll(-int(mix.bank.pointer), dims=0), x[-3:].half())
    assert mix(x).isfinite().all()


def test_ratio_is_uniform_to_alpha_per_clip_and_partners_are_uniform_over_what_is_stored() -> None:
    alpha, stored, draws = 0.4, 5, 4000
    mix = LogMixupExp(alpha, 16, 2, 1)
    # Band 0 of every stored clip is 1 and tells λ; band 1 is the clip's number and, with λ, tells which one was taken.
    mix.bank.push(torch.stack([torch.ones(stored), torch.arange(stored)], dim=1)[..., None])
    mixed = mix(torch.zeros(draws, 2, 1)).double().exp()[..., 0]
    ratio = (mixed[:, 0] - 1) / (math.e - 1)
    assert stats.kstest(ratio.numpy() / alpha, "uniform").pvalue > 0.01
    clear = ratio > 0.01
    partner = ((mixed[clear, 1] - (1 - ratio[clear])) / ratio[clear]).log()
    assert (partner - partner.round()).abs().max() < 1e-2
    counts = torch.bincount(partner.round().long(), minlength=16)
    assert counts[stored:].sum() == 0
    assert stats.chisquare(counts[:stored].numpy()).pvalue > 0.01


def test_bands_below_the_first_stay_un_mixed() -> None:
    mix, x = LogMixupExp(0.4, 4, 6, 5, first_band=4), torch.randn(4, 6, 5)
    mix(x)
    other = torch.randn(4, 6, 5)
    mixed = mix(other)
    assert torch.equal(mixed[:, :4], other[:, :4])
    assert (mixed[:, 4:] != other[:, 4:]).all()


@pytest.mark.parametrize("mel_scale", ["htk", "slaney"])
@pytest.mark.parametrize(("f_min", "f_max"), [(0.0, None), (50.0, 7800.0)])
def test_mel_centres_are_evenly_spaced_in_mel(mel_scale: str, f_min: float, f_max: float | None) -> None:
    def mel(hz: np.ndarray) -> np.ndarray:
        if mel_scale == "htk":
            return 2595 * np.log10(1 + hz / 700)
        return np.where(hz < 1000, 3 * hz / 200, 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / math.log(6.4))

    config = FeatureConfig.model_validate({"mel_scale": mel_scale, "f_min": f_min, "f_max": f_max})
    edges = mel(np.array([f_min, f_max or 8000]))
    expected = np.linspace(*edges, 128 + 2)[1:-1]
    half_hertz = mel(mel_centres(config.model_dump()).double().numpy()[:, None] + [-0.51, 0.51])
    assert (half_hertz[:, 0] < expected).all()
    assert (expected < half_hertz[:, 1]).all()


def test_a_tone_is_loudest_in_the_band_that_its_frequency_says() -> None:
    config = FeatureConfig(n_fft=4096, win_length=4096)
    time = torch.arange(160_000) / 16_000
    for hz in (1500, 3000, 6000):
        log_mel = LogMel(config)((0.1 * torch.sin(2 * math.pi * hz * time))[None])[0].mean(dim=1)
        band = first_band_from(config.model_dump(), hz)
        assert int(log_mel.argmax()) in (band - 1, band)


def test_the_first_band_from_a_frequency() -> None:
    features = FeatureConfig().model_dump()
    centres = mel_centres(features)
    assert first_band_from(features, 0) == 0
    for band in (1, 64, 127):
        assert first_band_from(features, float(centres[band])) == band
        assert first_band_from(features, float(centres[band]) - 0.5) == band
    with pytest.raises(ConfigError, match=r"band_from_hz: no mel band is centred at 7900 Hz .* highest is at 7809 Hz"):
        first_band_from(features, 7900)


# Random resize crop


class RecordedCrop(RandomResizeCrop):
    """Remembers the crops that it drew: start and length along each axis."""

    def crops(self, *args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = super().crops(*args)
        self.drawn = [*getattr(self, "drawn", []), drawn]
        return drawn


def slow_resize_crop(crop: RecordedCrop, x: torch.Tensor) -> torch.Tensor:
    """Clip by clip: paste on a canvas of zeros, cut out, torch's own bicubic interpolation."""
    bands, frames = x.shape[1:]
    height, width = int(crop.canvas[0] * bands), int(crop.canvas[1] * frames)
    top, left = (height - bands) // 2, (width - frames) // 2
    (i, h), (j, w) = crop.drawn
    clips = []
    for number, clip in enumerate(x):
        canvas = torch.zeros(height, width)
        canvas[top : top + bands, left : left + frames] = clip
        cut = canvas[i[number] :, j[number] :][: h[number], : w[number]]
        assert cut.shape == (h[number], w[number])  # no crop leaves the canvas
        clips.append(nnf.interpolate(cut[None, None], (bands, frames), mode="bicubic", align_corners=True)[0, 0])
    return torch.stack(clips)


@settings(deadline=None, max_examples=60)
@given(
    bands=st.integers(1, 20),
    frames=st.integers(1, 30),
    low=st.floats(0.1, 1.5),
    width=st.floats(0, 1),
    canvas=st.tuples(st.floats(1, 2), st.floats(1, 2)),
    seed=st.integers(0, 2**31),
)
def test_random_resize_crop_equals_interpolating_clip_by_clip(
    bands: int, frames: int, low: float, width: float, canvas: tuple[float, float], seed: int
) -> None:
    torch.manual_seed(seed)
    crop, x = RecordedCrop((low, low + width), canvas), torch.randn(3, bands, frames)
    torch.testing.assert_close(crop(x), slow_resize_crop(crop, x), atol=1e-4, rtol=0)


def test_random_resize_crop_equals_interpolating_at_the_papers_shape() -> None:
    crop, x = RecordedCrop(), torch.randn(8, 128, 313)
    y = crop(x)
    assert y.shape == x.shape
    torch.testing.assert_close(y, slow_resize_crop(crop, x), atol=1e-4, rtol=0)


def test_statistics_of_crops_at_the_papers_shape() -> None:
    crop, cpu, draws = RandomResizeCrop(), torch.device("cpu"), 100_000
    start, height = crop.crops(draws, 128, 128, cpu)
    assert (height == 128).float().mean().item() == pytest.approx(0.556, abs=0.01)
    assert (height.min(), height.max()) == (76, 128)
    assert (start + height).max() == 128
    left, width = crop.crops(draws, 313, 469, cpu)
    assert (width.min(), width.max()) == (187, 469)
    places = left[width == 400]  # 70 places, both ends included
    assert (places.min(), places.max()) == (0, 69)
    assert stats.chisquare(torch.bincount(places).numpy()).pvalue > 0.01


def test_the_mean_stays_the_mean_and_a_constant_a_constant() -> None:
    assert RandomResizeCrop()(torch.zeros(4, 16, 20)).eq(0).all()
    constant = torch.full((4, 16, 20), 3.0)
    torch.testing.assert_close(RandomResizeCrop(canvas=(1.0, 1.0))(constant), constant)
    assert RandomResizeCrop((1.5, 1.5))(constant)[:, :, [0, -1]].eq(0).all()  # padding left and right


def test_a_crop_of_the_whole_clip_is_the_identity() -> None:
    x = torch.randn(3, 16, 21)
    assert torch.equal(RandomResizeCrop((1.0, 1.0), (1.0, 1.0))(x), x)


def test_crop_settings_that_make_no_sense() -> None:
    with pytest.raises(
        ConfigError, match=r"method.pretrain.crop_scale: 0 < low <= high must hold, but got \[1.5, 0.6\]"
    ):
        RandomResizeCrop((1.5, 0.6))
    with pytest.raises(
        ConfigError, match=r"method.pretrain.canvas: both multiples must be above 0, but got \[1.0, 0\]"
    ):
        RandomResizeCrop(canvas=(1.0, 0))


# Both views


def two_views(bank_size: int = 64) -> TwoViews:
    return TwoViews(PreNorm(-5.0, 3.0), LogMixupExp(0.4, bank_size, 16, 20), RandomResizeCrop())


def test_views_differ_keep_their_shape_and_carry_no_gradient() -> None:
    views, x = two_views(), (torch.randn(4, 16, 20) * 3 - 5).half().requires_grad_()
    first, second = views(x)
    assert first.shape == second.shape == x.shape
    assert first.dtype == second.dtype == torch.float32
    assert not torch.equal(first, second)
    assert not first.requires_grad
    both = torch.cat([first, second])
    assert both.mean().abs() < 1e-5
    assert both.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_each_clip_enters_the_bank_with_both_views() -> None:
    views, x = two_views(), torch.randn(4, 16, 20)
    views(x)
    normed = views.pre_norm(x).half()
    assert int(views.mix.bank.count) == 8
    assert torch.equal(views.mix.bank.items[:8], torch.cat([normed, normed]))


def test_the_same_seed_gives_the_same_views() -> None:
    x, drawn = torch.randn(4, 16, 20), []
    for _ in range(2):
        views = two_views()
        torch.manual_seed(7)
        views(x)
        drawn.append(torch.cat(views(x)))
    assert torch.equal(*drawn)


def test_repr_names_the_parameters() -> None:
    text = repr(two_views())
    for expected in ("mean=-5, std=3", "alpha=0.4", "scale=(0.6, 1.5), canvas=(1.0, 1.5)", "size=64"):
        assert expected in text
