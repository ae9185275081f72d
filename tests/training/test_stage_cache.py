from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from asd_ray.config import StudyConfig
from asd_ray.config.study_file import parse_study, with_values
from asd_ray.data.clips import Clip
from asd_ray.features.batches import CachedBatches
from asd_ray.methods.base import DataInfo, Method, Stage
from asd_ray.methods.registry import build
from asd_ray.training.loop import train
from asd_ray.training.stage_cache import StageCache
from asd_ray.training.stage_run import seed_everything

CLASSES = ("fan/00", "fan/02")
INFO = DataInfo(n_mels=32, frames=32, classes=CLASSES, mean=0.0, std=1.0, clips=24)


def study(**values: Any) -> StudyConfig:
    document = {
        "name": "cached",
        "method": {
            "precision": "fp32",
            "pretrain": {"encoder": "test_resnet", "epochs": 2, "batch_size": 8, "dim": 8, "queue_size": 16},
            "finetune": {"epochs": 1, "batch_size": 8, "validation": 0},
        },
    }
    return with_values(parse_study(document, "test"), values)


def clips() -> CachedBatches:
    torch.manual_seed(0)
    names = [Clip(f"{n}.wav", "fan", "00" if n % 2 else "02", "train", "normal") for n in range(24)]
    return CachedBatches(names, {"log_mel": torch.randn(24, 32, 32).half()}, CLASSES)


class Nothing:
    def load(self) -> None:
        return None

    def save(self, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        return None


def run(config: StudyConfig, cache: StageCache | None, *others: object) -> tuple[Method, list[dict[str, Any]]]:
    """What :func:`asd_ray.training.train_and_score.train_and_score` does with the cache, and nothing else."""
    seed_everything(7, "build")
    method = build(config.method, INFO)

    def module(stage: Stage) -> nn.Module:
        return stage.trained or method

    def recall(stage: Stage) -> list[dict[str, Any]] | None:
        if cache is None or not cache.keeps(stage):
            return None
        return cache.load(cache.path(stage, config, *others), module(stage))

    def after(stage: Stage, rows: list[dict[str, Any]]) -> None:
        if cache is not None and cache.keeps(stage) and not any(row.get("recalled") for row in rows):
            cache.save(cache.path(stage, config, *others), module(stage), rows)

    history = train(method, lambda splits: clips(), 7, Nothing(), recall=recall, after=after)
    return method, history


def stages(folder: Path) -> list[str]:
    return sorted(path.name.rpartition("-")[0] for path in folder.iterdir())


def equal(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("head", ["linear", "arcface"])
def test_a_run_that_takes_a_stage_over_equals_one_that_trains_it(tmp_path: Path, head: str) -> None:
    cache = StageCache(tmp_path, {"method.finetune.margin": False})
    run(study(), cache)
    assert stages(tmp_path) == ["pretrain"]
    other = study(**{"method.finetune.lr": 0.01, "method.finetune.head": head})
    alone, whole = run(other, None)
    shared, taken = run(other, cache)
    assert equal(alone, shared)
    assert [row.get("recalled", False) for row in taken] == [True, True, False]
    same = ("stage", "epoch", "epochs", "loss")
    assert [[row[key] for key in same] for row in taken] == [[row[key] for key in same] for row in whole]


def test_a_search_over_scores_trains_nothing_again(tmp_path: Path) -> None:
    cache = StageCache(tmp_path, {"evaluation.neighbours": True})
    first, _ = run(study(), cache)
    assert stages(tmp_path) == ["finetune", "pretrain"]
    second, history = run(study(**{"evaluation.neighbours": 3}), cache)
    assert equal(first, second)
    assert all(row["recalled"] for row in history)


def test_autoencoders_that_differ_by_their_score_are_trained_once(tmp_path: Path) -> None:
    document = {"name": "cached", "method": {"name": "autoencoder", "train": {"epochs": 1, "batch_size": 8}}}
    config = parse_study(document, "test")
    cache = StageCache(tmp_path, {"method.score": True})
    first, _ = run(config, cache)
    second, history = run(with_values(config, {"method.score": "mahalanobis"}), cache)
    assert all(row["recalled"] for row in history)
    assert equal(first.networks, second.networks)


@pytest.mark.parametrize(
    ("changed", "others"),
    [({"method.pretrain.alpha": 0.3}, ("data",)), ({"method.precision": "bf16"}, ("data",)), ({}, ("other data",))],
)
def test_what_decides_a_stage_is_in_its_key(tmp_path: Path, changed: dict[str, Any], others: tuple[str, ...]) -> None:
    cache = StageCache(tmp_path, {}, always=True)
    stage = build(study().method, INFO).stages()[0]
    assert cache.path(stage, study(), "data") == cache.path(stage, study(**{"method.finetune.lr": 0.5}), "data")
    assert cache.path(stage, study(), "data") != cache.path(stage, study(**changed), *others)


@pytest.mark.parametrize(
    ("searched", "kept"),
    [
        ({"method.pretrain.alpha": False}, []),  # every trial has its own
        ({"method.pretrain.alpha": False, "evaluation.neighbours": True}, []),
        ({"method.pretrain.queue_size": True}, []),  # nobody else wants it
        ({"method.pretrain.queue_size": True, "method.finetune.lr": False}, ["pretrain"]),
        ({"method.finetune.lr": False}, ["pretrain"]),
        ({"method.finetune.lr": False, "evaluation.neighbours": True}, ["pretrain"]),
        ({"features.n_mels": True}, []),
        ({"features.n_mels": True, "evaluation.neighbours": True}, ["pretrain", "finetune"]),
        ({}, []),
    ],
)
def test_only_stages_that_another_trial_may_want_are_kept(searched: dict[str, bool], kept: list[str]) -> None:
    cache = StageCache(Path("nowhere"), searched)
    assert [stage.name for stage in build(study().method, INFO).stages() if cache.keeps(stage)] == kept


def test_a_shared_folder_keeps_every_stage() -> None:
    cache = StageCache(Path("nowhere"), {"method.pretrain.alpha": False}, always=True)
    assert all(cache.keeps(stage) for stage in build(study().method, INFO).stages())


@pytest.mark.parametrize("name", ["weights.safetensors", "stage.json"])
def test_a_damaged_stage_is_trained_again(tmp_path: Path, name: str) -> None:
    cache = StageCache(tmp_path, {"method.finetune.lr": False})
    first, _ = run(study(), cache)
    [folder] = tmp_path.iterdir()
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    second, history = run(study(), cache)
    assert equal(first, second)
    assert not any(row.get("recalled") for row in history)
    assert (folder / name).read_bytes()[:9] == whole[:9]
    assert np.isclose(len((folder / name).read_bytes()), len(whole), rtol=0.05)  # times are measured anew


def test_an_encoder_that_it_starts_from_counts_by_its_weights(tmp_path: Path) -> None:
    from asd_ray.methods.sia_moco.published import save_encoder

    config = study()
    info = INFO
    paths = []
    cache = StageCache(tmp_path / "stages", {}, always=True)
    for seed in (0, 1):
        torch.manual_seed(seed)
        encoder = build(config.method, info).stages()[0].trained
        save_encoder(tmp_path / "encoder", encoder, config.model_dump(mode="json"), info)
        started = study(**{"method.pretrain.init_from": str(tmp_path / "encoder")})
        paths += [cache.path(stage, started) for stage in build(started.method, info).stages()]
    assert len(set(paths)) == 4
