"""Training stages with made-up clips on the device, for benchmarks of steps. Pure torch, nothing of Ray.

Legend: B batch, F mel bands, T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from asd_ray.clips import Clip
from asd_ray.config import FinetuneConfig, PretrainConfig, SiaMocoConfig
from asd_ray.features.batches import CachedBatches
from asd_ray.methods.base import DataInfo, Stage
from asd_ray.methods.registry import build
from asd_ray.training.stage_run import StageRun, Workers

F, T, CLASSES = 128, 313, 41
MEAN, STD = -8.0, 3.0  # of the made-up Log-Mel features
Precision = Literal["fp32", "bf16"]
StageName = Literal["pretrain", "finetune"]


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def stage(name: StageName, network: str, precision: Precision, batch: int, where: torch.device) -> Stage:
    """A stage of ``sia_moco`` with the defaults of a study.

    Args:
        name: MobileFaceNet can only be fine-tuned: encoders are timm's.
        network: the encoder, or ``mobilefacenet``.
    """
    config = SiaMocoConfig(
        precision=precision,
        pretrain=PretrainConfig(encoder="resnet18" if network == "mobilefacenet" else network, batch_size=batch),
        finetune=FinetuneConfig(
            coupling="none" if network == "mobilefacenet" else "encoder", batch_size=batch, validation=0, keep="last"
        ),
    )
    classes = tuple(f"machine/{number:02d}" for number in range(CLASSES))
    method = build(config, DataInfo(F, T, classes, MEAN, STD, clips=36_000)).to(where)
    return next(found for found in method.stages() if found.name == name)


def clips(count: int, where: torch.device) -> CachedBatches:
    """Made-up clips whose features are a tensor on the device, as a training worker has them where they fit."""
    identities = [
        Clip(f"{number}.wav", "machine", f"{number % CLASSES:02d}", "train", "normal") for number in range(count)
    ]
    classes = sorted({clip.class_name for clip in identities})
    return CachedBatches(identities, {"log_mel": log_mel(count, where)}, classes)


def log_mel(count: int, where: torch.device) -> Tensor:
    """Made-up raw features (B, F, T) fp16."""
    return (MEAN + STD * torch.randn(count, F, T, device=where)).half()


def stage_run(found: Stage, batches: CachedBatches) -> StageRun:
    """The training loop's own epochs of a stage, on one worker."""
    return StageRun(found, batches, seed=0, workers=Workers())


def bare_step(network: nn.Module, x: Tensor, precision: Precision) -> Callable[[], None]:
    """A network's forward and backward pass of inputs (B, 1, F, T), without augmentation, loss or optimiser."""

    def step() -> None:
        network.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
            features = network(x)
        features.float().sum().backward()

    return step


@contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    """Counts the floating-point operations of convolutions and matrix products (a multiply-add is two)."""
    with FlopCounterMode(display=False) as counter:
        yield counter


def synchronise(where: torch.device) -> None:
    """Waits for the GPU."""
    if where.type == "cuda":
        torch.cuda.synchronize()
