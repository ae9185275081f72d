"""Results of benchmarks: ours, the reference, their ratio and the target, as medians and spread over repeats."""

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

BUSY = 0.3  # load per core above which other programs disturb the measurements


@dataclass(frozen=True)
class Measured:
    """Repeats of one measurement.

    Attributes:
        values: one value per repeat; empty if it could not be measured.
        unit: unit of the values.
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
        what: name of the measured thing.
        ours: measured with asd_ray.
        reference: measured with the code that a user would run instead, in the same unit; None if there is none.
        reference_is: description of the reference, or the reason why there is none.
        limit: target of ours / reference, or of ours without a reference; a lower bound.
        at_most: True if the target is an upper bound.
        note: a remark for the reader.
        paired: True if repeat i of both was measured within the same seconds. The ratio is then taken per pair, so that
            the machine's momentary speed cancels.
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
        """The value to compare with the target: ratio of medians, median ratio of pairs, or ours without reference."""
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
    """All lines of one benchmark."""

    name: str
    lines: list[Comparison] = field(default_factory=list)

    def table(self) -> str:
        """The lines as a Markdown table, with notes."""
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
        """The lines with every repeat, and the machine, for JSON."""
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
    """Processor, cores, GPU, platform, and the load at the first call, before the measurements."""
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
    """The machine in one line, with a warning if other programs use it."""
    found = machine()
    gpu = f", {found['gpu']}" if found["gpu"] else ""
    idle = found["load"] < BUSY * found["cores"]
    busy = "" if idle else f"; busy before the start (load {found['load']:.1f}), which distorts the measurements"
    return f"{found['processor']}, {found['cores']} cores{gpu}{busy}"


def say(text: str) -> None:
    """Print progress to standard error."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A rounded forecast such as ``about 2 min``."""
    return f"about {max(1, round(seconds / 60))} min" if seconds > 90 else f"about {max(1, round(seconds))} s"


def rate(work: Callable[[], int], repeats: int, unit: str = "clips/s") -> Measured:
    """Items per second of a function that returns its number of items."""
    return interleaved([work], repeats, unit)[0]


def seconds_of(work: Callable[[], object], repeats: int) -> Measured:
    """Seconds per call of a function."""
    values = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        values.append(time.perf_counter() - started)
    return Measured(tuple(values), "s")


def interleaved(works: Sequence[Callable[[], int]], repeats: int, unit: str = "clips/s") -> list[Measured]:
    """Items per second of several functions, called in turn so that other load on the machine hits all of them."""
    values: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for own, work in zip(values, works, strict=True):
            started = time.perf_counter()
            done = work()
            own.append(done / (time.perf_counter() - started))
    return [Measured(tuple(own), unit) for own in values]


def joined(measured: Iterable[Measured]) -> Measured:
    """Join the repeats of several measurements."""
    parts = list(measured)
    return Measured(tuple(value for part in parts for value in part.values), parts[0].unit)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
