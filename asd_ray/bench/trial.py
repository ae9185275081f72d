"""Benchmark: time of a trial outside of its training steps, for first and later trials, with and without Ray Train."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from asd_ray.bench.processes import in_new_process
from asd_ray.bench.table import Benchmark, Comparison, Measured, joined, say
from asd_ray.bench.timed_study import SMALL, timed_study
from asd_ray.config.data import SyntheticConfig
from asd_ray.data.synthetic import recordings as synthetic

CORES = os.cpu_count() or 1
SET = SyntheticConfig(machines=3, ids=2, train=24, test_normal=20, test_anomaly=20)  # the quickstart's
SMALL_SET = SyntheticConfig(machines=1, ids=2, train=10, test_normal=6, test_anomaly=6)


def run(quick: bool) -> Benchmark:
    """Run studies of short trials, one after the other, on the same recordings."""
    repeats, trials, data = (1, 2, SMALL_SET) if quick else (2, 4, SET)
    kinds = {
        "one worker": (1, CORES, True, 3),
        "one worker, resources.reuse_processes: false": (1, CORES, False, 6),
        "two workers through Ray Train": (2, max(1, CORES // 2), True, 15),
    }
    result = Benchmark("trial")
    with tempfile.TemporaryDirectory(prefix="asd_ray-bench-") as name:
        folder = Path(name)
        say("trial: making recordings, up to a minute")
        in_new_process(synthetic.synthesise, folder / "data", data)
        for kind, (workers, cpus, reuse, limit) in kinds.items():
            overrides = (
                *(SMALL if quick else ("method.pretrain.epochs=2", "method.finetune.epochs=1")),
                f"data.root={folder / 'data'}",
                f"features.store={folder / 'features'}",
                f"search.num_trials={trials}",
                f"resources.workers={workers}",
                f"resources.cpus_per_worker={cpus}",
                f"resources.reuse_processes={str(reuse).lower()}",
            )
            cold, warm, starts = [], [], []
            for number in range(repeats):
                say(f"trial: a study of {trials} trials, {kind}, {number + 1} of {repeats}, about a minute")
                found = timed_study(folder / f"{workers}-{reuse}-{number}", overrides)
                cold.append(Measured((found.outside[0],), "s"))
                warm.append(Measured(tuple(found.outside[1:]), "s"))
                starts.append(Measured(found.starts[1:], "s"))
            result.lines += [
                Comparison(f"a study's first trial outside of its steps, {kind}", joined(cold)),
                Comparison(f"a later trial outside of its steps, {kind}", joined(warm)),
                Comparison(f"of that, until its first step, {kind}", joined(starts), limit=limit, at_most=True),
            ]
    first = result.lines[0]
    note = (
        "from the moment its values are drawn, or the trial before has ended, to its own end: starting the worker, "
        "imports, building networks, checkpoints, probes, embeddings, scores and saving the detector"
    )
    result.lines[0] = Comparison(first.what, first.ours, note=note)
    return result
