"""The building blocks of synthetic sound against slow, obvious references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.data.synthetic import acoustics
from asd_ray.data.synthetic.acoustics import Body, Grid

GRID = Grid(16000, 16000)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_power_is_the_mean_square_and_bands_add_up():
    signal = acoustics.white(GRID, random())
    signal -= signal.mean()
    spectrum = acoustics.to_spectrum(signal)
    assert acoustics.power(spectrum, GRID) == pytest.approx(np.mean(signal**2), rel=1e-3)
    parts = [acoustics.power(spectrum, GRID, low, high) for low, high in ((0, 999), (1000, 2999), (3000, 8000))]
    assert sum(parts) == pytest.approx(acoustics.power(spectrum, GRID), rel=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.floats(5, 300), st.integers(1, 40), st.integers(0, 2**32))
def test_tones_are_the_sum_of_harmonics_below_half_the_rate(hertz, harmonics, seed):
    rng = random(seed)
    phase = acoustics.shaft_angle(GRID, rng, hertz * (1 + 0.01 * acoustics.drift(GRID, rng, 0.5)))
    amplitudes, angles = rng.uniform(0.1, 1, harmonics), rng.uniform(size=harmonics)
    wave = acoustics.tones(phase, amplitudes, angles, GRID)
    kept = min(harmonics, int(0.48 / (np.diff(phase[::32]).max() / 32)))
    slow = sum(amplitudes[k] * np.cos(2 * np.pi * ((k + 1) * phase + angles[k])) for k in range(kept))
    assert np.abs(wave - slow).max() < 0.02 * amplitudes.sum()
    assert np.sqrt(np.mean((wave - slow) ** 2)) < 0.005 * np.sqrt(np.mean(np.square(slow)))


def test_tones_do_not_alias():
    phase = acoustics.shaft_angle(GRID, random(), 1500.0)
    wave = acoustics.to_spectrum(acoustics.tones(phase, np.ones(20), np.zeros(20), GRID))
    lines = np.flatnonzero(np.abs(wave) > 0.1 * np.abs(wave).max())
    assert set(np.round(lines / 1500).astype(int)) == {1, 2, 3, 4, 5}


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-0.5, 1.5), st.floats(0.1, 10)), max_size=20))
def test_impulses_keep_their_weight_and_their_moment(events):
    times, weights = np.array([t for t, _ in events]), np.array([w for _, w in events])
    signal = acoustics.impulses(GRID, times, weights).astype(float)
    index = np.floor(times * GRID.rate)
    inside = (index >= 0) & (index < GRID.samples - 1)
    assert signal.sum() == pytest.approx(weights[inside].sum(), rel=1e-5)
    moment = (acoustics.time(GRID) * signal).sum()
    assert moment == pytest.approx((times * weights)[inside].sum(), rel=1e-4, abs=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.floats(1, 60), st.floats(0.3, 8), st.floats(0, 1))
def test_passages_are_where_the_angle_is_whole(hertz, order, offset):
    phase = acoustics.shaft_angle(GRID, random(1), hertz)
    times = acoustics.passing_times(phase, order, GRID, offset)
    angle = order * np.interp(times, acoustics.time(GRID), phase) + offset
    np.testing.assert_allclose(angle, np.round(angle), atol=1e-6)
    assert len(times) in {int(hertz * order), int(hertz * order) + 1}


def test_a_mode_peaks_at_its_frequency_with_its_gain_and_width():
    hertz, quality, gain = 1000.0, 20.0, 0.7
    magnitude = np.abs(acoustics.response(Body((hertz,), (quality,), (gain,)), GRID))
    assert acoustics.frequency(GRID)[magnitude.argmax()] == pytest.approx(hertz, abs=2)
    assert magnitude.max() == pytest.approx(gain, rel=1e-3)
    above = acoustics.frequency(GRID)[magnitude > gain / np.sqrt(2)]
    assert above[-1] - above[0] == pytest.approx(hertz / quality, abs=2.5)


def test_filters_fall_where_they_should():
    decibels = {
        "band": 20 * np.log10(acoustics.band(GRID, 500, 2000)[[125, 500, 1000, 2000, 7900]] + 1e-12),
        "slope": 20 * np.log10(acoustics.slope(GRID, 100, -6)[[10, 1600, 3200]]),
        "lowpass": 20 * np.log10(np.abs(acoustics.lowpass(GRID, 800)[[8, 800]])),
    }
    np.testing.assert_allclose(decibels["band"], [-24, -3, 0, -3, -24], atol=0.6)
    np.testing.assert_allclose(decibels["slope"], [0, -24, -30], atol=0.2)
    np.testing.assert_allclose(decibels["lowpass"], [0, -3], atol=0.05)


def test_pulses_rise_to_their_weight_and_decay():
    envelope = acoustics.pulses(GRID, np.array([0.2]), 3.0, 0.0005, 0.02)
    assert envelope.max() == pytest.approx(3.0, rel=0.15)
    peak = int(envelope.argmax())
    assert peak / GRID.rate == pytest.approx(0.2, abs=0.003)
    assert envelope[peak + 640] / envelope[peak] == pytest.approx(np.exp(-2), rel=0.05)  # 40 ms on
    assert envelope.min() >= 0


def test_strikes_are_as_strong_as_impulses():
    times = np.linspace(0.05, 0.95, 40)
    struck = acoustics.power(acoustics.strikes(GRID, random(), times, 1.0, 0.004), GRID)
    assert struck == pytest.approx(40 / GRID.samples, rel=0.3)


def test_room_sends_the_direct_sound_first_and_the_tail_at_its_level():
    impulse = acoustics.to_signal(acoustics.room(7, 0.3, 0.5, GRID), GRID)
    assert impulse[0] == pytest.approx(1, abs=1e-4)
    assert np.sqrt(np.sum(impulse[1:] ** 2)) == pytest.approx(0.5, rel=0.05)
    assert np.abs(impulse[int(0.3 * GRID.rate) :]).max() < 1e-5


def test_the_factory_is_the_same_place_for_every_clip():
    def spectrum(site: int, clip: int) -> np.ndarray:
        power = np.abs(acoustics.factory(GRID, random(site), random(clip))) ** 2
        return 10 * np.log10(power[1:].reshape(80, -1).mean(1))

    same = np.std(spectrum(1, 1) - spectrum(1, 2))
    other = np.std(spectrum(1, 1) - spectrum(2, 2))
    assert same < 0.7 * other
