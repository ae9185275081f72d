"""Building blocks of synthetic sound: shafts, tones, impacts, noise, resonances, rooms and the factory around.

Legend: N samples of a clip, F = N // 2 + 1 frequencies of its spectrum, M modes of a body, K harmonics of a shaft.

Filters are products of spectra and therefore circular: sound that decays beyond the end of a clip continues at its
start, as if the machine had been running before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.random import Generator
from numpy.typing import NDArray

Signal = NDArray[np.float32]  # (N,)
Spectrum = NDArray[np.complex64]  # (F,)
Phase = NDArray[np.float64]  # (N,) in revolutions
Real = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Time grid of a clip: ``rate`` in Hz, ``samples`` N."""

    rate: int
    samples: int

    @property
    def seconds(self) -> float:
        return self.samples / self.rate


@lru_cache(maxsize=4)
def time(grid: Grid) -> Real:
    """(N,) times in s."""
    return np.arange(grid.samples) / grid.rate


@lru_cache(maxsize=4)
def frequency(grid: Grid) -> Signal:
    """(F,) frequencies in Hz."""
    return scipy.fft.rfftfreq(grid.samples, 1 / grid.rate).astype(np.float32)


def to_spectrum(signal: NDArray) -> Spectrum:
    """Signal (N,) -> spectrum (F,)."""
    return scipy.fft.rfft(signal.astype(np.float32, copy=False))


def to_signal(spectrum: NDArray, grid: Grid) -> Signal:
    """Spectrum (F,) -> signal (N,)."""
    return scipy.fft.irfft(spectrum.astype(np.complex64, copy=False), grid.samples)


def power(spectrum: NDArray, grid: Grid, low: float = 0.0, high: float = np.inf) -> float:
    """Mean square of a sound between two frequencies in Hz (Parseval), without the constant part."""
    first, last = max(1, int(np.ceil(low * grid.seconds))), int(min(high, grid.rate) * grid.seconds) + 1
    parts = spectrum[first:last].astype(np.complex64, copy=False).view(np.float32)
    return 2 * float(np.sum(parts * parts)) / grid.samples**2  # not np.vdot: BLAS would start threads


def rms(spectrum: NDArray, grid: Grid, low: float = 0.0, high: float = np.inf) -> float:
    """Square root of ``power``."""
    return math.sqrt(power(spectrum, grid, low, high))


# --- Time ------------------------------------------------------------------------------------------------------------


def drift(grid: Grid, rng: Generator, seconds: float) -> Signal:
    """(N,) random curve of about zero mean and unit variance that changes within ``seconds``."""
    points = int(np.ceil(grid.seconds / seconds)) + 2
    curve = np.interp(time(grid), (np.arange(points) - rng.uniform()) * seconds, rng.standard_normal(points))
    return curve.astype(np.float32)


def shaft_angle(grid: Grid, rng: Generator, hertz: float | Signal) -> Phase:
    """(N,) angle of a shaft in revolutions from a random start; ``hertz`` is its speed, constant or (N,)."""
    speed = np.broadcast_to(np.asarray(hertz, float) / grid.rate, (grid.samples,))
    return rng.uniform() + np.cumsum(speed)


def turn_fraction(phase: Phase) -> Signal:
    """(N,) position within a revolution, 0 to 1."""
    return (phase - np.floor(phase)).astype(np.float32)


def tones(phase: Phase, amplitudes: Real, angles: Real, grid: Grid) -> Signal:
    """(N,) Σ_k amplitudes[k-1] · cos(2π (k · phase + angles[k-1])), without harmonics that would alias.

    A table of one revolution is read at the shaft's angle, so the number of harmonics K costs nothing.
    """
    fastest = float(np.max(np.diff(phase[::32]))) / 32
    kept = min(len(amplitudes), int(0.48 / max(fastest, 1e-9)))
    if kept <= 4:  # a few cosines are faster than a table
        angle = np.float32(2 * np.pi) * turn_fraction(phase)
        pairs = zip(amplitudes[:kept], angles[:kept], strict=True)
        waves = (np.float32(a) * np.cos(k * angle + np.float32(2 * np.pi * b)) for k, (a, b) in enumerate(pairs, 1))
        return sum(waves, np.zeros(grid.samples, np.float32))
    size = 1 << int(np.ceil(np.log2(32 * max(kept, 1))))
    line = np.zeros(size // 2 + 1, complex)
    line[1 : kept + 1] = amplitudes[:kept] * np.exp(2j * np.pi * angles[:kept]) * size / 2
    table = scipy.fft.irfft(line, size).astype(np.float32)
    table = np.append(table, table[:2])  # an angle may round to a whole turn
    at = turn_fraction(phase) * np.float32(size)
    index = at.astype(np.int32)
    low = table[index]
    return low + (at - index) * (table[index + 1] - low)


def passing_times(phase: Phase, order: float, grid: Grid, offset: float = 0.0) -> Real:
    """Times in s when ``order · phase + offset`` passes a whole number: impacts of a defect on a shaft."""
    angle = order * phase + offset
    return np.interp(np.arange(np.ceil(angle[0]), angle[-1]), angle, time(grid))


def poisson_times(grid: Grid, rng: Generator, per_second: float) -> Real:
    """Times in s of independent random events (a Poisson process)."""
    return np.sort(rng.uniform(0, grid.seconds, rng.poisson(per_second * grid.seconds)))


def impulses(grid: Grid, times: Real, weights: Real | float = 1.0) -> Signal:
    """(N,) an impulse of the given weight at every time inside the clip."""
    at = times * grid.rate
    index = np.floor(at).astype(np.int64)
    inside = (index >= 0) & (index < grid.samples - 1)
    weights = np.broadcast_to(weights, times.shape)[inside]
    index, fraction = index[inside], (at - index)[inside]
    early = np.bincount(index, weights * (1 - fraction), grid.samples)
    return (early + np.bincount(index + 1, weights * fraction, grid.samples)).astype(np.float32)


def pulses(grid: Grid, times: Real, weights: Real | float, rise: float, fall: float) -> Signal:
    """(N,) envelope that rises to about the weight at every time and decays; ``rise`` and ``fall`` in s."""
    poles = lowpass(grid, 1 / (2 * np.pi * rise)) * lowpass(grid, 1 / (2 * np.pi * fall))
    shape = poles * (fall * grid.rate)
    return np.maximum(to_signal(to_spectrum(impulses(grid, times, weights)) * shape, grid), 0)


def strikes(grid: Grid, rng: Generator, times: Real, weights: Real | float, contact: float) -> Spectrum:
    """(F,) knocks of rough surfaces: noise bursts of ``contact`` s, about as strong as impulses of their weights."""
    burst = white(grid, rng) * pulses(grid, times, weights, contact / 10, contact)
    return to_spectrum(burst) * math.sqrt(2 / (contact * grid.rate))


def hum(grid: Grid, rng: Generator, hertz: float, amplitudes: Real) -> Spectrum:
    """(F,) steady mains harmonics, each with a random phase."""
    spectrum = np.zeros(grid.samples // 2 + 1, np.complex64)
    lines = np.arange(1, len(amplitudes) + 1) * hertz * grid.seconds
    kept = lines < len(spectrum) - 1
    spectrum[np.round(lines[kept]).astype(int)] = (
        amplitudes[kept] * np.exp(2j * np.pi * rng.uniform(size=kept.sum())) * grid.samples / 2
    )
    return spectrum


def white(grid: Grid, rng: Generator) -> Signal:
    """(N,) white noise of unit variance."""
    return rng.standard_normal(grid.samples, dtype=np.float32)


# --- Frequency -------------------------------------------------------------------------------------------------------


def band(grid: Grid, low: float, high: float, order: int = 2) -> Signal:
    """(F,) magnitude of a Butterworth band-pass; corners in Hz."""
    f = frequency(grid)
    x = (f / low) ** (2 * order)
    return np.sqrt(x / (1 + x) / (1 + (f / high) ** (2 * order))).astype(np.float32)


def lowpass(grid: Grid, corner: float) -> Spectrum:
    """(F,) first-order low-pass; corner in Hz."""
    return 1 / (1 + np.complex64(1j / corner) * frequency(grid))


def slope(grid: Grid, corner: float, db_per_octave: float) -> Signal:
    """(F,) magnitude that is flat below ``corner`` in Hz and rises or falls (negative) above."""
    square_gains = 20 * math.log10(4)  # dB per octave of f²
    return ((1 + (frequency(grid) / corner) ** 2) ** (db_per_octave / square_gains)).astype(np.float32)


@dataclass(frozen=True)
class Body:
    """Resonances of a casing, frame or pipe: M modes with frequency in Hz, Q and peak gain."""

    hertz: tuple[float, ...]
    quality: tuple[float, ...]
    gain: tuple[float, ...]

    @classmethod
    def draw(cls, rng: Generator, modes: int, low: float, high: float, quality: tuple[float, float]) -> Body:
        """Draw modes: even shares of the logarithmic frequency axis, one mode at random in each."""
        places = (np.arange(modes) + rng.uniform(size=modes)) / modes
        return cls(
            tuple(low * (high / low) ** places),
            tuple(rng.uniform(*quality, modes)),
            tuple(rng.choice([-1.0, 1.0], modes) * 10 ** rng.uniform(-0.5, 0.5, modes)),
        )


@lru_cache(maxsize=64)
def response(body: Body, grid: Grid) -> Spectrum:
    """(F,) transfer function of a body: the sum of its modes (second-order resonators, peak ``gain``)."""
    f = frequency(grid)
    total = np.zeros(len(f), np.complex64)
    for hertz, quality, gain in zip(body.hertz, body.quality, body.gain, strict=True):
        r = f / hertz
        total += np.complex64(1j * gain / quality) / (1 - r**2 + np.complex64(1j / quality) * r)
    return total


@lru_cache(maxsize=32)
def room(seed: int, seconds: float, level: float, grid: Grid) -> Spectrum:
    """(F,) direct sound plus a diffuse tail of ``level`` times its amplitude that falls by 60 dB in ``seconds``."""
    length = min(grid.samples, max(2, int(seconds * grid.rate)))
    tail = np.random.default_rng(seed).standard_normal(length) * 1000.0 ** -(np.arange(length) / length)
    tail *= level / math.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return scipy.fft.rfft(tail.astype(np.float32), grid.samples)


@lru_cache(maxsize=32)
def microphone(seed: int, grid: Grid) -> Signal:
    """(F,) magnitude of one microphone at its place: no infrasound, a tilt, two broad bumps."""
    rng = np.random.default_rng(seed)
    octave = np.log2(np.maximum(frequency(grid), 20) / 1000)
    decibels = rng.normal(0, 0.7) * octave
    for _ in range(2):
        decibels = decibels + rng.normal(0, 2) * np.exp(-(((octave - rng.uniform(-3, 3)) / 0.6) ** 2))
    return (10 ** (decibels / 20) * band(grid, 45, 0.475 * grid.rate, 3)).astype(np.float32)


def reflection(grid: Grid, rng: Generator) -> Spectrum:
    """(F,) reflection from a surface near the microphone, a little different in every clip."""
    delay, loss = rng.uniform(0.0003, 0.003), rng.uniform(0.02, 0.1)
    return 1 + np.complex64(loss) * np.exp(np.complex64(-2j * np.pi * delay) * frequency(grid))


def factory(grid: Grid, site: Generator, rng: Generator) -> Spectrum:
    """(F,) noise of a factory hall: swelling rumble and air, mains hum, occasional clangs.

    ``site`` draws the properties of the place, ``rng`` those of the clip.
    """
    air = slope(grid, site.uniform(80, 250), site.uniform(-7, -4) + rng.normal(0, 0.4))
    hall = Body.draw(site, 4, 150, 3000, (1.0, 3.0))
    swell = 10 ** (drift(grid, rng, 1.5) * site.uniform(0.03, 0.1))
    spectrum = to_spectrum(white(grid, rng) * swell) * air * (1 + 0.5 * np.abs(response(hall, grid)))
    scale = rms(spectrum, grid)
    mains = 10 ** site.uniform(-2, -1, 8) * site.integers(0, 2, 8)
    spectrum = spectrum + scale * hum(grid, rng, 50.0, mains)
    clang = Body.draw(site, 5, 500, 5000, (30, 90))
    times = poisson_times(grid, rng, site.uniform(0.2, 1.0))
    if len(times):
        hits = to_spectrum(impulses(grid, times, rng.lognormal(0, 0.6, len(times)))) * response(clang, grid)
        hits *= scale * rng.uniform(0.1, 0.4) / rms(hits, grid)
        spectrum = spectrum + hits
    return spectrum
