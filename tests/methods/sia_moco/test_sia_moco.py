from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from asd_ray.config import SiaMocoConfig
from asd_ray.errors import ConfigError
from asd_ray.methods.base import DataInfo, Method, Stage
from asd_ray.methods.registry import build
from asd_ray.methods.sia_moco.finetune import FinetuneStage
from asd_ray.methods.sia_moco.method import SiaMoco
from asd_ray.methods.sia_moco.published import save_encoder

INFO = DataInfo(n_mels=32, frames=40, classes=("fan/00", "fan/02", "pump/00"), mean=-5.0, std=3.0, clips=24)
FEATURES = {"encoder": 96, "frozen": 96, "channel": 128, "none": 128}  # D of test_resnet and MobileFaceNet
COUPLINGS = list(FEATURES)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)  # the networks are tiny
    torch.manual_seed(0)


def method(pretrain: dict[str, Any] | None = None, finetune: dict[str, Any] | None = None) -> SiaMoco:
    small = {"encoder": "test_resnet", "dim": 16, "queue_size": 20, **(pretrain or {})}
    config = SiaMocoConfig.model_validate({"precision": "fp32", "pretrain": small, "finetune": finetune or {}})
    built = build(config, INFO)
    assert isinstance(built, SiaMoco)
    return built


def clips(count: int = 8, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """Three classes, of noise with nothing, with tones and with clicks; fp16 as in the feature store."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    features = torch.randn(count, 32, 40, generator=generator) - 5
    features[labels == 1, ::6] += 8
    features[labels == 2, :, ::6] += 8
    return {"log_mel": features.half()}, labels


def step(stage: Stage, seed: int = 0) -> None:
    optimiser = torch.optim.AdamW([p for p in stage.parameters() if p.requires_grad], lr=1e-3)
    stage.train()
    loss, metrics = stage(*clips(seed=seed))
    loss.backward()
    optimiser.step()
    stage.end_step(0.0)
    assert loss.dtype == torch.float32
    assert not any(value.requires_grad for value in metrics.values())


def names(coupling: str, epochs: tuple[int, int]) -> list[str]:
    return [s.name for s in method({"epochs": epochs[0]}, {"epochs": epochs[1], "coupling": coupling}).stages()]


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_stages_in_order_without_those_of_no_epochs(coupling: str) -> None:
    pretrain = [] if coupling == "none" else ["pretrain"]
    assert names(coupling, (5, 2)) == [*pretrain, "finetune"]
    assert names(coupling, (0, 2)) == ["finetune"]
    assert names(coupling, (5, 0)) == pretrain


@pytest.mark.parametrize("coupling", ["encoder", "channel", "frozen"])
def test_stages_share_the_methods_own_encoder(coupling: str) -> None:
    built = method(finetune={"coupling": coupling}).eval()
    pretrain, _ = built.stages()
    assert built.encoder is not None
    before, embedding = built.encoder.network.conv1[0].weight.clone(), built.embed(clips()[0])[0]
    step(pretrain)
    assert not torch.equal(before, built.encoder.network.conv1[0].weight)
    assert not torch.allclose(embedding, built.eval().embed(clips()[0])[0])


def test_without_coupling_there_is_no_encoder() -> None:
    built = method({"encoder": "no_such_network"}, {"coupling": "none"})
    assert built.encoder is None
    assert {key.split(".")[0] for key in built.state_dict()} == {"pre_norm", "trunk", "head"}


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_a_detector_keeps_neither_queue_nor_key_encoder_nor_anything_twice(coupling: str) -> None:
    built = method(finetune={"coupling": coupling})
    built.stages()
    state = built.state_dict()
    expected = {
        "encoder": {"pre_norm", "encoder", "head"},
        "channel": {"pre_norm", "encoder", "trunk", "head"},
        "frozen": {"pre_norm", "encoder", "head"},
        "none": {"pre_norm", "trunk", "head"},
    }
    assert {key.split(".")[0] for key in state} == expected[coupling]
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_a_detector_built_from_its_state_embeds_alike(coupling: str) -> None:
    built = method(finetune={"coupling": coupling})
    for stage in built.stages():
        step(stage)
    torch.manual_seed(1)
    loaded = method(finetune={"coupling": coupling})
    features, _ = clips()
    assert not torch.allclose(built.eval().embed(features)[0], loaded.eval().embed(features)[0])
    loaded.load_state_dict(built.state_dict())
    assert all(map(torch.equal, built.eval().embed(features), loaded.eval().embed(features)))


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_embedding_is_what_the_head_sees(coupling: str) -> None:
    built = method(finetune={"coupling": coupling}).eval()
    features, _ = clips()
    with torch.no_grad():
        embedding, logits = built.embed(features)
        assert (embedding.shape, logits.shape) == ((8, FEATURES[coupling]), (8, 3))
        assert embedding.dtype == logits.dtype == torch.float32
        assert torch.equal(built.head(embedding), logits)
        one = {"log_mel": features["log_mel"][:1]}
        torch.testing.assert_close(built.embed(one)[0], embedding[:1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("coupling", ["encoder", "frozen"])
def test_pooled_features_are_the_encoders_of_pre_normed_clips(coupling: str) -> None:
    built = method(finetune={"coupling": coupling}).eval()
    features, _ = clips()
    assert built.encoder is not None
    expected = built.encoder.network((features["log_mel"].float()[:, None] + 5) / 3)
    torch.testing.assert_close(built.embed(features)[0], expected)


def test_finetuning_stage_takes_its_settings() -> None:
    settings = {"validation": 0.2, "patience": 3, "keep": "last", "lr": 0.1, "epochs": 7}
    stage = method(finetune=settings).stages()[1]
    assert isinstance(stage, FinetuneStage)
    assert (stage.validation, stage.patience, stage.keep) == (0.2, 3, "last")
    assert (stage.optimiser.lr, stage.optimiser.epochs) == (0.1, 7)
    pretrain = method().stages()[0]
    assert (pretrain.validation, pretrain.patience) == (0, 0)


@pytest.mark.parametrize("coupling", ["encoder", "channel", "frozen"])
def test_starts_from_a_published_encoder(coupling: str, tmp_path: Path) -> None:
    published = method().encoder
    assert published is not None
    published.train()(torch.randn(4, 32, 40))  # moves batch norm's statistics
    study = {"name": "first", "seed": 0, "method": {"pretrain": {}}}
    save_encoder(tmp_path / "encoder", published, study, INFO)

    started = method({"init_from": str(tmp_path / "encoder")}, {"coupling": coupling})
    assert started.encoder is not None
    expected = published.state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in started.encoder.state_dict().items())

    shutil.rmtree(tmp_path / "encoder")
    with pytest.raises(ConfigError, match=r"method.pretrain.init_from"):
        build(started.config, INFO)
    detector = build(started.config, replace(INFO, restored=True))
    detector.load_state_dict(started.state_dict())
    features, _ = clips()
    assert all(map(torch.equal, started.eval().embed(features), detector.eval().embed(features)))


def test_compile_translates_encoder_and_light_network() -> None:
    config = {"compile": True, "pretrain": {"encoder": "test_resnet"}, "finetune": {"coupling": "channel"}}
    compiled = build(SiaMocoConfig.model_validate(config), INFO)
    plain = method(finetune={"coupling": "channel"})
    assert compiled.state_dict().keys() == plain.state_dict().keys()

    def translated(built: Method) -> list[str]:
        return [name for name, module in built.named_modules() if module._compiled_call_impl is not None]

    assert translated(compiled) == ["encoder.network", "trunk.light.network"]
    assert translated(plain) == []


def test_unknown_networks_are_errors_for_the_user() -> None:
    with pytest.raises(ConfigError, match="'resnet51'; close are"):
        method({"encoder": "resnet51"})
    with pytest.raises(ConfigError, match=r"method.finetune.network: timm has no architecture 'mobilefacenett'; close"):
        method(finetune={"coupling": "none", "network": "mobilefacenett"})
