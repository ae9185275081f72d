"""A detector of three machine IDs that is made in a second: untrained, on half-second recordings of tones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from asd_ray.config import StudyConfig
from asd_ray.config.study_file import parse_study
from asd_ray.detector.detector import data_info, save_detector
from asd_ray.features.log_mel import LogMel
from asd_ray.features.store import Manifest, settings_of
from asd_ray.methods.base import Method
from asd_ray.methods.registry import build
from asd_ray.scoring import Embedded, group_logits

CLASSES = ("fan/00", "fan/02", "pump/00")
RATE = 8000


def tiny_study() -> StudyConfig:
    return parse_study(
        {
            "name": "s",
            "features": {"n_mels": 16, "seconds": 0.5, "sample_rate": RATE, "n_fft": 256, "win_length": 256},
            "method": {"pretrain": {"encoder": "test_resnet", "dim": 8, "queue_size": 8}},
            "evaluation": {"score": "best", "threshold_quantile": 0.8},
        },
        "f",
    )


def write_recordings(root: Path, clips: int = 7) -> dict[Path, str]:
    """So many recordings of each class, by the names of DCASE 2020, and their class."""
    rng = np.random.default_rng(0)
    files = {}
    for number, name in enumerate(CLASSES):
        machine, machine_id = name.split("/")
        for clip in range(clips):
            path = root / machine / "train" / f"normal_id_{machine_id}_{clip:08d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            tone = np.sin(2 * np.pi * (300 + 700 * number) * np.arange(RATE // 2) / RATE)
            soundfile.write(path, 0.1 * tone + 0.05 * rng.normal(size=RATE // 2), RATE, subtype="PCM_16")
            files[path] = name
    return files


def embed(method: Method, study: StudyConfig, files: dict[Path, str], classes: Sequence[str] = CLASSES) -> Embedded:
    """The slow, obvious way: one clip after the other, through the fp16 of the feature store."""
    transform, outputs = LogMel(study.features), []
    method.eval()
    with torch.inference_mode():
        for path in files:
            waveform, _ = soundfile.read(path, dtype="float32")
            outputs.append(method.embed({"log_mel": transform(torch.from_numpy(waveform)[None]).half()}))
    embedding, logits = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    group = np.array([CLASSES.index(name) for name in files.values()])
    return Embedded(embedding.numpy(), group_logits(logits, classes).numpy(), group)


def tiny_manifest(study: StudyConfig, clips: int) -> Manifest:
    return Manifest(settings_of(study.features, 0), {}, {"train": clips, "test": 0}, -7.0, 2.0, {}, [])


def save_tiny_detector(folder: Path, study: StudyConfig, recordings: dict[Path, str]) -> tuple[Method, Embedded]:
    torch.manual_seed(0)
    manifest = tiny_manifest(study, len(recordings))
    method = build(study.method, data_info(manifest, CLASSES))
    train = embed(method, study, recordings)
    save_detector(folder, study, manifest, CLASSES, method, train, score="knn")
    return method, train
