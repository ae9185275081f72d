"""Training steps against the same network's bare passes, and both against what the machine can multiply.

Legend: B batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from asd_ray.bench import stages
from asd_ray.bench.processes import in_new_process
from asd_ray.bench.stages import Precision, StageName
from asd_ray.bench.table import Benchmark, Comparison, Measured, interleaved, say
from asd_ray.methods.base import resolve_precision

STEPS: tuple[tuple[StageName, str], ...] = (
    ("pretrain", "resnet18"),
    ("pretrain", "resnet50"),
    ("finetune", "resnet18"),
    ("finetune", "resnet50"),
    ("finetune", "mobilefacenet"),
)
QUICK = (STEPS[0], STEPS[-1])
COUNTED = 4  # clips of the step whose operations are counted
ROUNDS = {"cpu": 1, "cuda": 20}  # steps between two looks at the clock


@dataclass(frozen=True)
class Found:
    """Of one stage, network and precision: samples/s of the step and of the bare passes, and the operations of each."""

    step: Measured
    bare: Measured
    step_flops: float
    bare_flops: float


def run(quick: bool) -> Benchmark:
    """Measures on the GPU if there is one, else on all cores."""
    where, cores = stages.device(), os.cpu_count() or 1
    batch = 256 if where.type == "cuda" else 4 if quick else 16
    repeats = 2 if quick else 5
    on = "one GPU" if where.type == "cuda" else f"{cores} threads"
    precisions: list[Precision] = ["fp32", "bf16"] if resolve_precision("auto", where) else ["fp32"]
    if quick:
        precisions = precisions[-1:]
    result = Benchmark("step")
    for precision in precisions:
        say(f"step: what the machine can multiply in {precision}")
        matmul, convolution = in_new_process(ceiling, precision, repeats, threads=cores)
        result.lines.append(
            Comparison(f"convolution 3 x 3, forward, {precision}", convolution, matmul, "product of square matrices")
        )
        for name, network in QUICK if quick else STEPS:
            say(f"step: {name} of {network} in {precision}, batches of {batch}, {on}; up to a minute or two")
            found = in_new_process(measure, name, network, precision, batch, repeats, threads=cores)
            result.lines += _lines(f"{name} {network} {precision}", found, convolution)
    result.lines[0] = _with_note(result.lines[0], batch, on, where)
    return result


def _with_note(line: Comparison, batch: int, on: str, where: torch.device) -> Comparison:
    tf32 = " On this GPU fp32 convolutions are TF32, as torch has it by default." if where.type == "cuda" else ""
    missing = "" if resolve_precision("auto", where) else " This processor has no bf16."
    note = (
        f"batches of {batch} clips of {stages.F} x {stages.T}, {on}. A step is all of it: batch, two augmented views, "
        "queries and keys in pre-training, loss, backward pass, optimiser. Bare is forward and backward of the same "
        "network in a loop. Operations are counted by torch (a multiply-add is two). MobileFaceNet is no timm encoder "
        f"and is only fine-tuned.{tf32}{missing}"
    )
    return Comparison(line.what, line.ours, line.reference, line.reference_is, note=note)


def _lines(what: str, found: Found, convolution: Measured) -> list[Comparison]:
    step, bare = flops(found.step, found.step_flops), flops(found.bare, found.bare_flops)
    return [
        Comparison(what, found.step, found.bare, "bare"),
        Comparison(f"{what}, operations", step, bare, "bare"),
        Comparison(f"{what}, operations against the machine", step, convolution, "convolution"),
    ]


def flops(samples: Measured, each: float) -> Measured:
    """GFLOP/s from samples/s and the operations of each."""
    return Measured(tuple(value * each / 1e9 for value in samples.values), "GFLOP/s")


def ceiling(precision: Precision, repeats: int) -> tuple[Measured, Measured]:
    """GFLOP/s of a product of square matrices, and of a 3 x 3 convolution of 256 channels in channels_last."""
    where = stages.device()
    side, batch = (8192, 256) if where.type == "cuda" else (2048, 16)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=where, dtype=dtype) for _ in range(2))
    layer = nn.Conv2d(256, 256, 3, padding=1, bias=False).to(where, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(batch, 256, 16, 40, device=where, dtype=dtype).to(memory_format=torch.channels_last)
    works: list[tuple[Callable[[], Any], float]] = [
        (lambda: a @ b, 2 * side**3),
        (lambda: layer(x), 2 * x.numel() * 256 * 9),
    ]
    with torch.inference_mode():
        rates = interleaved([_repeated(work, 1, where) for work, _ in works], repeats + 1)  # the first warms up
    found = [flops(Measured(rate.values[1:], rate.unit), each) for rate, (_, each) in zip(rates, works, strict=True)]
    return found[0], found[1]


def _repeated(work: Callable[[], Any], samples: int, where: torch.device) -> Callable[[], int]:
    rounds = ROUNDS[where.type]

    def repeated() -> int:
        for _ in range(rounds):
            work()
        stages.synchronise(where)
        return rounds * samples

    return repeated


def measure(name: StageName, network: str, precision: Precision, batch: int, repeats: int) -> Found:
    """One stage and network; both are run once before they count."""
    where = stages.device()
    rounds = ROUNDS[where.type]
    training = stages.stage_run(
        stages.stage(name, network, precision, batch, where), stages.clips(batch * rounds, where)
    )
    bare_network = _bare(network, precision, where)
    x = torch.randn(batch, 1, stages.F, stages.T, device=where)

    def step() -> int:
        training.epoch(0)
        return batch * rounds

    step_rate, bare_rate = interleaved(
        [step, _repeated(stages.bare_step(bare_network, x, precision), batch, where)], repeats + 1
    )
    counted = stages.stage_run(stages.stage(name, network, precision, COUNTED, where), stages.clips(COUNTED, where))
    with stages.counted_flops() as of_step:
        counted.epoch(0)
    with stages.counted_flops() as of_bare:
        stages.bare_step(bare_network, x[:COUNTED], precision)()
    return Found(
        Measured(step_rate.values[1:], "samples/s"),
        Measured(bare_rate.values[1:], "samples/s"),
        of_step.get_total_flops() / COUNTED,
        of_bare.get_total_flops() / COUNTED,
    )


def _bare(network: str, precision: Precision, where: torch.device) -> nn.Module:
    """The network as a plain loop would have it, in training mode."""
    name: StageName = "finetune" if network == "mobilefacenet" else "pretrain"
    stage = stages.stage(name, network, precision, COUNTED, where)
    found = stage.get_submodule("trunk.network" if name == "finetune" else "query.0.network")
    return found.train()
