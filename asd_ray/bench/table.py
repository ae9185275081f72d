"""What a benchmark says: ours, the reference, their ratio and the target, with medians and spread over repeats."""

from __future__ import annotations

import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tabulate import tabulate

BUSY = 0.3  # load per core from which others disturb the measurements


@dataclass(frozen=True)
class Measured:
    """Repeats of one measurement.

    Attributes:
        values: of every repeat; none where it could not be measured.
        unit: of the values.
    """

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        return statistics.median(self.values) if self.values else math.nan

    def __str__(self) -> str:
        if not self.values:
            return "not measured"
        if len(self.values) == 1:
            return f"{_short(self.median)} {self.unit}"
        return f"{_short(self.median)} ({_short(min(self.values))} to {_short(max(self.values))}) {self.unit}"


@dataclass(frozen=True)
class Comparison:
    """One line of a benchmark.

    Attributes:
        what: was measured.
        ours: with asd_ray.
        reference: the same unit, of the code that a user would run instead, or None where the target is absolute.
        reference_is: what the reference is, or why there is none.
        limit: the target: ours / reference, or ours itself, at least (or at most).
        at_most: the target is an upper bound.
        note: what a reader must know.
        paired: repeat i of both was measured in the same seconds, and the ratio is that of a pair: how fast the machine
            is at a time falls on both.
    """

    what: str
    ours: Measured
    reference: Measured | None = None
    reference_is: str = ""
    limit: float | None = None
    at_most: bool = False
    note: str = ""
    paired: bool = False

    @property
    def value(self) -> float:
        """What the target is about: the ratio of the medians, or the median of the pairs' ratios, or ours where there
        is no reference."""
        if not self.reference:
            return self.ours.median
        if self.paired:
            pairs = zip(self.ours.values, self.reference.values, strict=True)
            return statistics.median(ours / reference for ours, reference in pairs)
        return self.ours.median / self.reference.median

    @property
    def met(self) -> bool | None:
        if self.limit is None or not self.ours.values:
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit


@dataclass
class Benchmark:
    """All lines of one benchmark and where they were measured."""

    name: str
    lines: list[Comparison] = field(default_factory=list)

    def table(self) -> str:
        """For a person, in Markdown."""
        header = ["what", "ours", "reference", "ratio", "target", "met"]
        rows = []
        for line in self.lines:
            target = "" if line.limit is None else f"{'≤' if line.at_most else '≥'} {_short(line.limit)}"
            reference = f"{line.reference}: {line.reference_is}" if line.reference else line.reference_is
            ratio = _short(line.value) if line.reference else ""
            met = {None: "", True: "yes", False: "no"}[line.met]
            rows.append([line.what, str(line.ours), reference, ratio, target, met])
        notes = [f"{line.what}: {line.note}" for line in self.lines if line.note]
        return "\n\n".join([tabulate(rows, header, "pipe", disable_numparse=True), *notes])

    def as_dict(self) -> dict[str, Any]:
        """For a script: every repeat."""
        return {
            "benchmark": self.name,
            "machine": machine(),
            "lines": [
                {
                    "what": line.what,
                    "unit": line.ours.unit,
                    "ours": list(line.ours.values),
                    "reference": list(line.reference.values) if line.reference else None,
                    "reference_is": line.reference_is,
                    "value": line.value if line.ours.values else None,
                    "target": line.limit,
                    "at_most": line.at_most,
                    "paired": line.paired,
                    "met": line.met,
                    "note": line.note,
                }
                for line in self.lines
            ],
        }


@cache
def machine() -> dict[str, Any]:
    """What the numbers are measured on, and how busy it was when this was first asked for: before the measurements."""
    import torch

    from asd_ray.study.folder import processor

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": platform.platform(),
        "load": os.getloadavg()[0],
    }


def described() -> str:
    """The machine in a line, and a warning if others use it."""
    found = machine()
    gpu = f", {found['gpu']}" if found["gpu"] else ""
    idle = found["load"] < BUSY * found["cores"]
    busy = "" if idle else f"; busy before the start (load {found['load']:.1f}), which distorts what is measured"
    return f"{found['processor']}, {found['cores']} cores{gpu}{busy}"


def say(text: str) -> None:
    """Tells on standard error what is being measured."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A forecast, as people say it."""
    return f"about {max(1, round(seconds / 60))} min" if seconds > 90 else f"about {max(1, round(seconds))} s"


def rate(work: Callable[[], int], repeats: int, unit: str = "clips/s") -> Measured:
    """Items per second of a function that returns how many it did."""
    values = []
    for _ in range(repeats):
        started = time.perf_counter()
        done = work()
        values.append(done / (time.perf_counter() - started))
    return Measured(tuple(values), unit)


def seconds_of(work: Callable[[], object], repeats: int) -> Measured:
    """How long a function takes."""
    values = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        values.append(time.perf_counter() - started)
    return Measured(tuple(values), "s")


def interleaved(works: Sequence[Callable[[], int]], repeats: int, unit: str = "clips/s") -> list[Measured]:
    """Rates of several functions taken in turn, so that what else the machine does falls on all of them."""
    values: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for own, work in zip(values, works, strict=True):
            own.extend(rate(work, 1, unit).values)
    return [Measured(tuple(own), unit) for own in values]


def joined(measured: Iterable[Measured]) -> Measured:
    """The repeats of several measurements as one."""
    parts = list(measured)
    return Measured(tuple(value for part in parts for value in part.values), parts[0].unit)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
