"""Physical models of machines and of what goes wrong with them.

A machine is drawn once (its speed, its numbers of blades or teeth, its resonances) and then heard in many operations
(speed, load, moment). A fault changes or adds what its mechanism says: impacts at a defect's order of the shaft excite
the body, a loose belt flaps after a reversal, a clogged fan surges. The healthy part of a sound draws from one random
stream and the fault from another, so that a clip with and without its fault differs by the fault alone.

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
        return shaft_angle(self.grid, self.rng, hertz * self.speed * (1 + wander * drift(self.grid, self.rng, 2.0)))


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
    def __init__(self, rng: Generator) -> None:
        """Draws the individual's parameters."""

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
        return healthy + math.sqrt(ratio) * faulty


def made_strokes(op: Operation, strokes: int, share: float) -> Real:
    """(strokes,) 1 for a stroke that the machine makes, 0 for one that it misses: ``share`` of them, at least one.

    Not the first and the last, of which the clip may have next to nothing.
    """
    made = np.ones(strokes)
    inner = 1 + op.fault_rng.permutation(max(strokes - 2, 0))
    made[inner[: max(1, round(share * strokes))]] = 0
    return made


def bearing_defect(op: Operation, shaft: Phase, order: float, body: Body) -> Spectrum:
    """A spall on a ball strikes both races: ``order`` impacts a revolution, with slip, loudest where the cage carries
    the ball through the load (0.4 times a revolution)."""
    rng = op.fault_rng
    slip = 1 + 0.004 * drift(op.grid, rng, 0.5)
    balls = np.cumsum(np.diff(shaft, prepend=shaft[0]) * slip)
    times = passing_times(balls, order, op.grid, rng.uniform())
    cage = np.interp(times, time(op.grid), balls) * 0.4 + rng.uniform()
    weights = (1 + 0.9 * np.cos(2 * np.pi * cage)) * rng.lognormal(0, 0.2, len(times))
    return to_spectrum(impulses(op.grid, times, weights)) * response(body, op.grid)


def unbalance(op: Operation, shaft: Phase, carrier: Signal) -> Spectrum:
    """The heavy side of a rotor: the frame shakes at the shaft's speed and its harmonics, and modulates ``carrier``."""
    rng = op.fault_rng
    shake = tones(shaft, 1 / np.arange(1, 9) ** 0.7, rng.uniform(size=8), op.grid)
    beat = 1 + 0.7 * drift(op.grid, rng, 0.7)
    return to_spectrum(beat * (shake + carrier * tones(shaft, np.ones(1), rng.uniform(size=1), op.grid)))
