"""Benchmark: two training workers of one thread each against one, with gloo and without Ray.

Legend: B global batch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from asd_ray.bench import stages
from asd_ray.bench.memory import available_memory
from asd_ray.bench.processes import in_processes, wait_for_others
from asd_ray.bench.stages import Precision
from asd_ray.bench.table import Benchmark, Comparison, Measured, say
from asd_ray.memory import keep_freed_memory
from asd_ray.methods.base import resolve_precision
from asd_ray.methods.workers import Workers
from asd_ray.training.stage_run import StageRun

LIMIT = 1.85
ONE, TWO, APART = "one worker", "two workers", "two that do not talk to each other"


class Case(NamedTuple):
    """Network, batch size, steps per round, number of rounds, and memory of all workers together in bf16."""

    network: str
    batch: int
    steps: int
    rounds: int
    gib: int


# Batch sizes: 64 of studies/sia_moco_laptop.yaml, 256 of studies/sia_moco.yaml, 128 fits most computers.
CASES = (
    Case("resnet18", 64, 2, 10, 8),
    Case("resnet18", 256, 1, 8, 15),
    Case("resnet50", 64, 2, 6, 13),
    Case("resnet50", 128, 1, 6, 20),
)


def run(quick: bool) -> Benchmark:
    """Measure pre-training on the CPU in alternating rounds of seconds, because a machine's speed drifts.

    A step's batch has the same size for one and for two workers. All workers exist all the time, each with its memory;
    in a round the workers of one kind train, and the others wait.
    """
    precision: Precision = "fp32" if resolve_precision("auto", torch.device("cpu")) is None else "bf16"
    result = Benchmark("scaling")
    for case in (Case("resnet18", 8, 1, 1, 2),) if quick else CASES:
        what = f"pretrain {case.network} {precision}, batches of {case.batch}, two workers"
        needed, free = case.gib * (2 if precision == "fp32" else 1), available_memory()
        if needed > free:
            reason = f"needs about {needed} GiB of memory, {free:.1f} are free"
            result.lines.append(Comparison(what, Measured((), "samples/s"), reference_is=reason))
            continue
        say(f"scaling: {what} of one thread against one, up to ten minutes")
        rates = measured(case, precision)
        apart = Comparison("", rates[APART], rates[ONE], paired=True)
        note = (
            f"clips of {stages.F} x {stages.T}, {case.batch // 2} in a step of each of two workers; {APART} are "
            f"{apart.value:.2f} times as fast as one; ratios are of pairs that were measured seconds apart"
        )
        result.lines += [
            Comparison(what, rates[TWO], rates[ONE], ONE, LIMIT, note=note, paired=True),
            Comparison(f"{what}, against the machine", rates[TWO], rates[APART], APART, paired=True),
        ]
    return result


def measured(case: Case, precision: Precision) -> dict[str, Measured]:
    """Samples/s of one worker, of two workers, and of two that do not communicate (their sum)."""
    with tempfile.TemporaryDirectory(prefix="asd_ray-bench-") as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        # Fewer processes than workers: the one worker, and one of the two apart, share theirs and its memory.
        places = (((ONE, APART), 0), ((APART,), 1), ((TWO,), 0), ((TWO,), 1))
        arguments = [(kinds, rank, meeting, case, precision) for kinds, rank in places]
        first, second, two, _ = in_processes(_workers, arguments)
    apart = [sum(pair) for pair in zip(first[APART], second[APART], strict=True)]
    rates = {ONE: first[ONE], TWO: two[TWO], APART: apart}  # each of two that talk counts the clips of both
    return {kind: Measured(tuple(values), "samples/s") for kind, values in rates.items()}


def _workers(
    kinds: tuple[str, ...], rank: int, meeting: str, case: Case, precision: Precision
) -> dict[str, list[float]]:
    """Samples/s in each round of the workers of these kinds, which share a process."""
    keep_freed_memory()  # as a trial does
    if TWO in kinds:
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    try:
        runs = {kind: _run(kind, case, precision) for kind in kinds}
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        turns = (ONE, TWO, APART)
        for epoch in range(case.rounds + 1):
            for turn in turns if epoch % 2 else reversed(turns):  # a drift within a round favours none
                wait_for_others()
                if turn in runs:
                    rates[turn].append(runs[turn].epoch(epoch)["samples_per_s"])
        return {kind: values[1:] for kind, values in rates.items()}  # the first epoch allocates what later ones use
    finally:
        if TWO in kinds:
            dist.destroy_process_group()


def _run(kind: str, case: Case, precision: Precision) -> StageRun:
    part, cpu = 1 if kind == ONE else 2, torch.device("cpu")
    batch = case.batch // part if kind == APART else case.batch
    stage = stages.stage("pretrain", case.network, precision, batch, cpu)
    clips = stages.clips(case.steps * case.batch // part, cpu)
    return StageRun(stage, clips, seed=0, workers=Workers.of_process_group())
