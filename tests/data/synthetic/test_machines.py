"""What the machines' sounds must have in them: their tones and rhythms, their faults, and nothing that differs else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.data.synthetic.acoustics import Grid, band, power, to_signal
from asd_ray.data.synthetic.machines import MACHINES
from asd_ray.data.synthetic.mechanics import Machine, Operation
from asd_ray.data.synthetic.rotating import Fan, Gearbox, Pump, ToyCar
from asd_ray.data.synthetic.strokes import Slider, Valve

GRID = Grid(16000, 16000 * 6)
FAULTS = [(name, fault) for name, machine in MACHINES.items() for fault in machine.faults]
ADDED = [(name, fault) for name, fault in FAULTS if fault != "missing_stroke"]


def machine(name: str, seed: int = 3) -> Machine:
    return MACHINES[name](np.random.default_rng(seed))


def operation(fault: str = "", severity: float = 0.0, seed: int = 0, grid: Grid = GRID, **kwargs: float) -> Operation:
    return Operation(
        grid, np.random.default_rng(seed), np.random.default_rng(1000 + seed), fault=fault, severity=severity, **kwargs
    )


def steady(fault: str = "", severity: float = 0.0) -> tuple[Operation, np.ndarray]:
    """An operation, and the angle of its main shaft per nominal speed in Hz: what a tachometer would say."""
    op = operation(fault, severity)
    return op, operation().shaft(1.0)


def synchronous(signal: np.ndarray, angle: np.ndarray, order: float, low: float, high: float) -> float:
    """How much of a band's squared envelope turns with a shaft, over 0 to 1: its component at an order of the angle."""
    spectrum = np.fft.rfft(signal) * band(GRID, low, high, 4)
    envelope = np.fft.irfft(spectrum) ** 2
    return float(np.abs(np.mean(envelope * np.exp(-2j * np.pi * order * angle))) / np.mean(envelope))


@pytest.mark.parametrize("name", MACHINES)
def test_every_machine_has_low_and_high_faults(name):
    bands = [fault.band for fault in MACHINES[name].faults.values()]
    assert len(bands) >= 4
    assert {"low", "high"} == set(bands)


@pytest.mark.parametrize("name", MACHINES)
def test_a_sound_is_reproducible_and_finite(name):
    first, again = (machine(name).sound(operation()) for _ in range(2))
    assert first.dtype == np.complex64
    assert first.shape == (GRID.samples // 2 + 1,)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("name", MACHINES)
def test_individuals_differ_more_than_their_clips(name):
    def spectrum(individual: int, clip: int) -> np.ndarray:
        power = np.abs(machine(name, individual).sound(operation(seed=clip))) ** 2
        return 10 * np.log10(power[1:].reshape(96, -1).mean(1))

    clips = [np.std(spectrum(i, 0) - spectrum(i, 1)) for i in range(4)]
    individuals = [np.std(spectrum(i, 0) - spectrum(i + 1, 1)) for i in range(4)]
    assert np.mean(individuals) > 1.5 * np.mean(clips)


@pytest.mark.parametrize(("name", "fault"), ADDED)
def test_a_fault_is_as_loud_as_its_severity_says_and_the_only_difference(name, fault):
    declared = MACHINES[name].faults[fault]
    healthy = machine(name).sound(operation())
    levels = []
    for severity in (0.0, 0.5, 1.0):
        difference = machine(name).sound(operation(fault, severity)) - healthy
        levels.append(10 * np.log10(power(difference, GRID, *declared.hertz) / power(healthy, GRID, *declared.hertz)))
    np.testing.assert_allclose(levels, np.linspace(*declared.decibels, 3), atol=0.05)


@pytest.mark.parametrize(("name", "fault"), ADDED)
def test_a_fault_is_heard_in_its_band(name, fault):
    declared = MACHINES[name].faults[fault]
    shares = []
    for seed in range(3):
        difference = machine(name, seed).sound(operation(fault, 1.0)) - machine(name, seed).sound(operation())
        below = power(difference, GRID, 30, 2000) / power(difference, GRID, 30)
        shares.append(below if declared.band == "low" else 1 - below)
    assert np.mean(shares) > 0.6


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(["slider", "valve"]), st.floats(0, 1), st.integers(0, 2**32))
def test_missing_strokes_only_take_away(name, severity, seed):
    healthy = machine(name, seed).sound(operation(seed=seed))
    faulty = machine(name, seed).sound(operation("missing_stroke", severity, seed))
    assert 0.2 < power(faulty, GRID, 60) / power(healthy, GRID, 60) < 1.0


def test_a_more_severe_fault_misses_more_strokes():
    op, worse = operation("missing_stroke", 0.1), operation("missing_stroke", 1.0)
    ratio = [power(machine("valve").sound(o), GRID, 60) for o in (op, worse)]
    assert ratio[1] < ratio[0]


def line(spectrum: np.ndarray, hertz: float) -> float:
    """Power of a narrow band around a frequency over that of its surroundings."""
    near = power(spectrum, GRID, 0.975 * hertz, 1.025 * hertz) / 0.05
    return near / (power(spectrum, GRID, 0.85 * hertz, 1.15 * hertz) / 0.3)


@pytest.mark.parametrize("seed", range(3))
def test_rotating_machines_hum_at_their_blades_vanes_teeth_and_commutator(seed):
    rng = np.random.default_rng(seed)
    fan, pump, gearbox, car = (kind(rng) for kind in (Fan, Pump, Gearbox, ToyCar))
    speeds = {
        fan: fan.hertz * (1 - 0.015) * fan.blades,
        pump: pump.hertz * (1 - 0.01) * pump.vanes,
        gearbox: gearbox.hertz * (1 - 0.01) * gearbox.pinion,
        car: car.hertz * (1 - 0.015) * 3,
    }
    for individual, hertz in speeds.items():
        sound = individual.sound(operation())
        assert max(line(sound, harmonic * hertz) for harmonic in (1, 2, 3)) > 2, type(individual).__name__


def test_speed_moves_the_tones():
    gearbox = machine("gearbox")
    assert isinstance(gearbox, Gearbox)
    mesh = gearbox.hertz * 0.99 * gearbox.pinion
    faster = gearbox.sound(operation(speed=1.1))
    assert line(faster, 1.1 * mesh) > 2 * line(faster, mesh)


@pytest.mark.parametrize("seed", range(3))
def test_defects_beat_at_their_order_of_the_shaft(seed):
    """Envelope analysis with a tachometer, as condition monitoring does it, finds each defect at its own order."""
    rng = np.random.default_rng(seed)
    gearbox, car = Gearbox(rng), ToyCar(rng)
    op, angle = steady("tooth_defect", 1.0)
    wheel = gearbox.hertz * 0.99 * gearbox.pinion / gearbox.wheel
    broken = to_signal(gearbox.sound(op), GRID)
    healthy = to_signal(gearbox.sound(operation()), GRID)
    beat = synchronous(broken, angle, 4 * wheel, 1500, 7000)  # a healthy stage's mesh swells with the wheel, but slowly
    assert beat > 3 * synchronous(healthy, angle, 4 * wheel, 1500, 7000)
    assert beat > 3 * synchronous(broken, angle, 4.37 * wheel, 1500, 7000)
    motor = operation().shaft(car.hertz * 0.985, 0.008) / car.ratio
    dented = to_signal(car.sound(operation("deformed_wheel", 1.0)), GRID)
    assert synchronous(dented, motor, 1, 90, 450) > 2 * synchronous(dented, motor, 1.37, 90, 450)


def test_a_bearing_defect_beats_at_its_order_within_its_slip():
    fan = machine("fan")
    assert isinstance(fan, Fan)
    op, angle = steady("bearing_defect", 1.0)
    signal = to_signal(fan.sound(op) - fan.sound(operation()), GRID)
    orders = fan.hertz * 0.985 * fan.order * np.linspace(0.99, 1.01, 101)
    beat = max(synchronous(signal, angle, order, 2500, 7000) for order in orders)
    assert beat > 3 * max(synchronous(signal, angle, 1.37 * order, 2500, 7000) for order in orders)


def test_a_slide_rail_pauses_at_its_ends_and_a_valve_clicks_at_its_period():
    slider, valve = machine("slider"), machine("valve")
    assert isinstance(slider, Slider)
    assert isinstance(valve, Valve)
    stroke = operation().shaft(1 / slider.period, 0.01)
    envelope = to_signal(slider.sound(operation()) * band(GRID, 1000, 6000), GRID) ** 2
    end = np.abs(2 * stroke - np.round(2 * stroke))
    assert envelope[end > 0.3].mean() > 5 * envelope[(end > 0.01) & (end < 0.03)].mean()
    cycle = operation().shaft(1 / valve.period, 0.03)
    envelope = to_signal(valve.sound(operation()), GRID) ** 2
    assert envelope[cycle % 1 < 0.03].mean() > 5 * envelope[(cycle % 1 > 0.9)].mean()
    leaking = to_signal(valve.sound(operation("leak", 1.0)) * band(GRID, 3000, 7000), GRID) ** 2
    tight = to_signal(valve.sound(operation()) * band(GRID, 3000, 7000), GRID) ** 2
    closed = cycle % 1 > 0.9
    assert leaking[closed].mean() > 2 * tight[closed].mean()


@pytest.mark.parametrize("seed", range(3))
def test_a_slide_rail_waits_before_each_stroke_and_its_faults_sound_where_they_are(seed):
    slider = machine("slider", seed)
    assert isinstance(slider, Slider)
    stroke = operation().shaft(1 / slider.period, 0.01)
    part = (2 * stroke) % 1  # of a stroke
    speed = slider.velocity(stroke, np.ones(100))
    assert np.abs(speed[part < slider.dwell]).max() < 1e-6
    assert speed[part > slider.dwell + 1e-3].min() > 0
    healthy = slider.sound(operation())

    def envelope(fault: str, hertz: float) -> np.ndarray:
        added = slider.sound(operation(fault, 1.0)) - healthy
        return to_signal(added * band(GRID, hertz, 7000), GRID) ** 2

    dry = envelope("dry_rail", 3000)
    assert dry[speed > 0.5].mean() > 100 * dry[part < 0.8 * slider.dwell].mean()
    way = (part - slider.dwell) / (1 - slider.dwell)
    place = np.where(stroke % 1 < 0.5, way, 1 - way)
    near = np.abs(place - slider.place) * (1 - slider.dwell) * slider.period / 2 < 0.09  # 0.08 s to either side
    pitted = envelope("rail_damage", 1500)
    for there in (stroke % 1 < 0.5, stroke % 1 >= 0.5):
        assert pitted[near & there].mean() > 10 * pitted[~near & there].mean()


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("grid", [Grid(8000, 4000), Grid(48000, 96000)])
def test_any_rate_and_length(name, grid):
    for fault in ("", *MACHINES[name].faults):
        assert np.isfinite(machine(name).sound(operation(fault, 1.0, grid=grid))).all()
