"""Two training workers of one thread each against one: the loop with gloo's process group, without Ray.

Legend: B global batch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import torch.distributed as dist

from asd_ray.allocator import keep_freed_memory
from asd_ray.bench import stages
from asd_ray.bench.processes import in_processes, wait_for_others
from asd_ray.bench.stages import Precision
from asd_ray.bench.table import Benchmark, Comparison, Measured, say
from asd_ray.methods.base import resolve_precision
from asd_ray.training.stage_run import StageRun, Workers

STEPS = 2  # of an epoch, one of which is measured in each round
LIMIT = 1.85
ONE, TWO, APART = "one worker", "two workers", "two that do not talk to each other"


def run(quick: bool) -> Benchmark:
    """Measures pre-training on the CPU, in turns of seconds, because a machine's speed drifts.

    The batch of a step is the same however many workers share it. All workers are there all the time, each with its
    memory; in a turn those of one kind train, and the others wait.
    """
    batch, rounds = (8, 1) if quick else (64, 6)
    precision: Precision = "fp32" if resolve_precision("auto", torch.device("cpu")) is None else "bf16"
    result = Benchmark("scaling")
    for network in ("resnet18",) if quick else ("resnet18", "resnet50"):
        say(f"scaling: pre-training of {network} with one and with two workers of one thread, up to ten minutes")
        rates = measured(network, precision, batch, rounds)
        what = f"pretrain {network} {precision}, two workers"
        note = (
            f"{batch} clips of {stages.F} x {stages.T} in a step, {batch // 2} for each of two workers; {APART} are "
            f"{rates[APART].median / rates[ONE].median:.2f} times as fast as one"
        )
        result.lines += [
            Comparison(what, rates[TWO], rates[ONE], ONE, LIMIT, note=note),
            Comparison(f"{what}, against the machine", rates[TWO], rates[APART], APART),
        ]
    return result


def measured(network: str, precision: Precision, batch: int, rounds: int) -> dict[str, Measured]:
    """Samples/s of one worker, of two, and of two that do not talk to each other, in sum."""
    with tempfile.TemporaryDirectory(prefix="asd_ray-bench-") as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        settings = (meeting, network, precision, batch, rounds)
        # Fewer processes than workers: the one worker, and one of the two apart, share theirs and its memory.
        places = (((ONE, APART), 0), ((APART,), 1), ((TWO,), 0), ((TWO,), 1))
        first, second, two, _ = in_processes(_workers, [(kinds, rank, *settings) for kinds, rank in places])
    apart = [sum(pair) for pair in zip(first[APART], second[APART], strict=True)]
    rates = {ONE: first[ONE], TWO: two[TWO], APART: apart}  # each of two that talk counts the clips of both
    return {kind: Measured(tuple(values), "samples/s") for kind, values in rates.items()}


def _workers(
    kinds: tuple[str, ...], rank: int, meeting: str, network: str, precision: Precision, batch: int, rounds: int
) -> dict[str, list[float]]:
    """Samples/s in each round, of the workers of these kinds, which share a process."""
    keep_freed_memory()  # as a trial does
    if TWO in kinds:
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    try:
        runs = {kind: _run(kind, network, precision, batch) for kind in kinds}
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        for epoch in range(rounds + 1):
            for turn in (ONE, TWO, APART):
                wait_for_others()
                if turn in runs:
                    rates[turn].append(runs[turn].epoch(epoch)["samples_per_s"])
        return {kind: values[1:] for kind, values in rates.items()}  # the first epoch allocates what later ones use
    finally:
        if TWO in kinds:
            dist.destroy_process_group()


def _run(kind: str, network: str, precision: Precision, batch: int) -> StageRun:
    own, cpu = batch if kind == ONE else batch // 2, torch.device("cpu")
    stage = stages.stage("pretrain", network, precision, own if kind == APART else batch, cpu)
    return StageRun(stage, stages.clips(STEPS * own, cpu), seed=0, workers=Workers.of_process_group())
