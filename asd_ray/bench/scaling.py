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
from asd_ray.bench.processes import in_new_process, in_processes, wait_for_others
from asd_ray.bench.stages import Precision
from asd_ray.bench.table import Benchmark, Comparison, Measured, joined, say
from asd_ray.methods.base import resolve_precision
from asd_ray.training.stage_run import StageRun, Workers

STEPS = 3  # of an epoch
EPOCHS = 2  # that are measured, in each round
LIMIT = 1.85


def run(quick: bool) -> Benchmark:
    """Measures pre-training on the CPU, in turns, because a machine's speed drifts.

    The batch of a step is the same however many workers share it.
    """
    batch, rounds = (8, 1) if quick else (64, 3)
    precision: Precision = "fp32" if resolve_precision("auto", torch.device("cpu")) is None else "bf16"
    result = Benchmark("scaling")
    for network in ("resnet18",) if quick else ("resnet18", "resnet50"):
        say(f"scaling: pre-training of {network} with one and with two workers of one thread, up to six minutes")
        found = (_round(network, precision, batch) for _ in range(rounds))
        one, two, apart = map(joined, zip(*found, strict=True))
        what = f"pretrain {network} {precision}, two workers"
        note = (
            f"{batch} clips of {stages.F} x {stages.T} in a step, {batch // 2} for each of two workers; two that do "
            f"not talk to each other are {apart.median / one.median:.2f} times as fast as one"
        )
        result.lines += [
            Comparison(what, two, one, "one worker", LIMIT, note=note),
            Comparison(f"{what}, against the machine", two, apart, "two that do not talk to each other"),
        ]
    return result


def _round(network: str, precision: Precision, batch: int) -> tuple[Measured, Measured, Measured]:
    """Samples/s of one worker, of two, and of two that do not talk to each other, in sum."""
    one = in_new_process(alone, network, precision, batch)
    two = together(network, precision, batch)
    apart = in_processes(alone, [(network, precision, batch // 2)] * 2)
    return one, two, Measured(tuple(map(sum, zip(*(part.values for part in apart), strict=True))), "samples/s")


def alone(network: str, precision: Precision, batch: int) -> Measured:
    """Samples/s of one worker."""
    return _rates(network, precision, batch, batch)


def together(network: str, precision: Precision, batch: int) -> Measured:
    """Samples/s of two workers with one model."""
    with tempfile.TemporaryDirectory(prefix="asd_ray-bench-") as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        found = in_processes(_one_of_two, [(rank, meeting, network, precision, batch) for rank in range(2)])
    return found[0]  # both count the clips of both


def _one_of_two(rank: int, meeting: str, network: str, precision: Precision, batch: int) -> Measured:
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    try:
        return _rates(network, precision, batch, batch // 2)
    finally:
        dist.destroy_process_group()


def _rates(network: str, precision: Precision, batch: int, own: int) -> Measured:
    keep_freed_memory()  # as a trial does
    cpu = torch.device("cpu")
    stage = stages.stage("pretrain", network, precision, batch, cpu)
    run = StageRun(stage, stages.clips(STEPS * own, cpu), seed=0, workers=Workers.of_process_group())
    run.epoch(0)
    wait_for_others()
    return Measured(tuple(run.epoch(epoch)["samples_per_s"] for epoch in range(1, EPOCHS + 1)), "samples/s")
