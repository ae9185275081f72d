"""Rotating machines: fan, pump, gearbox, toy car."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.random import Generator

from asd_ray.data.synthetic.acoustics import (
    Body,
    Spectrum,
    band,
    drift,
    hum,
    impulses,
    passing_times,
    poisson_times,
    pulses,
    response,
    rms,
    shaft_angle,
    slope,
    to_spectrum,
    tones,
    turn_fraction,
    white,
)
from asd_ray.data.synthetic.mechanics import Fault, Machine, Operation, bearing_defect, unbalance


class Fan(Machine):
    """An industrial fan: blade-passing tones, turbulence modulated by the blades, motor hum."""

    faults: ClassVar[dict[str, Fault]] = {
        "imbalance": Fault("low", (30, 500), (-12.5, -2.5)),
        "clogging": Fault("low", (60, 600), (-15, -5)),
        "bearing_defect": Fault("high", (2500, 7000), (-14.5, -4.5)),
        "blade_rub": Fault("high", (2000, 7500), (-15, -5)),
    }

    def __init__(self, rng: Generator) -> None:
        self.hertz = rng.uniform(17, 30)
        self.blades = int(rng.integers(4, 10))
        harmonics = np.arange(1, 8 * self.blades + 1)
        passing = harmonics % self.blades == 0
        self.amplitudes = np.where(passing, 1.0, rng.uniform(0.02, 0.2)) * rng.lognormal(0, 0.5, len(harmonics))
        self.amplitudes /= (harmonics / self.blades + 0.5) ** rng.uniform(0.8, 1.6)
        self.angles = rng.uniform(size=len(harmonics))
        self.casing = Body.draw(rng, 6, 120, 5000, (4, 20))
        self.corner, self.fall = rng.uniform(200, 700), rng.uniform(-9, -6)
        self.depth = rng.uniform(0.1, 0.4)
        self.tonality = rng.uniform(0.3, 1.0)
        self.bearing, self.order = Body.draw(rng, 3, 2800, 6500, (12, 30)), rng.uniform(3.8, 5.8)

    def sound(self, op: Operation) -> Spectrum:
        grid, rng = op.grid, op.rng
        shaft = op.shaft(self.hertz * (1 - 0.03 * op.load))
        blade = tones(shaft, self.amplitudes, self.angles, grid)
        air = white(grid, rng) * (1 + self.depth * np.cos(2 * np.pi * turn_fraction(self.blades * shaft)))
        casing = response(self.casing, grid)
        path = slope(grid, self.corner * (0.8 + 0.4 * op.load), self.fall) * (0.3 + np.abs(casing))
        turbulence = to_spectrum(air) * path
        tonal = to_spectrum(blade) * (0.3 + casing)
        tonal *= self.tonality * (0.6 + 0.8 * op.load) * rms(turbulence, grid) / rms(tonal, grid)
        motor = hum(grid, rng, 100.0, np.array([0.4, 0.15, 0.1])) * rms(turbulence, grid)
        healthy = turbulence + tonal + motor
        if not op.fault:
            return healthy
        rng = op.fault_rng
        if op.fault == "imbalance":
            faulty = unbalance(op, shaft, blade / blade.std()) * (0.3 + casing)
        elif op.fault == "clogging":  # the flow separates and reattaches: surges of low rumble
            surge = np.maximum(drift(grid, rng, 0.25), 0)
            faulty = to_spectrum(white(grid, rng) * surge) * band(grid, 70, 350)
        elif op.fault == "bearing_defect":
            faulty = bearing_defect(op, shaft, self.order, self.bearing)
        else:  # a blade touches the pushed-in housing once per revolution
            contact = drift(grid, rng, 0.5) > 0.4
            touch = pulses(grid, passing_times(shaft, 1, grid, rng.uniform()), 1.0, 0.0005, 0.004)
            faulty = to_spectrum(white(grid, rng) * touch * contact) * band(grid, 2200, 6500)
        return self.with_fault(healthy, faulty, op)


class Pump(Machine):
    """A centrifugal water pump: vane-passing tones, flow noise, motor hum, slow pulsation of the pipe."""

    faults: ClassVar[dict[str, Fault]] = {
        "cavitation": Fault("high", (2500, 7500), (-18, -8)),
        "leak": Fault("high", (3500, 7500), (-15, -5)),
        "clogging": Fault("low", (40, 500), (-15, -5)),
        "loose_mount": Fault("low", (40, 800), (-15.5, -5.5)),
    }

    def __init__(self, rng: Generator) -> None:
        self.hertz = rng.choice([24.0, 48.0]) * rng.uniform(0.94, 1.0)
        self.vanes = int(rng.integers(5, 9))
        harmonics = np.arange(1, 6 * self.vanes + 1)
        self.amplitudes = np.where(harmonics % self.vanes == 0, 1.0, 0.12) * rng.lognormal(0, 0.6, len(harmonics))
        self.amplitudes /= (harmonics / self.vanes + 0.3) ** rng.uniform(0.6, 1.4)
        self.angles = rng.uniform(size=len(harmonics))
        self.pipe = Body.draw(rng, 8, 150, 6500, (6, 25))
        self.corner, self.fall = rng.uniform(400, 1500), rng.uniform(-8, -5)
        self.tonality = rng.uniform(0.4, 1.2)
        self.spout = Body.draw(rng, 2, 4000, 7000, (2, 5))
        self.mount = Body.draw(rng, 3, 90, 500, (5, 12))

    def sound(self, op: Operation) -> Spectrum:
        grid, rng = op.grid, op.rng
        shaft = op.shaft(self.hertz * (1 - 0.02 * op.load))
        swell = 1 + 0.15 * drift(grid, rng, 0.8)
        path = slope(grid, self.corner * (0.7 + 0.6 * op.load), self.fall) * (0.2 + np.abs(response(self.pipe, grid)))
        flow = to_spectrum(white(grid, rng) * swell) * path
        vane = tones(shaft, self.amplitudes, self.angles, grid)
        tonal = to_spectrum(vane) * (0.2 + response(self.pipe, grid))
        tonal *= self.tonality * (0.5 + op.load) * rms(flow, grid) / rms(tonal, grid)
        motor = hum(grid, rng, 100.0, np.array([0.5, 0.25, 0.15, 0.05])) * rms(flow, grid)
        healthy = flow + tonal + motor
        if not op.fault:
            return healthy
        rng = op.fault_rng
        if op.fault == "cavitation":  # vapour bubbles collapse in swarms, mostly at a passing vane
            swarm = np.maximum(1 + 1.2 * drift(grid, rng, 0.15), 0.0)
            times = poisson_times(grid, rng, 1500)
            index = np.minimum((times * grid.rate).astype(int), grid.samples - 1)
            weights = swarm[index] * (1 + 0.8 * np.cos(2 * np.pi * self.vanes * shaft[index]))
            weights *= rng.lognormal(0, 0.7, len(times)) * rng.choice([-1.0, 1.0], len(times))
            faulty = to_spectrum(impulses(grid, times, weights)) * band(grid, 3000, 7000)
        elif op.fault == "leak":  # air or water hisses at the seal
            faulty = to_spectrum(white(grid, rng)) * np.abs(response(self.spout, grid))
        elif op.fault == "clogging":  # the flow gurgles: pulsation at a few hertz
            gurgle = (1 + np.sin(2 * np.pi * shaft_angle(grid, rng, 3.0 * (1 + 0.2 * drift(grid, rng, 0.5))))) ** 3
            faulty = to_spectrum(white(grid, rng) * gurgle) * band(grid, 80, 350)
        else:  # the base rattles on a loose screw, irregularly
            times = passing_times(shaft, 0.5, grid, rng.uniform())
            weights = rng.lognormal(0, 0.5, len(times)) * (rng.uniform(size=len(times)) < 0.5)
            faulty = to_spectrum(impulses(grid, times, weights)) * response(self.mount, grid)
        return self.with_fault(healthy, faulty, op)


class Gearbox(Machine):
    """A spur gear stage: mesh tones modulated by both shafts, lubricant and bearing noise."""

    faults: ClassVar[dict[str, Fault]] = {
        "tooth_defect": Fault("high", (1500, 7500), (-15.5, -5.5)),
        "bearing_defect": Fault("high", (2500, 7000), (-16, -6)),
        "eccentricity": Fault("low", (100, 1500), (-13.5, -3.5)),
        "imbalance": Fault("low", (20, 300), (-5, 5)),
    }

    def __init__(self, rng: Generator) -> None:
        self.hertz = rng.uniform(16, 28)
        self.pinion, self.wheel = int(rng.integers(17, 30)), int(rng.integers(37, 72))
        self.amplitudes = rng.lognormal(0, 0.5, 10) / np.arange(1, 11) ** rng.uniform(0.8, 1.6)
        self.angles = rng.uniform(size=10)
        self.depth = rng.uniform(0.05, 0.25, 2)
        self.case = Body.draw(rng, 9, 200, 6500, (6, 30))
        self.corner, self.fall = rng.uniform(300, 1200), rng.uniform(-8, -5)
        self.tonality = rng.uniform(0.5, 1.2)
        self.bearing, self.order = Body.draw(rng, 3, 2800, 6500, (12, 30)), rng.uniform(3.8, 5.8)

    def sound(self, op: Operation) -> Spectrum:
        grid, rng = op.grid, op.rng
        shaft = op.shaft(self.hertz * (1 - 0.02 * op.load))
        output = shaft * (self.pinion / self.wheel)
        mesh = tones(shaft * self.pinion, self.amplitudes, self.angles, grid)
        slow = tones(output, np.ones(1), rng.uniform(size=1), grid)
        fast = tones(shaft, np.ones(1), rng.uniform(size=1), grid)
        meshing = mesh * (1 + self.depth[0] * slow) * (1 + self.depth[1] * fast)
        case = response(self.case, grid)
        oil = to_spectrum(white(grid, rng) * (1 + 0.2 * slow))
        noise = oil * slope(grid, self.corner, self.fall) * (0.3 + np.abs(case))
        tonal = to_spectrum(meshing) * (0.3 + case)
        tonal *= self.tonality * (0.5 + op.load) * rms(noise, grid) / rms(tonal, grid)
        healthy = noise + tonal
        if not op.fault:
            return healthy
        rng = op.fault_rng
        if op.fault == "tooth_defect":  # a cracked tooth of the wheel strikes once per revolution
            times = passing_times(output, 1, grid, rng.uniform())
            hits = impulses(grid, times, rng.lognormal(0, 0.3, len(times)))
            faulty = to_spectrum(hits) * case * band(grid, 1500, 7000)
        elif op.fault == "bearing_defect":
            faulty = bearing_defect(op, shaft, self.order, self.bearing)
        elif op.fault == "eccentricity":  # the mesh swells once per revolution of the output
            faulty = to_spectrum(mesh * tones(output, np.array([1, 0.5]), rng.uniform(size=2), grid)) * (0.3 + case)
        else:
            faulty = unbalance(op, shaft, white(grid, rng) * 0.5) * slope(grid, 100, -9)
        return self.with_fault(healthy, faulty, op)


class ToyCar(Machine):
    """A toy car on its track: commutator whine of a small motor, plastic gears, rolling wheels."""

    faults: ClassVar[dict[str, Fault]] = {
        "bent_shaft": Fault("low", (80, 1500), (-14, -4)),
        "deformed_wheel": Fault("low", (60, 600), (-13, -3)),
        "tooth_defect": Fault("high", (1500, 7500), (-15, -5)),
        "brush_wear": Fault("high", (2500, 7500), (-20, -10)),
    }

    def __init__(self, rng: Generator) -> None:
        self.hertz = rng.uniform(70, 130)
        self.ratio = rng.uniform(9, 14)  # motor revolutions per wheel revolution
        self.teeth = int(rng.integers(8, 13))
        orders = np.arange(1, 5 * self.teeth + 1)
        peaks = (orders % 3 == 0) | (orders % self.teeth == 0)
        self.amplitudes = (
            np.where(peaks, 1.0, 0.15) * rng.lognormal(0, 0.6, len(orders)) / orders ** rng.uniform(0.3, 0.8)
        )
        self.angles = rng.uniform(size=len(orders))
        self.shell = Body.draw(rng, 9, 250, 7000, (4, 16))
        self.corner, self.fall = rng.uniform(1000, 3000), rng.uniform(-6, -3)
        self.tonality, self.depth = rng.uniform(0.6, 1.4), rng.uniform(0.05, 0.2)

    def sound(self, op: Operation) -> Spectrum:
        grid, rng = op.grid, op.rng
        motor = op.shaft(self.hertz * (1 - 0.03 * op.load), 0.008)
        wheel = motor / self.ratio
        drive = tones(motor, self.amplitudes, self.angles, grid)
        wobble = 1 + self.depth * tones(wheel, np.array([1, 0.5]), rng.uniform(size=2), grid)
        shell = response(self.shell, grid)
        rolling = to_spectrum(white(grid, rng) * wobble) * slope(grid, self.corner, self.fall) * (0.3 + np.abs(shell))
        tonal = to_spectrum(drive * wobble) * (0.3 + shell)
        tonal *= self.tonality * (0.7 + 0.6 * op.load) * rms(rolling, grid) / rms(tonal, grid)
        healthy = rolling + tonal
        if not op.fault:
            return healthy
        rng = op.fault_rng
        times = passing_times(wheel, 1, grid, rng.uniform())
        if op.fault == "bent_shaft":  # gear pressure varies once per wheel revolution and rocks the chassis
            sway = drive * tones(wheel, np.array([1, 0.3]), rng.uniform(size=2), grid)
            faulty = to_spectrum(sway) * band(grid, 80, 1000) * (0.3 + shell)
        elif op.fault == "deformed_wheel":  # a flat spot thumps on the track
            faulty = to_spectrum(white(grid, rng) * pulses(grid, times, 1.0, 0.002, 0.012)) * band(grid, 90, 450)
        elif op.fault == "tooth_defect":  # a chipped tooth on the axle gear
            hits = impulses(grid, times, rng.lognormal(0, 0.3, len(times)))
            faulty = to_spectrum(hits) * shell * band(grid, 1500, 7000)
        else:  # worn brushes spark at the commutator, in bursts
            fits = np.maximum(drift(grid, rng, 0.3), 0)
            sparks = pulses(grid, passing_times(motor, 3, grid), 1.0, 0.0001, 0.0006)
            faulty = to_spectrum(white(grid, rng) * sparks * fits) * band(grid, 3000, 7200)
        return self.with_fault(healthy, faulty, op)
