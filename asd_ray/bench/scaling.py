"""Two training workers of one thread each against one: the loop with gloo's process group, without Ray.

Legend: B batch of one worker.
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

STEPS = 4  # of an epoch
LIMIT = 1.85


def run(quick: bool) -> Benchmark:
    """Measures pre-training on the CPU: two workers that share the batch of one, and two with as many clips each."""
    whole, repeats = (8, 1) if quick else (64, 3)
    precision: Precision = "fp32" if resolve_precision("auto", torch.device("cpu")) is None else "bf16"
    result = Benchmark("scaling")
    for network in ("resnet18",) if quick else ("resnet18", "resnet50"):
        say(f"scaling: pre-training of {network} with one and with two workers of one thread, up to eight minutes")
        before = in_new_process(alone, network, precision, whole, repeats)
        two = {batch: together(network, precision, batch, repeats) for batch in (whole // 2, whole)}
        after = in_new_process(alone, network, precision, whole, repeats)
        one = joined([before, after])
        apart = in_processes(alone, [(network, precision, whole // 2, repeats)] * 2)
        limit = Measured(tuple(map(sum, zip(*(part.values for part in apart), strict=True))), "samples/s")
        what, reference = f"pretrain {network} {precision}, two workers", f"one worker, {whole} clips in a step"
        note = f"clips of {stages.F} x {stages.T}; memory that is freed is kept, as in a trial"
        result.lines += [
            Comparison(f"{what}, {whole} clips each in a step", two[whole], one, reference, LIMIT, note=note),
            Comparison(f"{what}, {whole // 2} clips each", two[whole // 2], one, reference, LIMIT),
            Comparison(
                f"{what}, {whole // 2} clips each", two[whole // 2], limit, "two that do not talk to each other"
            ),
        ]
    return result


def alone(network: str, precision: Precision, batch: int, repeats: int) -> Measured:
    """Samples/s of one worker."""
    return _rates(network, precision, batch, repeats)


def together(network: str, precision: Precision, batch: int, repeats: int) -> Measured:
    """Samples/s of two workers with one model, both together."""
    with tempfile.TemporaryDirectory(prefix="asd_ray-bench-") as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        found = in_processes(_one_of_two, [(rank, meeting, network, precision, batch, repeats) for rank in range(2)])
    return found[0]  # both count the clips of both


def _one_of_two(rank: int, meeting: str, network: str, precision: Precision, batch: int, repeats: int) -> Measured:
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    try:
        return _rates(network, precision, batch, repeats)
    finally:
        dist.destroy_process_group()


def _rates(network: str, precision: Precision, batch: int, repeats: int) -> Measured:
    keep_freed_memory()
    cpu, workers = torch.device("cpu"), Workers.of_process_group()
    stage = stages.stage("pretrain", network, precision, batch * workers.size, cpu)
    run = StageRun(stage, stages.clips(STEPS * batch, cpu), seed=0, workers=workers)
    run.epoch(0)
    wait_for_others()
    return Measured(tuple(run.epoch(epoch)["samples_per_s"] for epoch in range(1, repeats + 1)), "samples/s")
