"""Benchmark ``augment``: both views of a batch, beside BYOL-A's clip by clip and a ResNet-50 pre-training step."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch import Tensor

from asd_ray.bench import stages
from asd_ray.bench.byol_a import ClipByClip
from asd_ray.bench.processes import in_new_process
from asd_ray.bench.table import Benchmark, Comparison, Measured, duration, interleaved, say
from asd_ray.methods.base import resolve_precision
from asd_ray.methods.sia_moco.augment import TwoViews
from asd_ray.training.stage_run import StageRun

ENCODER = "resnet50"
LIMIT = {"cpu": 0.03, "cuda": 0.05}  # maximum share of a step


def run(quick: bool) -> Benchmark:
    """Measure on the GPU if there is one, else on all cores."""
    where, cores = stages.device(), os.cpu_count() or 1
    batch, repeats = (8 if quick else 64, 2 if quick else 7)
    if where.type == "cuda":
        batch = 256
    forecast = duration(10 + 1.5 * repeats if where.type == "cuda" else 20 + (repeats + 1) * batch * 0.5 / cores)
    say(f"augment: views and {ENCODER} steps of {batch} clips on {where.type}, {forecast}")
    ours, reference, views, step = in_new_process(measure, batch, repeats, threads=cores)
    size = f"{batch} clips of {stages.F} x {stages.T}, " + ("one GPU" if where.type == "cuda" else f"{cores} threads")
    return Benchmark(
        "augment",
        [
            Comparison(
                "both views of a batch",
                ours,
                reference,
                "BYOL-A's way clip by clip, on the CPU, where its loaders run it",
                note=f"{size}; banks of 2,048 clips, filled",
            ),
            Comparison(
                f"both views, in a {ENCODER} pre-training step",
                views,
                step,
                f"the whole step, {'bf16' if resolve_precision('auto', where) else 'fp32'}",
                LIMIT[where.type],
                at_most=True,
            ),
        ],
    )


def measure(batch: int, repeats: int) -> tuple[Measured, Measured, Measured, Measured]:
    """Clips/s of our views and of BYOL-A's; seconds of our views of a batch, and of a pre-training step."""
    where = stages.device()
    precision: stages.Precision = "fp32" if resolve_precision("auto", where) is None else "bf16"
    stage = stages.stage("pretrain", ENCODER, precision, batch, where)
    views = stage.get_submodule("views")
    assert isinstance(views, TwoViews)
    features = stages.log_mel(batch, where)
    slow, on_cpu = ClipByClip(stages.MEAN, stages.STD), features.cpu()
    for _ in range(-(-len(views.mix.bank.items) // (2 * batch))):
        views(features)
        slow(on_cpu)
    inner = 20 if where.type == "cuda" else 1

    def works(transform: Callable[[Tensor], Any], x: Tensor) -> Callable[[], int]:
        def work() -> int:
            for _ in range(inner if x.is_cuda else 1):
                transform(x)
            stages.synchronise(where)
            return len(x) * (inner if x.is_cuda else 1)

        return work

    run = stages.stage_run(stage, stages.clips(batch * inner, where))
    run.epoch(0)
    ours, reference, steps = interleaved(
        [works(views, features), works(slow, on_cpu), lambda: _epoch(run, batch * inner)], repeats
    )
    return ours, reference, per_batch(ours, batch), per_batch(steps, batch)


def _epoch(run: StageRun, clips: int) -> int:
    run.epoch(1)
    return clips


def per_batch(rate: Measured, batch: int) -> Measured:
    """Seconds per batch, from clips/s."""
    return Measured(tuple(batch / value for value in rate.values), "s")
