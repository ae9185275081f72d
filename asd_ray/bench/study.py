"""Benchmark: time of the quickstart's study and its share of training steps; with 20 trials; with 1,000."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from asd_ray.bench import simulation
from asd_ray.bench.table import Benchmark, Comparison, Measured, say
from asd_ray.bench.timed_study import SMALL, Times, timed_study

LIMIT = 180  # seconds on two cores
OUTSIDE = 0.15  # of a study of 20 trials
LONG = ("search.num_trials=20", "resources.workers=1")
MORE = ("method.pretrain.epochs=18", "method.finetune.epochs=12")  # three times the quickstart's
CORES = os.cpu_count() or 1


def run(quick: bool) -> Benchmark:
    """Run the whole study several times, each with a new folder, new recordings and new features."""
    repeats = 1 if quick else 3
    overrides = (*SMALL, "search.num_trials=2") if quick else ()
    found = []
    with tempfile.TemporaryDirectory(prefix="asd_ray-bench-") as folder:
        for number in range(repeats):
            say(f"study: the quickstart's study, {number + 1} of {repeats}, about 2 min on two idle cores")
            found.append(timed_study(Path(folder) / f"study-{number}", overrides))
        say("study: the same with 20 trials and one worker, about 4 min on two idle cores")
        long = timed_study(Path(folder) / "long", (*LONG, *overrides))
        say("study: the same with three times the epochs, a trial on every core, about 6 min on two idle cores")
        longer = timed_study(Path(folder) / "longer", (*LONG, *MORE, *overrides), CORES)
    wall = Measured(tuple(times.wall for times in found), "s")
    steps = Measured(tuple(sum(times.steps) for times in found), "s")
    trials = Measured(tuple(sum(times.trials) for times in found), "s")
    share = Measured(tuple(1 - sum(times.steps) / times.wall for times in found), "of the time")
    return Benchmark(
        "study",
        [
            Comparison(
                "the quickstart's study",
                wall,
                limit=LIMIT,
                at_most=True,
                note=f"{len(found[0].steps)} trials, from the command to its end, on {os.cpu_count()} cores: imports, "
                "Ray's start, recordings, features, trials one after the other, report. The target is for two cores.",
            ),
            Comparison("all of it against its trials", wall, trials, "from the first trial's choice to the last's end"),
            Comparison("all of it against its training steps", wall, steps, "steps of all trials"),
            Comparison("share outside of steps", share),
            *_long(long, "the quickstart's study"),
            *_long(longer, "three times its epochs"),
            *simulation.comparisons(quick),
        ],
    )


def _long(times: Times, name: str) -> list[Comparison]:
    what = f"{name} with {len(times.steps)} trials"
    places = "one trial after the other" if times.at_once == 1 else f"{times.at_once} trials at a time"
    note = (
        f"{places}, with one worker; outside of trials are imports, Ray's start, recordings, features, baselines, "
        "tables and report"
    )
    parts = {"training": times.training, "training steps": times.steps}
    share = {part: Measured((times.share_outside(seconds),), "of the time") for part, seconds in parts.items()}
    return [
        Comparison(what, Measured((times.wall,), "s"), note=note),
        Comparison(f"{what}: share outside of trials", Measured((1 - times.span / times.wall,), "of the time")),
        Comparison(
            f"{what}: share outside of training",
            share["training"],
            limit=OUTSIDE,
            at_most=True,
            note="training is from a trial's first step to the report of its last epoch, with its checkpoints and k-NN "
            "probes; outside are all of the above, a trial's start, its scores and its files, and a place for trials "
            "that has none",
        ),
        Comparison(f"{what}: share outside of training steps", share["training steps"], limit=OUTSIDE, at_most=True),
    ]
