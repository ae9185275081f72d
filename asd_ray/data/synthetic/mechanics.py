"""Physical models of machines and their faults: base classes and shared faults.

A machine is drawn once (speed, numbers of blades or teeth, resonances) and then recorded in many operations (speed,
load). A fault adds or changes the sound of its mechanism: a bearing defect strikes the body at its order of the shaft,
a loose belt flaps after a reversal, a clogged fan surges. Healthy sound and fault use separate random streams, so that
a clip with and without its fault differs by the fault alone.

Orders and mechanisms follow the standard texts of condition monitoring (R. B. Randall, Vibration-based Condition
Monitoring, 2nd ed. 2021: bearings, gears, imbalance; C. E. Brennen, Hydrodynamics of Pumps, 1994: cavitation).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.random import Generator

from asd_ray.data.synthetic.acoustics import (
    Body,
    Grid,
    Phase,
    Real,
    Signal,
    Spectrum,
    drift,
    impulses,
    passing_times,
    power,
    response,
    shaft_angle,
    time,
    to_spectrum,
    tones,
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
        load: 0 (idle) to 1 (full).
        fault: kind, or empty for a healthy machine.
        severity: of the fault, 0 to 1.
    """

    grid: Grid
    rng: Generator
    fault_rng: Generator
    speed: float = 1.0
    load: float = 0.5
    fault: str = ""
    severity: float = 0.0

    def shaft(self, hertz: float, wander: float = 0.004) -> Phase:
        """(N,) angle of a shaft in revolutions; ``hertz`` is its nominal speed, ``wander`` its relative fluctuation."""
        return shaft_angle(self.grid, self.rng, hertz * self.speed * (1 + wander * drift(self.grid, self.rng, 2.0)))


@dataclass(frozen=True)
class Fault:
    """Loudness of a fault: its power in its band relative to the healthy machine, in dB at severity 0 and 1."""

    band: Band
    hertz: tuple[float, float]
    decibels: tuple[float, float]

    def level(self, severity: float) -> float:
        return self.decibels[0] + severity * (self.decibels[1] - self.decibels[0])


class Machine(ABC):
    """One individual of a machine type."""

    faults: ClassVar[dict[str, Fault]]

    @abstractmethod
    def __init__(self, rng: Generator) -> None:
        """Draw the individual's parameters."""

    @abstractmethod
    def sound(self, op: Operation) -> Spectrum:
        """(F,) spectrum of the radiated sound."""

    def with_fault(self, healthy: Spectrum, faulty: Spectrum, op: Operation) -> Spectrum:
        """(F,) healthy sound plus the fault at the level of its severity."""
        fault = self.faults[op.fault]
        here = power(faulty, op.grid, *fault.hertz)
        if here == 0:
            return healthy
        ratio = 10 ** (fault.level(op.severity) / 10) * power(healthy, op.grid, *fault.hertz) / here
        return healthy + math.sqrt(ratio) * faulty


def made_strokes(op: Operation, strokes: int, share: float) -> Real:
    """(strokes,) 1 for a stroke made, 0 for one missed: ``share`` of them, at least one.

    The first and last stroke are made, as the clip may hold little of them.
    """
    made = np.ones(strokes)
    inner = 1 + op.fault_rng.permutation(max(strokes - 2, 0))
    made[inner[: max(1, round(share * strokes))]] = 0
    return made


def bearing_defect(op: Operation, shaft: Phase, order: float, body: Body) -> Spectrum:
    """(F,) a damaged ball strikes both races: ``order`` impacts per revolution, with slip.

    Impacts are loudest where the cage carries the ball through the load (0.4 times per revolution).
    """
    rng = op.fault_rng
    slip = 1 + 0.004 * drift(op.grid, rng, 0.5)
    balls = np.cumsum(np.diff(shaft, prepend=shaft[0]) * slip)
    times = passing_times(balls, order, op.grid, rng.uniform())
    cage = np.interp(times, time(op.grid), balls) * 0.4 + rng.uniform()
    weights = (1 + 0.9 * np.cos(2 * np.pi * cage)) * rng.lognormal(0, 0.2, len(times))
    return to_spectrum(impulses(op.grid, times, weights)) * response(body, op.grid)


def unbalance(op: Operation, shaft: Phase, carrier: Signal) -> Spectrum:
    """(F,) a rotor with a heavy side: the frame shakes at harmonics of the shaft's speed and modulates ``carrier``."""
    rng = op.fault_rng
    shake = tones(shaft, 1 / np.arange(1, 9) ** 0.7, rng.uniform(size=8), op.grid)
    beat = 1 + 0.7 * drift(op.grid, rng, 0.7)
    return to_spectrum(beat * (shake + carrier * tones(shaft, np.ones(1), rng.uniform(size=1), op.grid)))
