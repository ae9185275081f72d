"""Benchmark: driver and report of a study of 1,000 trials in which only the training is simulated.

Search, storage, scheduler, callbacks, gauges, records, score files, tables and report are the real ones. A simulated
trial reports its epochs at once (:mod:`asd_ray.bench.stub_study`).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

from asd_ray.bench.memory import MISSING
from asd_ray.bench.processes import in_new_process, local_ray
from asd_ray.bench.stub_study import Stub, open_folder, run_stub, write_study
from asd_ray.bench.table import Comparison, Measured, duration, say, seconds_of
from asd_ray.study.folder import TrialRecord
from asd_ray.study.progress import StudyProgress


@dataclass
class Observed:
    """Time and memory of a study's driver at the end of each trial.

    Attributes:
        wall, cpu: seconds since the first trial's start: elapsed time, and processor time of the driver.
        memory: number of ended trials -> memory of the driver alone (USS) in MiB.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: dict[int, float] = field(default_factory=dict)

    def per_trial(self, first: int, last: int, what: str = "wall") -> float:
        """Mean seconds per trial from trial ``first`` to ``last``, counted from 1 in the order in which they ended."""
        values = [0.0, *getattr(self, what)]
        return (values[last] - values[first - 1]) / (last - first + 1)


class Watched(StudyProgress):
    """A study's progress that takes the time, and the driver's memory every hundred trials."""

    def __init__(self, trials: int, concurrency: int) -> None:
        super().__init__(None, trials, concurrency)
        self.observed = Observed()
        self.begin = (0.0, 0.0)

    def trial_started(self, number: int, repeat: int, values: dict[str, Any]) -> None:
        if not (self.running or self.observed.wall):
            self.begin = (time.perf_counter(), time.process_time())
        super().trial_started(number, repeat, values)

    def trial_finished(self, record: TrialRecord) -> None:
        super().trial_finished(record)
        seen = self.observed
        seen.wall.append(time.perf_counter() - self.begin[0])
        seen.cpu.append(time.process_time() - self.begin[1])
        if len(seen.wall) % 100 == 0 or len(seen.wall) == self.total:
            import psutil

            seen.memory[len(seen.wall)] = psutil.Process().memory_full_info().uss / 2**20


def simulate(path: Path, trials: int) -> Observed:
    """Run a study of simulated trials on a local Ray. The calling process is the study's driver."""
    from asd_ray.cluster.session import concurrency
    from asd_ray.study import trials as study_trials

    study, folder, detectors = open_folder(path, trials)
    with local_ray():
        view = Watched(trials, concurrency(study.resources))
        stub = Stub(study, folder, detectors)
        with (
            view.open(folder.path / "logs" / "study.log"),
            mock.patch.object(study_trials, "run_trial", run_stub),
        ):
            study_trials.run_trials(study, folder, stub, view)  # type: ignore[arg-type]
    return view.observed


def comparisons(quick: bool) -> list[Comparison]:
    """Measure a search of 1,000 trials, and reports of 500 and of these 1,000 trials."""
    trials, written, repeats = (50, 25, 1) if quick else (1000, 500, 3)
    early = min(100, trials // 2)
    if find_spec("psutil") is None:
        return [Comparison("a simulated study's driver", Measured((), "s"), note=MISSING)]
    with tempfile.TemporaryDirectory(prefix="asd_ray-bench-") as name:
        folder = Path(name)
        say(f"study: a simulated study of {trials} trials, {duration(0.6 * trials)} on two idle cores")
        seen = in_new_process(simulate, folder / "searched", trials)
        say(f"study: reports of {written} and {trials} trials, a minute or two")
        write_study(folder / "written", written)
        half, whole = (_report(folder / of, repeats) for of in ("written", "searched"))
        sizes = {part: _size(folder / "searched" / part) for part in ("report.html", "optuna.db", "tune", "trials")}

    def both(what: str) -> tuple[Measured, Measured]:
        late, soon = seen.per_trial(trials - early + 1, trials, what), seen.per_trial(1, early, what)
        return Measured((late,), "s per trial"), Measured((soon,), "s per trial")

    last, first = f"the last {early} of {trials:,} simulated trials", f"the first {early}"
    memory = {count: Measured((used,), "MiB") for count, used in seen.memory.items()}
    table = "on disk: " + ", ".join(f"{part} {size:.3g} MB" for part, size in sizes.items())
    return [
        Comparison(f"driver's processor time, {last}", *both("cpu"), first, limit=2, at_most=True),
        Comparison(f"time, {last}", *both("wall"), first),
        Comparison(
            f"driver's memory (USS) after {trials:,} trials",
            memory[trials],
            memory[min(memory)],
            f"after {min(memory)}",
        ),
        Comparison(
            f"study report, {written} trials", half, limit=5, at_most=True, note="the whole command, imports and all"
        ),
        Comparison(f"study report, {trials:,} trials", whole),
        Comparison("report.html", Measured((sizes["report.html"],), "MB"), limit=5, at_most=True, note=table),
    ]


def _report(folder: Path, repeats: int) -> Measured:
    command = [sys.executable, "-m", "asd_ray", "study", "report", str(folder)]
    return seconds_of(lambda: subprocess.run(command, check=True, capture_output=True), repeats)


def _size(path: Path) -> float:
    """MB of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6
