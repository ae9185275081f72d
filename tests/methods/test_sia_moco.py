from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from asd_ray.config import SiaMocoConfig
from asd_ray.errors import ConfigError
from asd_ray.methods.base import DataInfo, Stage
from asd_ray.methods.registry import build
from asd_ray.methods.finetune import FinetuneStage
from asd_ray.methods.pretrain import PretrainStage
from asd_ray.methods.sia_moco import SiaMoco

INFO = DataInfo(n_mels=32, frames=40, classes=("fan_00", "fan_02", "pump_00"), mean=-5.0, std=3.0, clips=24)
FEATURES = 96  # of test_resnet


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


def pretrain_stage(**settings: Any) -> PretrainStage:
    stage = method(settings).stages()[0]
    assert isinstance(stage, PretrainStage)
    return stage


def clips(count: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three classes, of noise with nothing, with tones and with clicks; fp16 as in the feature store."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    features = torch.randn(count, 32, 40, generator=generator) - 5
    features[labels == 1, ::6] += 8
    features[labels == 2, :, ::6] += 8
    return features.half(), labels


def optimiser_of(stage: Stage, lr: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in stage.parameters() if p.requires_grad], lr=lr)


def step(stage: Stage, optimiser: torch.optim.Optimizer, seed: int = 0) -> tuple[float, dict[str, float]]:
    loss, metrics = stage(*clips(seed=seed))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    stage.end_step(0.0)
    assert not any(value.requires_grad for value in metrics.values())
    return loss.item(), {name: value.item() for name, value in metrics.items()}


# Stages


def test_stages_in_order_without_those_of_no_epochs() -> None:
    assert [stage.name for stage in method().stages()] == ["pretrain", "finetune"]
    assert [stage.name for stage in method({"epochs": 0}).stages()] == ["finetune"]
    assert [stage.name for stage in method(finetune={"epochs": 0}).stages()] == ["pretrain"]


def test_stages_train_the_methods_own_encoder() -> None:
    built = method()
    pretrain, finetune = built.stages()
    before = built.encoder.network.conv1[0].weight.clone()
    step(pretrain, optimiser_of(pretrain))
    assert not torch.equal(before, built.encoder.network.conv1[0].weight)
    assert isinstance(finetune, FinetuneStage)
    assert finetune.encoder is built.encoder


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("queue_size", [20, 0])
def test_every_trainable_parameter_of_a_stage_gets_a_gradient(number: int, queue_size: int) -> None:
    stage = method({"queue_size": queue_size}).stages()[number]
    loss, _ = stage(*clips())
    loss.backward()
    assert loss.dtype == torch.float32
    for name, parameter in stage.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_a_detector_keeps_neither_queue_nor_key_encoder() -> None:
    built = method()
    built.stages()
    assert {key.split(".")[0] for key in built.state_dict()} == {"pre_norm", "encoder", "head"}
    finetune = method().stages()[1]
    assert {key.split(".")[0] for key in finetune.state_dict()} == {"pre_norm", "encoder", "head"}


# Pre-training


def test_key_encoder_starts_equal_and_follows_with_momentum() -> None:
    stage = pretrain_stage(momentum=0.9)
    assert all(map(torch.equal, stage.key.parameters(), stage.query.parameters()))
    assert not any(p.requires_grad for p in stage.key.parameters())
    old = [p.clone() for p in stage.key.parameters()]
    loss, _ = stage(*clips())
    loss.backward()
    optimiser_of(stage).step()
    assert all(map(torch.equal, old, stage.key.parameters()))  # neither a gradient nor the forward pass moves it
    stage.end_step(0.0)
    for key, before, query in zip(stage.key.parameters(), old, stage.query.parameters(), strict=True):
        assert key.grad is None
        torch.testing.assert_close(key, 0.9 * before + 0.1 * query)


def test_key_encoders_batch_norm_statistics_are_its_own() -> None:
    stage = pretrain_stage()
    stage(*clips())
    pairs = zip(stage.key.named_buffers(), stage.query.buffers(), strict=True)
    means = [(key, query) for (name, key), query in pairs if name.endswith("running_mean")]
    assert means
    assert all(key.abs().sum() > 0 for key, _ in means)
    assert not any(torch.equal(key, query) for key, query in means)


def test_queue_wraps_and_holds_the_newest_keys() -> None:
    stage = pretrain_stage(queue_size=20)
    optimiser = optimiser_of(stage)
    assert stage.queue is not None
    filled = [step(stage, optimiser, seed)[1]["queue_filled"] for seed in range(3)]
    assert filled == pytest.approx([0.4, 0.8, 1.0])
    assert int(stage.queue.pointer) == 24 % 20
    torch.testing.assert_close(stage.queue.items.norm(dim=1), torch.ones(20))


def test_loss_is_that_of_momentum_contrast() -> None:
    """The step's loss from its parts, spelled out, against the queue as it was before."""
    stage = pretrain_stage(alpha=0.0, crop_scale=(1, 1), canvas=(1, 1), shuffle_bn=False).eval()
    assert stage.queue is not None
    features, labels = clips()
    queue = stage.queue.items.clone()
    loss, metrics = stage(features, labels)
    x = stage.views.pre_norm(features)
    x = (x - x.mean()) / x.std(correction=0)
    q = stage.query(x) / stage.query(x).norm(dim=1, keepdim=True)
    k = stage.key(x) / stage.key(x).norm(dim=1, keepdim=True)
    losses = []
    for i in range(len(q)):
        similarities = torch.cat([(q[i] @ k[i])[None], queue @ q[i]]) / 0.2
        losses.append(-similarities.log_softmax(dim=0)[0])
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    torch.testing.assert_close(metrics["positive_similarity"], (q * k).sum(1).mean().detach())
    torch.testing.assert_close(metrics["negative_similarity"], (q @ queue.T).mean().detach())
    torch.testing.assert_close(metrics["embedding_std"], q.detach().std(dim=0).mean())
    torch.testing.assert_close(stage.queue.items[:8], k.detach())


def test_without_a_queue_the_batchs_other_keys_are_the_negatives() -> None:
    stage = pretrain_stage(queue_size=0, alpha=0.0, crop_scale=(1, 1), canvas=(1, 1), shuffle_bn=False).eval()
    loss, metrics = stage(*clips())
    x = stage.views.pre_norm(clips()[0])
    x = (x - x.mean()) / x.std(correction=0)
    z = stage.query(x) / stage.query(x).norm(dim=1, keepdim=True)
    similarities = z @ z.T / 0.2  # query and key encoder are still the same
    torch.testing.assert_close(loss, -similarities.log_softmax(dim=1).diagonal().mean())
    off_diagonal = similarities[~torch.eye(8, dtype=torch.bool)] * 0.2
    torch.testing.assert_close(metrics["negative_similarity"], off_diagonal.mean().detach())
    assert "queue_filled" not in metrics


def test_resumed_from_its_state_it_continues_bit_for_bit() -> None:
    def run(stop: int | None) -> dict[str, Tensor]:
        torch.manual_seed(0)
        stage = pretrain_stage().train()
        optimiser = optimiser_of(stage)
        for number in range(4):
            if number == stop:
                state = stage.state_dict(), optimiser.state_dict()
                torch.manual_seed(99)
                stage = pretrain_stage()
                optimiser = optimiser_of(stage)
                stage.load_state_dict(state[0])
                optimiser.load_state_dict(state[1])
            torch.manual_seed(number)
            step(stage, optimiser, number)
        return stage.state_dict()

    whole, resumed = run(None), run(2)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_only_the_mixing_bank_differs_between_workers() -> None:
    stage = pretrain_stage(bank_size=2048)
    local = {key for key in stage.state_dict() if key.startswith(stage.worker_local)}
    assert local == {f"views.mix.bank.{name}" for name in ("items", "pointer", "count")}
    assert len(stage.views.mix.bank) == 2 * INFO.clips  # more would be copies


def test_scheduled_momentum() -> None:
    stage = pretrain_stage(momentum=0.9)
    stage.momentum_schedule = "cosine"
    step(stage, optimiser_of(stage))
    before = [p.clone() for p in stage.key.parameters()]
    stage.end_step(progress=1.0)  # m is 1 at the end
    assert all(map(torch.equal, before, stage.key.parameters()))


def test_pretraining_learns_to_tell_clips_apart() -> None:
    stage = pretrain_stage(queue_size=0, temperature=0.2, crop_scale=(0.9, 1.1), momentum=0.9)
    optimiser = optimiser_of(stage, lr=3e-3)
    steps = [step(stage, optimiser) for _ in range(60)]
    gap = [metrics["positive_similarity"] - metrics["negative_similarity"] for _, metrics in steps]
    assert gap[0] < 0.2
    assert sum(gap[-10:]) / 10 > 0.3
    assert sum(loss for loss, _ in steps[-10:]) / 10 < steps[0][0] - 0.2
    metrics = steps[-1][1]
    assert metrics["embedding_std"] > 0.05


# Fine-tuning and embedding


@pytest.mark.parametrize("head", ["linear", "arcface"])
def test_finetuning_learns_separable_classes(head: str) -> None:
    built = method(finetune={"head": head, "scale": 10.0})
    stage = built.stages()[1]
    optimiser = optimiser_of(stage, lr=3e-3)
    steps = [step(stage, optimiser, seed) for seed in range(25)]
    assert steps[-1][0] < steps[0][0]
    assert steps[-1][1]["accuracy"] == 1
    features, labels = clips(12, seed=100)
    built.eval()
    with torch.no_grad():
        assert (built.embed(features)[1].argmax(dim=1) == labels).float().mean() > 0.9


def test_finetuning_reports_the_accuracy_of_the_logits_without_margin() -> None:
    built = method(finetune={"margin": 1.4, "scale": 30.0})
    stage = built.stages()[1].eval()
    features, labels = clips()
    loss, metrics = stage(features, labels)
    embedding, logits = built.eval().embed(features)
    assert metrics["accuracy"].item() == (logits.argmax(dim=1) == labels).float().mean().item()
    own = logits.gather(1, labels[:, None])
    assert (built.head(embedding, labels).gather(1, labels[:, None]) < own).all()
    without_margin = torch.nn.functional.cross_entropy(logits, labels)
    assert loss > without_margin


def test_embed_gives_pooled_features_and_logits_without_augmentation() -> None:
    built = method().eval()
    features, _ = clips()
    embedding, logits = built.embed(features)
    assert (embedding.shape, logits.shape) == ((8, FEATURES), (8, 3))
    assert embedding.dtype == logits.dtype == torch.float32
    expected = built.encoder.network((features.float()[:, None] + 5) / 3)
    torch.testing.assert_close(embedding, expected)
    torch.testing.assert_close(built.embed(features[:1])[0], embedding[:1], atol=1e-5, rtol=1e-5)


def test_an_unknown_encoder_is_an_error_for_the_user() -> None:
    with pytest.raises(ConfigError, match="'resnet51'; close are"):
        method({"encoder": "resnet51"})
