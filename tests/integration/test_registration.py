"""A method, an encoder, a score and a layout that are registered here take part in a study, up to its detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import soundfile
import torch.nn.functional as F
from torch import Tensor, nn

import asd_ray
from asd_ray.config import MethodConfig, OptimiserConfig
from asd_ray.data.clips import Clip
from asd_ray.data.problems import Problem
from asd_ray.methods.base import DataInfo, Inputs, Method, Stage
from asd_ray.methods.blocks.networks import Network
from asd_ray.scoring import Embedded, Score, Scores

pytestmark = pytest.mark.integration


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


STUDY = {
    "name": "registered",
    "data": {"layout": "flat"},
    "features": {"n_mels": 16, "seconds": 1},
    "method": {"name": "bands"},
    "evaluation": {"score": "distance_to_mean", "scores": ["distance_to_mean", "knn"]},
    "search": {"num_trials": 2, "space": {"method.train.lr": {"choice": [0.01, 0.001]}}},
}


def write_recordings(root: Path) -> Path:
    root.mkdir()
    rng = np.random.default_rng(0)
    for machine in ("fan", "pump"):
        for split, label, level in (("train", "normal", 0.1), ("test", "normal", 0.1), ("test", "anomaly", 0.4)):
            for number in range(6):
                noise = level * rng.standard_normal(16000).clip(-2, 2)
                soundfile.write(root / f"{machine}_00_{split}_{label}_{number}.wav", noise, 16000)
    return root


def test_registered_parts_run_in_trials_and_in_the_detector(cluster: str, tmp_path: Path) -> None:
    root = write_recordings(tmp_path / "recordings")
    study = asd_ray.load_study(STUDY, {"data.root": str(root)})
    outcome = asd_ray.run_study(study, tmp_path / "out", address=cluster)
    assert outcome.trials["status"].tolist() == ["complete", "complete"]
    assert set(outcome.results["machine"]) == {"fan", "pump"}
    table = outcome.detector().score(sorted(root.glob("fan_00_test_*.wav")), "fan", "00")
    anomalous = table["path"].astype(str).str.contains("anomaly")
    assert table["score"][anomalous].min() > table["score"][~anomalous].max()
    assert asd_ray.read_study(tmp_path / "out").study == study
