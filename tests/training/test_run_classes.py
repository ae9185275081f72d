"""Whole runs on made-up features, without Ray, whose classes are attributes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from asd_ray import scoring
from asd_ray.config.study_file import parse_study
from asd_ray.data.clips import Clip, Label, class_names, evaluation_splits
from asd_ray.detector.detector import Detector
from asd_ray.features.batches import Batches, CachedBatches
from asd_ray.features.store import Manifest, settings_of
from asd_ray.methods.base import Method
from asd_ray.metrics.selection import Evaluation
from asd_ray.training.checkpoints import FileCheckpoints
from asd_ray.training.loop import embed
from asd_ray.training.train_and_score import RunInputs, train_and_score

STAGE = {"epochs": 1, "batch_size": 8, "validation": 0, "keep": "last"}
# In bf16 the gradient of taps that see only padding, as of such small clips, is not defined (torch 2.11 on a CPU).
METHODS: dict[str, dict[str, Any]] = {
    "sia_moco": {
        "precision": "fp32",
        "pretrain": {"encoder": "test_resnet", "dim": 8, "queue_size": 8, "epochs": 0},
        "finetune": {"coupling": "encoder", **STAGE},
    },
    "os_scl": {"name": "os_scl", "precision": "fp32", "inputs": ["mel"], "train": {**STAGE, "ema": 0}},
}


def some_clips() -> list[Clip]:
    """Two IDs; the first learned as two attributes and a rest, test clips with attributes of their own."""
    clips = []
    for machine_id, attributes in (("00", ["a"] * 8 + ["b"] * 8 + ["c", "d", ""] * 2), ("01", [""] * 8)):
        for number, name in enumerate(attributes):
            clips.append(Clip(f"{machine_id}-{number}.wav", "fan", machine_id, "train", "normal", attributes=name))
        for number in range(16):
            label: Label = "anomaly" if number % 2 else "normal"
            path, name = f"test/{machine_id}-{number}.wav", "abcd"[number // 4]
            clips.append(Clip(path, "fan", machine_id, "test", label, attributes=name))
    return clips


def scored(method: dict[str, Any], clips: list[Clip], out: Path) -> tuple[pd.DataFrame, Path]:
    torch.set_num_threads(1)
    study = parse_study(
        {
            "name": "s",
            "data": {"layout": "dcase2022", "root": "x", "classes": "attributes", "min_class_clips": 5},
            "features": {"n_mels": 16, "seconds": 0.5, "sample_rate": 8000, "n_fft": 256, "win_length": 256},
            "method": method,
        },
        "f",
    )
    classes = tuple(class_names(clips, study.data.classes, study.data.min_class_clips))
    assert classes == ("fan/00", "fan/00/a", "fan/00/b", "fan/01")
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(len(clips), 16, study.features.frames)).astype(np.float16))

    def source(splits: tuple[str, ...]) -> CachedBatches:
        rows = torch.tensor([number for number, clip in enumerate(clips) if clip.split in splits])
        return CachedBatches([clips[int(row)] for row in rows], {"log_mel": features}, classes, rows)

    splits = evaluation_splits(clips)
    manifest = Manifest(settings_of(study.features, 0), {}, {"train": 30, "test": 32}, 0.0, 1.0, {}, [])
    evaluation = Evaluation(tuple(clip for clip in clips if clip.path in splits), splits)
    inputs = RunInputs(study, manifest, classes, evaluation, 0, out)
    outcome = train_and_score(inputs, source, torch.device("cpu"), FileCheckpoints(out / "checkpoints"))
    assert outcome is not None
    return outcome["scored"], out / "detector"


@pytest.mark.parametrize("name", METHODS)
def test_the_attributes_of_test_clips_change_nothing(name: str, tmp_path: Path) -> None:
    clips = some_clips()
    table, folder = scored(METHODS[name], clips, tmp_path / "one")
    kinds = [kind for kind in scoring.KINDS if kind in table]
    assert len(kinds) == len(scoring.KINDS) - (name == "sia_moco")
    detector = Detector.load(folder)
    assert list(detector.thresholds) == detector.info.groups == ["fan/00", "fan/01"]
    learned = dict(zip(detector.info.classes, np.bincount(detector.train.label), strict=True))
    assert learned == {"fan/00": 6, "fan/00/a": 8, "fan/00/b": 8, "fan/01": 8}
    names = np.random.default_rng(1).permutation([clip.attributes for clip in clips if clip.split == "test"]).tolist()
    permuted = [replace(clip, attributes=names.pop()) if clip.split == "test" else clip for clip in clips]
    assert permuted != clips
    pd.testing.assert_frame_equal(scored(METHODS[name], permuted, tmp_path / "two")[0], table, check_exact=True)


@pytest.mark.parametrize("changes", [False, True])
def test_clips_are_embedded_again_only_by_another_network(
    changes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[str] = []
    splits = evaluation_splits(some_clips())

    def counting(method: Method, clips: Batches) -> tuple[torch.Tensor, torch.Tensor]:
        embedded.extend({splits.get(clip.path, clip.split) for clip in clips.clips})
        return embed(method, clips)

    def finish(method: Method, clips: Batches) -> None:
        if changes:
            next(method.parameters()).data.add_(0.1)

    monkeypatch.setattr("asd_ray.training.train_and_score.embed", counting)
    monkeypatch.setattr("asd_ray.training.train_and_score.finish", finish)
    scored(METHODS["sia_moco"], some_clips(), tmp_path)
    probe, scores = ["train", "select"], ["train", "select", "holdout"] if changes else ["holdout"]
    assert embedded == probe + scores
