"""Reciprocating machines: slide rail and solenoid valve."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from asd_ray.data.synthetic.acoustics import (
    Body,
    Grid,
    Phase,
    Real,
    Signal,
    Spectrum,
    band,
    drift,
    impulses,
    passing_times,
    pulses,
    response,
    rms,
    shaft_angle,
    slope,
    strikes,
    time,
    to_spectrum,
    tones,
    white,
)
from asd_ray.data.synthetic.mechanics import Fault, Machine, Operation, made_strokes


class Slider(Machine):
    """A belt-driven slide rail: strokes and pauses, rolling noise and motor whine by speed, thumps at the ends."""

    faults: ClassVar[dict[str, Fault]] = {
        "rail_damage": Fault("high", (1500, 7500), (-14, -4)),
        "dry_rail": Fault("high", (1500, 7500), (-21.5, -11.5)),
        "loose_belt": Fault("low", (60, 700), (-18, -8)),
        "missing_stroke": Fault("low", (60, 7500), (0, 0)),
    }

    def __init__(self, rng: Generator) -> None:
        self.period = rng.uniform(1.3, 2.6)  # s, to and fro
        self.ramp = rng.uniform(0.1, 0.25)  # share of a stroke spent accelerating
        self.asymmetry = rng.uniform(0.7, 0.95)  # relative speed of the return stroke
        self.whine = rng.uniform(250, 700)  # Hz at full speed
        harmonics = np.arange(1, 13)
        self.amplitudes = rng.lognormal(0, 0.6, 12) / harmonics ** rng.uniform(0.8, 1.5)
        self.angles = rng.uniform(size=12)
        self.frame = Body.draw(rng, 8, 150, 6000, (5, 25))
        self.corner, self.fall = rng.uniform(800, 2500), rng.uniform(-8, -5)
        self.tonality, self.thump = rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.8)
        self.place = rng.uniform(0.25, 0.75)  # position of the damage on the rail
        self.squeal = rng.uniform(2200, 4500)  # Hz
        self.dwell = rng.uniform(0.1, 0.3)  # share of a stroke spent waiting before it

    def velocity(self, stroke: Phase, made: Real) -> Signal:
        """(N,) relative speed of the carriage at cycle angles ``stroke``; ``made`` scales each stroke (1: full)."""
        number = np.floor(2 * stroke).astype(np.int32)
        way = np.maximum(2 * stroke - number - self.dwell, 0).astype(np.float32) / (1 - self.dwell)
        height = np.where((np.arange(len(made)) + number[0]) % 2, self.asymmetry, 1.0) * made
        profile = np.minimum(np.minimum(way, 1 - way) / self.ramp, 1)
        return profile * height.astype(np.float32)[number - number[0]]

    def sound(self, op: Operation) -> Spectrum:
        grid, rng, faults = op.grid, op.rng, op.fault_rng
        stroke = op.shaft(1 / self.period, 0.01)
        ends = passing_times(stroke, 2, grid)
        healthy_strokes = np.ones(len(ends) + 1)
        made = healthy_strokes
        if op.fault == "missing_stroke":  # the carriage sticks and creeps
            made = np.maximum(made_strokes(op, len(made), 0.05 + 0.15 * op.severity), faults.uniform(0, 0.3, len(made)))
        speed = self.velocity(stroke, made)
        frame = response(self.frame, grid)
        path = slope(grid, self.corner, self.fall) * (0.3 + np.abs(frame))
        ground = white(grid, rng)
        rolling = to_spectrum(ground * speed) * path
        # The healthy rolling noise sets the level of all parts, even if strokes are missing.
        usual = self.velocity(stroke, healthy_strokes)
        scale = rms(to_spectrum(ground * usual) * path, grid)
        motor = shaft_angle(grid, rng, self.whine * op.speed * speed)
        whine = to_spectrum(tones(motor, self.amplitudes, self.angles, grid) * np.sqrt(speed)) * (0.3 + frame)
        whine *= self.tonality * (0.7 + 0.6 * op.load) * scale / rms(whine, grid)
        whine *= math.sqrt(speed.mean() / usual.mean())
        stop = slope(grid, 300, -9) * frame
        thump = to_spectrum(impulses(grid, ends, rng.lognormal(0, 0.2, len(ends)) * made[1:])) * stop
        thump *= self.thump * (0.5 + op.load) * scale / rms(stop, grid) / math.sqrt(2 * grid.seconds / self.period)
        healthy = rolling + whine + thump
        if op.fault in ("", "missing_stroke"):
            return healthy
        if op.fault == "rail_damage":  # balls roll over pitting at one place, in both directions
            moments = (self.dwell + (1 - self.dwell) * way for way in (self.place, 1 - self.place))
            times = np.concatenate([passing_times(stroke, 1, grid, -(n + at) / 2) for n, at in enumerate(moments)])
            times = times[:, None] + faults.uniform(-0.08, 0.08, (len(times), 16))
            hits = impulses(grid, times.ravel(), faults.lognormal(0, 0.4, times.size))
            faulty = to_spectrum(hits) * frame * band(grid, 1500, 7000)
        elif op.fault == "dry_rail":  # friction hisses all the way; stick-slip squeals at low speed
            squeal = ((speed > 0.05) & (speed < 0.7)) * np.exp(0.7 * drift(grid, faults, 0.1))
            pitch = shaft_angle(grid, faults, self.squeal * (1 + 0.03 * drift(grid, faults, 0.2)))
            squeal *= tones(pitch, np.array([1, 0.5, 0.3]), faults.uniform(size=3), grid)
            friction = to_spectrum(white(grid, faults) * speed) * band(grid, 2000, 7000)
            faulty = friction + to_spectrum(0.3 * squeal)
        else:  # the belt flaps after every reversal
            flap = pulses(grid, ends, 1.0, 0.02, 0.25) * np.abs(np.sin(2 * np.pi * shaft_angle(grid, faults, 7.0)))
            faulty = to_spectrum(white(grid, faults) * flap) * band(grid, 90, 450)
        return self.with_fault(healthy, faulty, op)


class Valve(Machine):
    """A solenoid valve: clicks when it opens and closes, flow while open, hum while energised."""

    faults: ClassVar[dict[str, Fault]] = {
        "leak": Fault("high", (2500, 7500), (-30, -20)),
        "dirt": Fault("high", (1500, 7500), (-12, -2)),
        "chatter": Fault("low", (150, 1500), (-13, -3)),
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
        number = np.floor(cycle).astype(np.int32)
        made = np.ones(number[-1] - number[0] + 1)
        if op.fault == "missing_stroke":
            made = made_strokes(op, len(made), 0.05 + 0.4 * op.severity)
        is_open = ((cycle - number < self.duty) * made[number - number[0]]).astype(np.float32)
        opens, closes = passing_times(cycle, 1, grid), passing_times(cycle, 1, grid, 1 - self.duty)
        stop, seat, jet = response(self.stop, grid), response(self.seat, grid), np.abs(response(self.jet, grid))
        opening = rng.lognormal(0, 0.15, len(opens)) * self.made_at(opens, cycle, made, grid)
        closing = rng.lognormal(0, 0.15, len(closes)) * self.made_at(closes, cycle, made, grid)
        click = strikes(grid, rng, opens, opening, 0.004) * stop
        click += strikes(grid, rng, closes, self.closing * closing, 0.004) * seat
        scale = rms(stop, grid) * math.sqrt(grid.seconds / self.period)
        flow = to_spectrum(white(grid, rng) * (0.05 + is_open)) * jet
        flow *= self.flow * (0.5 + op.load) * scale / rms(jet, grid) / math.sqrt(grid.samples * self.duty)
        coil = tones(shaft_angle(grid, rng, 100.0), np.array([1, 0.5, 0.5, 0.2]), rng.uniform(size=4), grid)
        healthy = click + flow + self.hum * scale * to_spectrum(coil * is_open)
        if op.fault in ("", "missing_stroke"):
            return healthy
        if op.fault == "leak":  # the closed valve hisses
            faulty = to_spectrum(white(grid, faults) * (1 - is_open)) * band(grid, 3000, 7000)
        elif op.fault == "dirt":  # grit under the plunger scrapes before closing
            scrape = pulses(grid, closes - 0.06, faults.lognormal(0, 0.3, len(closes)), 0.02, 0.02)
            faulty = to_spectrum(white(grid, faults) * scrape) * band(grid, 1800, 6500)
        else:  # a weak coil lets the plunger bounce
            bounce = opens[:, None] + 0.03 * np.cumsum(0.8 ** np.arange(1, 5)) * faults.uniform(0.8, 1.2)
            weights = np.tile(0.75 ** np.arange(4), len(opens))
            faulty = strikes(grid, faults, bounce.ravel(), weights, 0.004) * response(self.plate, grid)
        return self.with_fault(healthy, faulty, op)

    @staticmethod
    def made_at(times: Real, cycle: Phase, made: Real, grid: Grid) -> Real:
        """(times,) 1 or 0: whether the stroke at each time in s is made."""
        number = np.floor(np.interp(times, time(grid), cycle) + 1e-6).astype(int)
        return made[np.minimum(number - int(np.floor(cycle[0])), len(made) - 1)]
