"""Training stages and made-up clips on the device, for benchmarks of steps. Pure torch, without Ray.

Legend: B batch, F mel bands, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from asd_ray.config import FinetuneConfig, PretrainConfig, SiaMocoConfig
from asd_ray.config.os_scl import OsSclConfig
from asd_ray.data.clips import Clip
from asd_ray.features.batches import CachedBatches
from asd_ray.methods.base import DataInfo, Inputs, Stage
from asd_ray.methods.os_scl.method import as_floats
from asd_ray.methods.registry import build
from asd_ray.methods.workers import Workers
from asd_ray.training.stage_run import StageRun

F, T, CLASSES, SAMPLES = 128, 313, 41, 160_000
MEAN, STD = -8.0, 3.0  # mean and standard deviation of the made-up Log-Mel features
Precision = Literal["fp32", "bf16"]
StageName = Literal["pretrain", "finetune", "os_scl"]
COLUMNS = ("log_mel",)


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def stage(
    name: StageName, network: str, precision: Precision, batch: int, where: torch.device, compiled: bool = False
) -> Stage:
    """A training stage with a study's default settings, without validation.

    Args:
        name: a stage of ``sia_moco``, or ``os_scl``.
        network: the encoder, or ``mobilefacenet``, which is only fine-tuned; for ``os_scl``, inputs joined by ``+``.
        compiled: use ``torch.compile``; not for ``os_scl``.
    """
    classes = tuple(f"machine/{number:02d}" for number in range(CLASSES))
    info = DataInfo(F, T, classes, MEAN, STD, clips=36_000)
    if name == "os_scl":
        train = {"batch_size": batch, "validation": 0, "keep": "last"}
        settings = {"precision": precision, "inputs": network.split("+"), "train": train}
        [found] = build(OsSclConfig.model_validate(settings), info).to(where).stages()
        return found
    config = SiaMocoConfig(
        precision=precision,
        compile=compiled,
        pretrain=PretrainConfig(encoder="resnet18" if network == "mobilefacenet" else network, batch_size=batch),
        finetune=FinetuneConfig(
            coupling="none" if network == "mobilefacenet" else "encoder", batch_size=batch, validation=0, keep="last"
        ),
    )
    return next(found for found in build(config, info).to(where).stages() if found.name == name)


def columns(name: StageName, network: str) -> tuple[str, ...]:
    """Feature columns that a stage reads."""
    return OsSclConfig.model_validate({"inputs": network.split("+")}).columns if name == "os_scl" else COLUMNS


def clips(count: int, where: torch.device, columns: Sequence[str] = COLUMNS) -> CachedBatches:
    """Made-up clips with columns in the device's memory, like a training worker's cached clips."""
    identities = [
        Clip(f"{number}.wav", "machine", f"{number % CLASSES:02d}", "train", "normal") for number in range(count)
    ]
    classes = sorted({clip.group for clip in identities})
    made = {"log_mel": log_mel, "waveform": waveform}
    return CachedBatches(identities, {name: made[name](count, where) for name in columns}, classes)


def log_mel(count: int, where: torch.device) -> Tensor:
    """Made-up raw features (B, F, T) fp16."""
    return (MEAN + STD * torch.randn(count, F, T, device=where)).half()


def waveform(count: int, where: torch.device) -> Tensor:
    """Made-up waveforms (B, S) int16."""
    return (3000 * torch.randn(count, SAMPLES, device=where)).to(torch.int16)


def bare_inputs(name: StageName, network: str, count: int, where: torch.device) -> Tensor | Inputs:
    """Input of a stage's network for :func:`bare_step`: (B, 1, F, T), or float tensors by column for ``os_scl``."""
    if name != "os_scl":
        return torch.randn(count, 1, F, T, device=where)
    return as_floats(clips(count, where, columns(name, network)).columns)  # type: ignore[arg-type]


def stage_run(found: Stage, batches: CachedBatches) -> StageRun:
    """Epochs of a stage by the training loop itself, on one worker."""
    return StageRun(found, batches, seed=0, workers=Workers())


def bare_step(network: nn.Module, x: Any, precision: Precision) -> Callable[[], None]:
    """A function that runs one forward and backward pass, without augmentation, loss or optimiser."""
    kind = next(network.parameters()).device.type

    def step() -> None:
        network.zero_grad(set_to_none=True)
        with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16"):
            features = network(x)
        features.float().sum().backward()

    return step


@contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    """Count floating-point operations of convolutions and matrix products; a multiply-add counts as two."""
    own = {torch.ops.aten.convolution_backward: _convolution_backward_flops}
    with FlopCounterMode(display=False, custom_mapping=own) as counter:
        yield counter


def _convolution_backward_flops(gradient: Any, x: Any, weight: Any, *others: Any, **options: Any) -> int:
    """Operations of a backward pass: as many for each of its gradients (input, weights) as in the forward pass.

    torch's own count (2.11) for the weights of a depthwise convolution is too high by the number of channels.
    """
    mask = others[-1]
    return 2 * (mask[0] + mask[1]) * math.prod(gradient) * math.prod(weight[1:])


def synchronise(where: torch.device) -> None:
    """Wait until the GPU has finished."""
    if where.type == "cuda":
        torch.cuda.synchronize()
