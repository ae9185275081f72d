"""A method, an encoder, a score and a layout as another package or a script would have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

import asd_ray
from asd_ray.config import MethodConfig, OptimiserConfig
from asd_ray.data.clips import Clip
from asd_ray.data.problems import Problem
from asd_ray.methods.base import DataInfo, Inputs, Method, Stage
from asd_ray.methods.blocks.networks import Network
from asd_ray.scoring import Embedded, Score, Scores


class BandsConfig(MethodConfig):
    name: Literal["bands"] = "bands"
    encoder: str = "pooled_bands"
    train: OptimiserConfig = OptimiserConfig(epochs=2, batch_size=8, lr=0.01, probe_every=0)


class BandsStage(Stage):
    name = "train"

    def __init__(self, config: OptimiserConfig, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.optimiser, self.network, self.head = config, network, head

    def forward(self, inputs: Inputs, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = F.cross_entropy(self.head(self.network(inputs["log_mel"].float())), labels)
        return loss, {"cross_entropy": loss.detach()}


@asd_ray.register_method("bands", config=BandsConfig)
class Bands(Method):
    def __init__(self, config: BandsConfig, info: DataInfo) -> None:
        super().__init__()
        self.config = config
        self.network = Network(config.encoder, info.n_mels, info.frames, key="method.encoder")
        self.head = nn.Linear(self.network.num_features, len(info.classes))

    def stages(self) -> list[Stage]:
        return [BandsStage(self.config.train, self.network, self.head)]

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        embedding = self.network(inputs["log_mel"].float())
        return embedding, self.head(embedding)


@asd_ray.register_encoder("pooled_bands")
def pooled_bands(channels: int, n_mels: int, frames: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d((4, 1)), nn.Flatten(), nn.Linear(4 * channels, 8))


@asd_ray.register_score("distance_to_mean")
class DistanceToMean(Score):
    def fit(self) -> None:
        self.mean = self.train.embedding.mean(axis=0)

    def score(self, test: Embedded) -> Scores:
        return np.linalg.norm(test.embedding - self.mean, axis=1).astype(np.float64)


@asd_ray.register_layout("flat", example="fan_00_train_normal_0.wav")
def flat(root: Path, machines: Sequence[str] | None = None) -> tuple[list[Clip], list[Problem]]:
    clips = []
    for path in sorted(root.glob("*.wav")):
        machine, machine_id, split, label, _ = path.stem.split("_")
        if machines is None or machine in machines:
            clips.append(Clip(path.name, machine, machine_id, split, label))  # type: ignore[arg-type]
    return clips, []
