from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from asd_ray.config import StudyConfig
from asd_ray.detector import load_detector, save_detector
from asd_ray.errors import AsdRayError
from asd_ray.features.store import Manifest, settings_of
from asd_ray.methods.base import DataInfo
from asd_ray.methods.registry import build
from asd_ray.scoring import Embedded
from asd_ray.study_file import parse_study
from asd_ray.training.loop import embed

CLASSES = ("fan/00", "fan/02", "pump/00")


@pytest.fixture
def study() -> StudyConfig:
    pretrain = {"encoder": "test_resnet", "dim": 8, "queue_size": 8}
    return parse_study({"name": "s", "features": {"n_mels": 16, "seconds": 1}, "method": {"pretrain": pretrain}}, "f")


@pytest.fixture
def saved(study: StudyConfig, tmp_path: Path) -> tuple[Path, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    settings = settings_of(study.features, 0)
    manifest = Manifest(settings, {}, {"train": 5, "test": 0}, -7.0, 2.0, {}, [])
    n_mels, frames = manifest.shape
    info = DataInfo(n_mels, frames, CLASSES, manifest.mean, manifest.std, 5)
    method = build(study.method, info)
    features = torch.randn(5, n_mels, frames).half()
    embedding, logits = embed(method, features)
    train = Embedded(embedding.numpy(), logits.numpy(), np.array([0, 0, 1, 2, -1]))
    save_detector(tmp_path / "detector", study, manifest, CLASSES, method, train)
    return tmp_path / "detector", features, embedding


def test_a_detector_embeds_after_loading_as_before_saving(
    study: StudyConfig, saved: tuple[Path, torch.Tensor, torch.Tensor]
) -> None:
    folder, features, embedding = saved
    torch.manual_seed(99)
    detector = load_detector(folder)
    assert detector.study == study
    assert detector.classes == CLASSES
    assert torch.equal(embed(detector.method, features)[0], embedding)
    np.testing.assert_array_equal(detector.train.embedding, embedding.numpy())
    assert detector.train.label.tolist() == [0, 0, 1, 2, -1]
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}


def test_a_folder_without_a_whole_detector_says_so(saved: tuple[Path, torch.Tensor, torch.Tensor]) -> None:
    folder = saved[0]
    with pytest.raises(AsdRayError, match="holds no detector"):
        load_detector(folder.parent)
    document = json.loads((folder / "detector.json").read_text())
    (folder / "detector.json").write_text(json.dumps({**document, "format": 99}))
    with pytest.raises(AsdRayError, match="detector format 99"):
        load_detector(folder)
    (folder / "detector.json").write_text(json.dumps(document))
    (folder / "weights.safetensors").unlink()
    with pytest.raises(AsdRayError, match="do not fit together"):
        load_detector(folder)
