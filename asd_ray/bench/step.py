"""Training steps against the same network's bare passes, and both against what the machine can multiply.

Legend: B batch.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from asd_ray.bench import stages
from asd_ray.bench.processes import in_new_process
from asd_ray.bench.stages import Precision, StageName
from asd_ray.bench.table import Benchmark, Comparison, Measured, interleaved, rate, say, seconds_of
from asd_ray.memory import keep_freed_memory
from asd_ray.methods.base import Stage, resolve_precision
from asd_ray.training.stage_run import StageRun

STEPS: tuple[tuple[StageName, str], ...] = (
    ("pretrain", "resnet18"),
    ("pretrain", "resnet50"),
    ("finetune", "resnet18"),
    ("finetune", "resnet50"),
    ("finetune", "mobilefacenet"),
    ("os_scl", "mel"),
    ("os_scl", "mel+tgram+tfgram"),
)
QUICK = (STEPS[0], STEPS[-1])
COMPILED: tuple[StageName, str] = ("pretrain", "resnet18")
UNIT = "samples/s"
WITHIN = 0.95  # of the bare passes' rate: less than 5 % of an os_scl step is outside of its network
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
            result.lines += _lines(
                f"{name} {network} {precision}", found, convolution, WITHIN if name == "os_scl" else None
            )
    precision = precisions[-1]
    if where.type == "cpu":
        name, network = STEPS[-1]
        say(f"step: {name} of {network} in {precision}, keeping the memory that it frees, and not")
        kept, given_back = in_new_process(with_memory_kept, name, network, precision, batch, repeats, threads=cores)
        what = f"{name} {network} {precision}, keeping freed memory"
        result.lines.append(
            Comparison(what, kept, given_back, "as the C library has it: given back, and cleared again")
        )
    if not quick:
        say(f"step: torch.compile of {' '.join(COMPILED)} in {precision}, a few minutes")
        result.lines += in_new_process(with_compile, *COMPILED, precision, batch, repeats, threads=cores)
    result.lines[0] = _with_note(result.lines[0], batch, on, where)
    return result


def _with_note(line: Comparison, batch: int, on: str, where: torch.device) -> Comparison:
    tf32 = " On this GPU fp32 convolutions are TF32, as torch has it by default." if where.type == "cuda" else ""
    missing = "" if resolve_precision("auto", where) else " This processor has no bf16."
    note = (
        f"batches of {batch} clips of {stages.F} x {stages.T}, {on}. A step is all of it: batch, two augmented views, "
        "queries and keys in pre-training, loss, backward pass, optimiser, average of the weights. Bare is forward and "
        "backward of the same network in a loop. Operations are those of convolutions and matrix products (a "
        "multiply-add is two). On a CPU all of these keep freed memory. MobileFaceNet is "
        f"fine-tuned only. tgram and tfgram are of {stages.SAMPLES:,} samples.{tf32}{missing}"
    )
    return Comparison(line.what, line.ours, line.reference, line.reference_is, note=note)


def _lines(what: str, found: Found, convolution: Measured, within: float | None) -> list[Comparison]:
    step, bare = flops(found.step, found.step_flops), flops(found.bare, found.bare_flops)
    note = f"{found.step_flops / 1e9:.2f} GFLOP for a sample's step, {found.bare_flops / 1e9:.2f} bare"
    return [
        Comparison(what, found.step, found.bare, "bare", within, note=note),
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
    found = [flops(_warm(found), each) for found, (_, each) in zip(rates, works, strict=True)]
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
    if where.type == "cpu":
        keep_freed_memory()
    step = _step(name, network, precision, batch, where)
    bare_network = _bare(name, network, precision, where)
    bare = stages.bare_step(bare_network, stages.bare_inputs(name, network, batch, where), precision)
    step_rate, bare_rate = interleaved([step, _repeated(bare, batch, where)], repeats + 1, UNIT)
    counted = _stage_run(stages.stage(name, network, precision, COUNTED, where), name, network, COUNTED, where)
    with stages.counted_flops() as of_step:
        counted.epoch(0)
    with stages.counted_flops() as of_bare:
        stages.bare_step(bare_network, stages.bare_inputs(name, network, COUNTED, where), precision)()
    return Found(
        _warm(step_rate),
        _warm(bare_rate),
        of_step.get_total_flops() / COUNTED,
        of_bare.get_total_flops() / COUNTED,
    )


def with_memory_kept(
    name: StageName, network: str, precision: Precision, batch: int, repeats: int
) -> tuple[Measured, Measured]:
    """Samples/s of a step that keeps freed memory, and of one that does not; the former cannot be undone."""
    step = _step(name, network, precision, batch, stages.device())
    given_back = _warm(rate(step, repeats + 1, UNIT))
    if not keep_freed_memory():
        return Measured((), UNIT), given_back
    return _warm(rate(step, repeats + 1, UNIT)), given_back


def with_compile(name: StageName, network: str, precision: Precision, batch: int, repeats: int) -> list[Comparison]:
    """A step with and without torch.compile, and what the first compiled step takes; nothing is compiled before."""
    where, what = stages.device(), f"{name} {network} {precision}, torch.compile"
    if where.type == "cpu":
        keep_freed_memory()
    plain = _step(name, network, precision, batch, where)
    with tempfile.TemporaryDirectory(prefix="asd_ray-bench-") as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        try:
            compiled = _step(name, network, precision, batch, where, compiled=True)
            first = seconds_of(compiled, 1)
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            return [Comparison(what, Measured((), UNIT), reference_is=f"does not compile here: {reason}")]
        ours, reference = interleaved([compiled, plain], repeats + 1, UNIT)
    return [
        Comparison(what, _warm(ours), _warm(reference), "the same step without"),
        Comparison(f"{what}, first step", first, reference_is="compiled by it, once in every process"),
    ]


def _step(
    name: StageName, network: str, precision: Precision, batch: int, where: torch.device, compiled: bool = False
) -> Callable[[], int]:
    """Some steps of a stage, by the training loop's own epoch."""
    clips = batch * ROUNDS[where.type]
    training = _stage_run(stages.stage(name, network, precision, batch, where, compiled), name, network, clips, where)

    def step() -> int:
        training.epoch(0)
        return clips

    return step


def _stage_run(stage: Stage, name: StageName, network: str, clips: int, where: torch.device) -> StageRun:
    return stages.stage_run(stage, stages.clips(clips, where, stages.columns(name, network)))


def _warm(measured: Measured) -> Measured:
    """Without the first repeat."""
    return Measured(measured.values[1:], measured.unit)


def _bare(name: StageName, network: str, precision: Precision, where: torch.device) -> nn.Module:
    """The network as a plain loop would have it, in training mode."""
    if name != "os_scl":  # a plain loop has no stages, but the encoder alone, or MobileFaceNet
        name = "finetune" if network == "mobilefacenet" else "pretrain"
    paths = {"pretrain": "query.0.network", "finetune": "trunk.network", "os_scl": "student"}
    return stages.stage(name, network, precision, COUNTED, where).get_submodule(paths[name]).train()
