"""Physical models of machines and of what goes wrong with them.

A machine is drawn once (its speed, its numbers of blades or teeth, its resonances) and then heard in many operations
(speed, load, moment). A fault changes or adds what its mechanism says: impacts at a defect's order of the shaft excite
the body, a loose belt flaps after a reversal, a clogged fan surges. The healthy part of a sound draws from one random
stream and the fault from another, so that a clip with and without its fault differs by the fault alone.

Orders and mechanisms follow the standard texts of condition monitoring (R. B. Randall, Vibration-based Condition
Monitoring, 2nd ed. 2021: bearings, gears, imbalance; C. E. Brennen, Hydrodynamics of Pumps, 1994: cavitation).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.random import Generator

from asd_ray.datasets.acoustics import (
    Body,
    Grid,
    Phase,
    Real,
    Signal,
    Spectrum,
    arrivals,
    band,
    drift,
    hum,
    impulses,
    passages,
    power,
    pulses,
    response,
    slope,
    time,
    to_spectrum,
    tones,
    turn,
    white,
)

Band = Literal["low", "high"]


@dataclass(frozen=True)
class Operation:
    """One clip of a machine.

    Attributes:
        grid: the clip's time grid.
        rng: random stream of the healthy sound.
        fault_rng: random stream of the fault.
        speed: relative to the machine's nominal speed.
        load: 0 idle to 1 full.
        fault: kind, or empty for a healthy machine.
        severity: of the fault, over 0 to 1.
    """

    grid: Grid
    rng: Generator
    fault_rng: Generator
    speed: float = 1.0
    load: float = 0.5
    fault: str = ""
    severity: float = 0.0

    def shaft(self, hertz: float, wander: float = 0.004) -> Phase:
        """(N,) angle of a shaft with a nominal speed in Hz that wanders a little."""
        return turn(self.grid, self.rng, hertz * self.speed * (1 + wander * drift(self.grid, self.rng, 2.0)))


@dataclass(frozen=True)
class Fault:
    """How loud a fault is: its power in its band, in dB over the healthy machine's there, from severity 0 to 1."""

    band: Band
    hertz: tuple[float, float]
    decibels: tuple[float, float]

    def level(self, severity: float) -> float:
        return self.decibels[0] + severity * (self.decibels[1] - self.decibels[0])


class Machine(ABC):
    """One individual of a machine type."""

    faults: ClassVar[dict[str, Fault]]

    @abstractmethod
    def sound(self, op: Operation) -> Spectrum:
        """(F,) spectrum of what the machine radiates."""

    def with_fault(self, healthy: Spectrum, faulty: Spectrum, op: Operation) -> Spectrum:
        """(F,) the healthy sound and the fault's, at the level that its severity asks for."""
        fault = self.faults[op.fault]
        here = power(faulty, op.grid, *fault.hertz)
        if here == 0:
            return healthy
        ratio = 10 ** (fault.level(op.severity) / 10) * power(healthy, op.grid, *fault.hertz) / here
        return (healthy + np.sqrt(ratio) * faulty).astype(np.complex64)


def bearing_defect(op: Operation, shaft: Phase, order: float, body: Body) -> Spectrum:
    """Impacts of a spalled outer race: ``order`` per revolution, with slip, louder where the cage carries the load."""
    rng = op.fault_rng
    slip = 1 + 0.004 * drift(op.grid, rng, 0.5)
    ring = np.cumsum(np.diff(shaft, prepend=shaft[0]) * slip)
    times = passages(ring, order, op.grid, rng.uniform())
    cage = np.interp(times, time(op.grid), ring) * 0.4 + rng.uniform()
    weights = (1 + 0.9 * np.cos(2 * np.pi * cage)) * rng.lognormal(0, 0.2, len(times))
    return to_spectrum(impulses(op.grid, times, weights)) * response(body, op.grid)


def unbalance(op: Operation, shaft: Phase, carrier: Signal) -> Spectrum:
    """The heavy side of a rotor: the frame shakes at the shaft's speed and its first harmonics, and so does ``carrier``."""
    rng = op.fault_rng
    shake = tones(shaft, 1 / np.arange(1, 9) ** 0.7, rng.uniform(size=8), op.grid)
    beat = (1 + 0.7 * drift(op.grid, rng, 0.7)).astype(np.float32)
    return to_spectrum(beat * (shake + carrier * tones(shaft, np.ones(1), rng.uniform(size=1), op.grid)))


class Fan(Machine):
    """An industrial fan: blade-passing tones, turbulence that the blades modulate, motor hum."""

    faults: ClassVar[dict[str, Fault]] = {
        "imbalance": Fault("low", (30, 500), (-12, -2)),
        "clogging": Fault("low", (60, 600), (-10, 0)),
        "bearing_defect": Fault("high", (2500, 7000), (-14, -4)),
        "blade_rub": Fault("high", (2000, 7500), (-11, -1)),
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
        self.bearing, self.order = Body.draw(rng, 3, 2800, 6500, (12, 30)), rng.uniform(2.6, 4.4)

    def sound(self, op: Operation) -> Spectrum:
        grid, rng = op.grid, op.rng
        shaft = op.shaft(self.hertz * (1 - 0.03 * op.load))
        blade = tones(shaft, self.amplitudes, self.angles, grid)
        gusts = 1 + self.depth * np.cos(2 * np.pi * (self.blades * shaft % 1).astype(np.float32))
        air = white(grid, rng) * gusts.astype(np.float32)
        shape = slope(grid, self.corner * (0.8 + 0.4 * op.load), self.fall) * (
            0.3 + np.abs(response(self.casing, grid))
        )
        turbulence = to_spectrum(air) * shape
        tonal = to_spectrum(blade) * (0.3 + response(self.casing, grid))
        tonal *= self.tonality * (0.6 + 0.8 * op.load) * np.sqrt(power(turbulence, grid) / power(tonal, grid))
        motor = hum(grid, rng, 100.0, np.array([0.4, 0.15, 0.1])) * np.sqrt(power(turbulence, grid))
        healthy = turbulence + tonal + motor
        if not op.fault:
            return healthy
        rng = op.fault_rng
        if op.fault == "imbalance":
            faulty = unbalance(op, shaft, blade / blade.std()) * (0.3 + response(self.casing, grid))
        elif op.fault == "clogging":  # the flow separates and comes back: a surge of low rumble
            surge = np.maximum(drift(grid, rng, 0.25), 0).astype(np.float32)
            faulty = to_spectrum(white(grid, rng) * surge) * band(grid, 70, 350)
        elif op.fault == "bearing_defect":
            faulty = bearing_defect(op, shaft, self.order, self.bearing)
        else:  # a blade touches the housing once a turn while the shroud is pushed in
            contact = (drift(grid, rng, 0.5) > 0.4).astype(np.float32)
            touch = pulses(grid, passages(shaft, 1, grid, rng.uniform()), 1.0, 0.0005, 0.004)
            faulty = to_spectrum(white(grid, rng) * touch * contact) * band(grid, 2200, 6500)
        return self.with_fault(healthy, faulty, op)


class Pump(Machine):
    """A centrifugal water pump: vane-passing tones, flow noise, motor hum, slow pulsation of the pipe."""

    faults: ClassVar[dict[str, Fault]] = {
        "cavitation": Fault("high", (2500, 7500), (-14, -4)),
        "leak": Fault("high", (3500, 7500), (-15, -5)),
        "clogging": Fault("low", (40, 500), (-12, -2)),
        "loose_mount": Fault("low", (40, 800), (-14, -4)),
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
        swell = (1 + 0.15 * drift(grid, rng, 0.8)).astype(np.float32)
        pipe = 0.2 + np.abs(response(self.pipe, grid))
        flow = (
            to_spectrum(white(grid, rng) * swell) * slope(grid, self.corner * (0.7 + 0.6 * op.load), self.fall) * pipe
        )
        vane = tones(shaft, self.amplitudes, self.angles, grid)
        tonal = to_spectrum(vane) * (0.2 + response(self.pipe, grid))
        tonal *= self.tonality * (0.5 + op.load) * np.sqrt(power(flow, grid) / power(tonal, grid))
        motor = hum(grid, rng, 100.0, np.array([0.5, 0.25, 0.15, 0.05])) * np.sqrt(power(flow, grid))
        healthy = flow + tonal + motor
        if not op.fault:
            return healthy
        rng = op.fault_rng
        if op.fault == "cavitation":  # vapour bubbles collapse in swarms, most where a vane passes
            swarm = np.maximum(1 + 1.2 * drift(grid, rng, 0.15), 0.0)
            times = arrivals(grid, rng, 1500)
            index = np.minimum((times * grid.rate).astype(int), grid.samples - 1)
            weights = swarm[index] * (1 + 0.8 * np.cos(2 * np.pi * self.vanes * shaft[index]))
            weights *= rng.lognormal(0, 0.7, len(times)) * rng.choice([-1.0, 1.0], len(times))
            faulty = to_spectrum(impulses(grid, times, weights)) * band(grid, 3000, 7000)
        elif op.fault == "leak":  # a jet of air or water hisses at the seal
            faulty = to_spectrum(white(grid, rng)) * np.abs(response(self.spout, grid))
        elif op.fault == "clogging":  # the flow gurgles: pulsation at a few hertz
            gurgle = (1 + np.sin(2 * np.pi * turn(grid, rng, 3.0 * (1 + 0.2 * drift(grid, rng, 0.5))))) ** 3
            faulty = to_spectrum(white(grid, rng) * gurgle.astype(np.float32)) * band(grid, 80, 350)
        else:  # the base rattles on its loose screw, some turns more than others
            times = passages(shaft, 0.5, grid, rng.uniform())
            weights = rng.lognormal(0, 0.5, len(times)) * (rng.uniform(size=len(times)) < 0.5)
            faulty = to_spectrum(impulses(grid, times, weights)) * response(self.mount, grid)
        return self.with_fault(healthy, faulty, op)


class Slider(Machine):
    """A slide rail on a ball screw: strokes to and fro, rolling noise and motor whine with the speed, end thumps."""

    faults: ClassVar[dict[str, Fault]] = {
        "rail_damage": Fault("high", (1500, 7500), (-6, 4)),
        "dry_rail": Fault("high", (1500, 7500), (-19, -9)),
        "loose_belt": Fault("low", (60, 700), (-14, -4)),
        "missing_stroke": Fault("low", (60, 7500), (0, 0)),
    }

    def __init__(self, rng: Generator) -> None:
        self.period = rng.uniform(1.3, 2.6)  # s, to and fro
        self.ramp = rng.uniform(0.1, 0.25)  # share of a stroke that accelerates
        self.asymmetry = rng.uniform(0.7, 0.95)  # of the way back
        self.whine = rng.uniform(250, 700)  # Hz at full speed
        harmonics = np.arange(1, 13)
        self.amplitudes = rng.lognormal(0, 0.6, 12) / harmonics ** rng.uniform(0.8, 1.5)
        self.angles = rng.uniform(size=12)
        self.frame = Body.draw(rng, 8, 150, 6000, (5, 25))
        self.corner, self.fall = rng.uniform(800, 2500), rng.uniform(-8, -5)
        self.tonality, self.thump = rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.8)
        self.place = rng.uniform(0.25, 0.75)  # of the damage on the rail
        self.squeal = rng.uniform(2200, 4500)  # Hz

    def velocity(self, stroke: Phase, missing: Real | None = None) -> Signal:
        """(N,) relative speed of the carriage. ``stroke``: angle of the cycle; ``missing``: weight of every stroke."""
        number = np.floor(2 * stroke).astype(np.int32)
        place = (2 * stroke - number).astype(np.float32)  # in a stroke, over 0 to 1
        height = np.where(np.arange(64) % 2, self.asymmetry, 1.0) * (1.0 if missing is None else missing)
        profile = np.minimum(np.minimum(place, 1 - place) / np.float32(self.ramp), 1)
        return profile * height.astype(np.float32)[number & 63]

    def sound(self, op: Operation) -> Spectrum:
        grid, rng, faults = op.grid, op.rng, op.fault_rng
        stroke = op.shaft(1 / self.period, 0.01)
        moves = np.ones(64)
        if op.fault == "missing_stroke":
            moves = np.where(faults.uniform(size=64) < 0.05 + 0.25 * op.severity, faults.uniform(0.0, 0.3, 64), 1.0)
        speed = self.velocity(stroke, moves)
        frame = response(self.frame, grid)
        rolling = to_spectrum(white(grid, rng) * speed) * slope(grid, self.corner, self.fall) * (0.3 + np.abs(frame))
        motor = turn(grid, rng, self.whine * speed.astype(float) * op.speed)
        whine = to_spectrum(tones(motor, self.amplitudes, self.angles, grid) * np.sqrt(speed)) * (0.3 + frame)
        rail = power(to_spectrum(white(grid, rng) * self.velocity(stroke)) * slope(grid, self.corner, self.fall), grid)
        ends = passages(stroke, 2, grid)
        weights = (
            rng.lognormal(0, 0.2, len(ends)) * moves[np.round(2 * np.interp(ends, time(grid), stroke)).astype(int) % 64]
        )
        thump = to_spectrum(impulses(grid, ends, weights)) * slope(grid, 300, -9) * frame
        thump *= self.thump * (0.5 + op.load) * np.sqrt(rail / max(power(thump, grid), 1e-12))
        whine *= self.tonality * (0.7 + 0.6 * op.load) * np.sqrt(rail / power(whine, grid))
        healthy = rolling + whine + thump
        if op.fault in ("", "missing_stroke"):
            return healthy
        if op.fault == "rail_damage":  # balls pass over a pit at one place, on the way there and back
            times = np.concatenate(
                [passages(stroke, 1, grid, 1 - self.place / 2), passages(stroke, 1, grid, self.place / 2)]
            )
            times = (times[:, None] + faults.uniform(-0.02, 0.02, (len(times), 3))).ravel()
            hits = impulses(grid, times, faults.lognormal(0, 0.4, len(times)))
            faulty = to_spectrum(hits) * response(self.frame, grid) * band(grid, 1500, 7000)
        elif op.fault == "dry_rail":  # stick and slip at low speed: a squeal when the carriage starts and stops
            slow = ((speed > 0.05) & (speed < 0.7)).astype(np.float32) * np.exp(0.7 * drift(grid, faults, 0.1)).astype(
                np.float32
            )
            pitch = turn(grid, faults, self.squeal * (1 + 0.03 * drift(grid, faults, 0.2)))
            faulty = to_spectrum(slow * tones(pitch, np.array([1, 0.5, 0.3]), faults.uniform(size=3), grid))
        else:  # the belt flaps after every reversal
            flap = pulses(grid, ends, 1.0, 0.02, 0.25) * np.abs(np.sin(2 * np.pi * turn(grid, faults, 7.0))).astype(
                np.float32
            )
            faulty = to_spectrum(white(grid, faults) * flap) * band(grid, 90, 450)
        return self.with_fault(healthy, faulty, op)


class Valve(Machine):
    """A solenoid valve: clicks on opening and closing, flow while it is open, hum while it is energised."""

    faults: ClassVar[dict[str, Fault]] = {
        "leak": Fault("high", (2500, 7500), (-26, -16)),
        "dirt": Fault("high", (1500, 7500), (-11, -1)),
        "chatter": Fault("low", (150, 1500), (-12, -2)),
        "missing_stroke": Fault("low", (150, 7500), (0, 0)),
    }

    def __init__(self, rng: Generator) -> None:
        self.period = rng.uniform(0.7, 1.6)  # s
        self.duty = rng.uniform(0.3, 0.6)
        self.seat, self.stop = Body.draw(rng, 6, 300, 7000, (8, 40)), Body.draw(rng, 6, 300, 7000, (8, 40))
        self.jet = Body.draw(rng, 3, 1200, 6500, (1.5, 4))
        self.flow, self.hum, self.closing = rng.uniform(0.1, 0.35), rng.uniform(0.1, 0.3), rng.uniform(0.5, 1.2)
        self.plate = Body.draw(rng, 3, 250, 1200, (6, 15))

    def sound(self, op: Operation) -> Spectrum:
        grid, rng, faults = op.grid, op.rng, op.fault_rng
        cycle = op.shaft(1 / self.period, 0.03)
        moves = np.ones(64)
        if op.fault == "missing_stroke":
            moves = (faults.uniform(size=64) > 0.1 + 0.4 * op.severity).astype(float)
        number = np.floor(cycle).astype(int)
        is_open = ((cycle % 1 < self.duty) * moves[number % 64]).astype(np.float32)
        opens, closes = passages(cycle, 1, grid), passages(cycle, 1, grid, 1 - self.duty)
        angle = np.interp(np.concatenate([opens, closes]), time(grid), cycle) + 1e-6
        works = moves[np.floor(angle).astype(int) % 64] * rng.lognormal(0, 0.15, len(angle))
        click = to_spectrum(impulses(grid, opens, works[: len(opens)])) * response(self.stop, grid)
        click += self.closing * to_spectrum(impulses(grid, closes, works[len(opens) :])) * response(self.seat, grid)
        one = to_spectrum(impulses(grid, opens[:1], 1.0)) * response(self.stop, grid)
        scale = np.sqrt(power(one, grid) * grid.seconds / self.period)
        jet = np.abs(response(self.jet, grid))
        flow = to_spectrum(white(grid, rng) * (0.05 + is_open)) * jet
        flow *= self.flow * (0.5 + op.load) * scale / np.sqrt(float(np.mean(jet**2)) * self.duty)
        coil = tones(turn(grid, rng, 100.0), np.array([1, 0.5, 0.5, 0.2]), rng.uniform(size=4), grid)
        healthy = click + flow + self.hum * scale * to_spectrum(coil * is_open)
        if op.fault in ("", "missing_stroke"):
            return healthy
        if op.fault == "leak":  # the closed valve hisses
            faulty = to_spectrum(white(grid, faults) * (1 - is_open)) * band(grid, 3000, 7000)
        elif op.fault == "dirt":  # grit under the plunger: a scrape before it seats
            scrape = pulses(grid, closes - 0.06, faults.lognormal(0, 0.3, len(closes)), 0.02, 0.02)
            faulty = to_spectrum(white(grid, faults) * scrape) * band(grid, 1800, 6500)
        else:  # a weak coil lets the plunger bounce
            bounce = (opens[:, None] + 0.03 * np.cumsum(0.8 ** np.arange(1, 5)) * faults.uniform(0.8, 1.2)).ravel()
            weights = np.tile(0.75 ** np.arange(4), len(opens))
            faulty = to_spectrum(impulses(grid, bounce, weights)) * response(self.plate, grid)
        return self.with_fault(healthy, faulty, op)


class Gearbox(Machine):
    """A spur gear stage: mesh tones that both shafts modulate, lubricant and bearing noise."""

    faults: ClassVar[dict[str, Fault]] = {
        "tooth_defect": Fault("high", (1500, 7500), (-12, -2)),
        "bearing_defect": Fault("high", (2500, 7000), (-16, -6)),
        "eccentricity": Fault("low", (100, 1500), (-11, -1)),
        "imbalance": Fault("low", (20, 300), (-8, 2)),
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
        self.bearing, self.order = Body.draw(rng, 3, 2800, 6500, (12, 30)), rng.uniform(3.0, 5.4)

    def sound(self, op: Operation) -> Spectrum:
        grid, rng = op.grid, op.rng
        shaft = op.shaft(self.hertz * (1 - 0.02 * op.load))
        output = shaft * (self.pinion / self.wheel)
        mesh = tones(shaft * self.pinion, self.amplitudes, self.angles, grid)
        slow = tones(output, np.ones(1), rng.uniform(size=1), grid)
        fast = tones(shaft, np.ones(1), rng.uniform(size=1), grid)
        meshing = mesh * (1 + self.depth[0] * slow) * (1 + self.depth[1] * fast)
        case = response(self.case, grid)
        noise = (
            to_spectrum(white(grid, rng) * (1 + 0.2 * slow))
            * slope(grid, self.corner, self.fall)
            * (0.3 + np.abs(case))
        )
        tonal = to_spectrum(meshing) * (0.3 + case)
        tonal *= self.tonality * (0.5 + op.load) * np.sqrt(power(noise, grid) / power(tonal, grid))
        healthy = noise + tonal
        if not op.fault:
            return healthy
        rng = op.fault_rng
        if op.fault == "tooth_defect":  # one cracked tooth of the wheel meets the pinion once a turn
            times = passages(output, 1, grid, rng.uniform())
            hits = impulses(grid, times, rng.lognormal(0, 0.3, len(times)))
            faulty = to_spectrum(hits) * case * band(grid, 1500, 7000)
        elif op.fault == "bearing_defect":
            faulty = bearing_defect(op, shaft, self.order, self.bearing)
        elif op.fault == "eccentricity":  # the wheel runs out of true: the mesh swells once a turn of the output
            faulty = to_spectrum(mesh * tones(output, np.array([1, 0.5]), rng.uniform(size=2), grid)) * (0.3 + case)
        else:
            faulty = unbalance(op, shaft, white(grid, rng) * 0.5) * slope(grid, 100, -9)
        return self.with_fault(healthy, faulty, op)


class ToyCar(Machine):
    """A toy car on its track: commutator whine of a small motor, plastic gears, rolling wheels."""

    faults: ClassVar[dict[str, Fault]] = {
        "bent_shaft": Fault("low", (80, 1500), (-9, 1)),
        "deformed_wheel": Fault("low", (60, 600), (-10, 0)),
        "tooth_defect": Fault("high", (1500, 7500), (-10, 0)),
        "brush_wear": Fault("high", (2500, 7500), (-15, -5)),
    }

    def __init__(self, rng: Generator) -> None:
        self.hertz = rng.uniform(70, 130)
        self.ratio = rng.uniform(9, 14)  # motor turns for a turn of the wheels
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
        motor = op.shaft(self.hertz * (1 - 0.1 * op.load), 0.015)
        wheel = motor / self.ratio
        drive = tones(motor, self.amplitudes, self.angles, grid)
        wobble = 1 + self.depth * tones(wheel, np.array([1, 0.5]), rng.uniform(size=2), grid)
        shell = response(self.shell, grid)
        rolling = to_spectrum(white(grid, rng) * wobble) * slope(grid, self.corner, self.fall) * (0.3 + np.abs(shell))
        tonal = to_spectrum(drive * wobble) * (0.3 + shell)
        tonal *= self.tonality * (0.7 + 0.6 * op.load) * np.sqrt(power(rolling, grid) / power(tonal, grid))
        healthy = rolling + tonal
        if not op.fault:
            return healthy
        rng = op.fault_rng
        times = passages(wheel, 1, grid, rng.uniform())
        if op.fault == "bent_shaft":
            faulty = to_spectrum(drive * tones(wheel, np.array([1, 0.3]), rng.uniform(size=2), grid)) * (0.3 + shell)
        elif op.fault == "deformed_wheel":  # a flat spot thumps on the track
            faulty = to_spectrum(white(grid, rng) * pulses(grid, times, 1.0, 0.002, 0.012)) * band(grid, 90, 450)
        elif op.fault == "tooth_defect":
            faulty = (
                to_spectrum(impulses(grid, times, rng.lognormal(0, 0.3, len(times)))) * shell * band(grid, 1500, 7000)
            )
        else:  # worn brushes spark at the commutator, in fits
            fits = np.maximum(drift(grid, rng, 0.3), 0).astype(np.float32)
            sparks = pulses(grid, passages(motor, 3, grid), 1.0, 0.0001, 0.0006)
            faulty = to_spectrum(white(grid, rng) * sparks * fits) * band(grid, 3000, 7200)
        return self.with_fault(healthy, faulty, op)


MACHINES: dict[str, type[Machine]] = {
    "fan": Fan,
    "pump": Pump,
    "slider": Slider,
    "valve": Valve,
    "gearbox": Gearbox,
    "ToyCar": ToyCar,
}
"""Machine types in the generator's order."""
