"""Small os_scl methods and clips for the tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from asd_ray.config.os_scl import OsSclConfig
from asd_ray.methods.base import DataInfo
from asd_ray.methods.os_scl.method import OsScl, OsSclStage

CLASSES = ("fan/00", "fan/02", "pump/00")
INFO = DataInfo(n_mels=16, frames=24, classes=CLASSES, mean=-5.0, std=3.0, clips=10**6, features={"hop_length": 100})
SAMPLES = 2399


def method(train: dict[str, Any] | None = None, info: DataInfo = INFO, **options: Any) -> OsScl:
    config = OsSclConfig.model_validate({"precision": "fp32", **options, "train": train or {}})
    return OsScl(config, info)


def stage_of(built: OsScl) -> OsSclStage:
    [stage] = built.stages()
    assert isinstance(stage, OsSclStage)
    return stage


def clips(count: int = 8, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """Three classes, of noise with nothing, with tones and with clicks; as in the feature store."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    features = 3 * torch.randn(count, 16, 24, generator=generator) - 30
    waveform = 0.1 * torch.randn(count, SAMPLES, generator=generator)
    features[labels == 1, ::6] += 24
    features[labels == 2, :, ::6] += 24
    waveform[labels == 1] += 0.5 * torch.sin(torch.arange(SAMPLES) * 0.3)
    waveform[labels == 2, ::150] += 0.9
    return {"log_mel": features.half(), "waveform": (32767 * waveform).clamp(-32768, 32767).short()}, labels


def optimiser_of(stage: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in stage.parameters() if p.requires_grad], lr=lr, weight_decay=0.01)


def step(stage: Any, optimiser: torch.optim.Optimizer, seed: int = 0) -> float:
    torch.manual_seed(seed)
    loss, metrics = stage(*clips(seed=seed))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    (stage.module if isinstance(stage, DistributedDataParallel) else stage).end_step(0.0)
    assert not any(value.requires_grad for value in metrics.values())
    return loss.item()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
