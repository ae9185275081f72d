from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as nnf
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from asd_ray.config import FinetuneConfig
from asd_ray.errors import ConfigError
from asd_ray.methods.blocks.heads import ArcFaceHead, LinearHead
from asd_ray.methods.blocks.networks import Network
from asd_ray.methods.sia_moco import finetune
from asd_ray.methods.sia_moco.augment import PreNorm
from asd_ray.methods.sia_moco.finetune import FinetuneStage, build_trunk

F, T = 32, 40
NETWORK = "method.finetune.network"
COUPLINGS = ["encoder", "channel", "frozen", "none"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)  # the networks are tiny
    torch.manual_seed(0)


def parts(**options: Any) -> tuple[FinetuneStage, Network]:
    """A stage and the encoder that it may or may not use."""
    config = FinetuneConfig.model_validate(options)
    encoder = Network("test_resnet", F, T, precision="fp32")
    trunk = build_trunk(config, None if config.coupling == "none" else encoder, F, T, "fp32")
    head = (
        LinearHead(trunk.num_features, 3)
        if config.head == "linear"
        else ArcFaceHead(trunk.num_features, 3, config.scale, config.margin)
    )
    return FinetuneStage(config, PreNorm(-5.0, 3.0), trunk, head), encoder


def clips(count: int = 8, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """Three classes, of noise with nothing, with tones and with clicks; fp16 as in the feature store."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    features = torch.randn(count, F, T, generator=generator) - 5
    features[labels == 1, ::6] += 8
    features[labels == 2, :, ::6] += 8
    return {"log_mel": features.half()}, labels


def optimiser_of(stage: nn.Module, lr: float = 3e-3) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in stage.parameters() if p.requires_grad], lr=lr, weight_decay=0.01)


def step(stage: nn.Module, optimiser: torch.optim.Optimizer, seed: int = 0) -> tuple[float, float]:
    loss, metrics = stage(*clips(seed=seed))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    assert not metrics["accuracy"].requires_grad
    return loss.item(), metrics["accuracy"].item()


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def scores(stage: FinetuneStage, inputs: dict[str, Tensor]) -> Tensor:
    """Logits in eval mode, without margin."""
    stage.eval()
    with torch.no_grad():
        return stage.head(stage.trunk(stage.pre_norm(inputs["log_mel"])))


# Couplings


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_the_gradient_reaches_exactly_what_the_coupling_trains(coupling: str) -> None:
    stage, encoder = parts(coupling=coupling)
    loss, _ = stage(*clips())
    loss.backward()
    assert all((p.grad is not None) == (coupling == "encoder") for p in encoder.parameters())
    assert all(p.requires_grad for p in encoder.parameters())  # pre-training trains it all the same
    trained = {"encoder": "network", "channel": "reduce light", "frozen": "", "none": "network"}[coupling].split()
    seen = set()
    for name, parameter in stage.named_parameters():
        assert parameter.grad is not None, name
        seen.add(name.split(".")[1] if name.startswith("trunk.") else name.split(".")[0])
    assert seen == {"head", *trained}


@pytest.mark.parametrize("coupling", ["channel", "frozen"])
def test_a_frozen_encoder_stays_as_it_was_bit_for_bit(coupling: str) -> None:
    stage, encoder = parts(coupling=coupling)
    encoder.train()(torch.randn(4, F, T))  # as pre-training leaves it: in train mode, with statistics of its own
    before, head = snapshot(encoder), snapshot(stage.head)
    encoder.train()
    stage.train()
    optimiser = optimiser_of(stage)
    for seed in range(3):
        step(stage, optimiser, seed)
    after = encoder.state_dict()
    assert any(name.endswith("running_mean") for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(torch.equal(head[name], tensor) for name, tensor in stage.head.state_dict().items())


@pytest.mark.parametrize("coupling", ["channel", "frozen"])
def test_frozen_features_are_those_of_eval_mode(coupling: str) -> None:
    """What the head is trained on is what it later scores: batch norm of the encoder by its running statistics."""
    stage, encoder = parts(coupling=coupling)
    nn.init.constant_(encoder.network.bn1.running_mean, 0.3)
    x = torch.randn(4, F, T)
    frozen = stage.trunk.encoder
    assert isinstance(frozen, finetune.Frozen)
    with torch.no_grad():
        expected = encoder.eval().network.forward_features(x[:, None])
        encoder.train()
        assert torch.equal(frozen.feature_map(x), expected)
        encoder.train()
        torch.testing.assert_close(frozen.features(x), expected.mean(dim=(2, 3)))


def test_channel_is_the_reduced_feature_map_at_the_size_of_the_clip() -> None:
    stage, encoder = parts(coupling="channel")
    network, x = stage.trunk, torch.randn(4, F, T)
    assert isinstance(network, finetune.ChannelNetwork)
    seen: list[Tensor] = []
    network.light.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network.train()(x)
    assert seen[0].shape == (4, 2, F, T)
    assert torch.equal(seen[0][:, 0], x)
    weight = network.reduce[0].weight[0, :, 0, 0]
    with torch.no_grad():
        small = torch.einsum("c,bchw->bhw", weight, encoder.eval().network.forward_features(x[:, None]))
        small = (small - small.mean()) / (small.var(correction=0) + 1e-5).sqrt()
        expected = nnf.interpolate(small[:, None], size=(F, T), mode="bilinear")[:, 0]
    torch.testing.assert_close(seen[0][:, 1], expected, atol=1e-4, rtol=1e-4)


def test_without_coupling_the_encoder_is_not_asked() -> None:
    config = FinetuneConfig(coupling="none", network="test_efficientnet")
    trunk = build_trunk(config, None, F, T, "fp32")
    assert isinstance(trunk, Network)
    assert trunk(torch.randn(2, F, T)).shape == (2, trunk.num_features) == (2, 256)


@pytest.fixture
def _process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("_process_group")
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_distributed_data_parallel_finds_every_gradient(coupling: str) -> None:
    """It would refuse the second step if a parameter of the stage had no part in the first's loss."""
    stage, _ = parts(coupling=coupling, mixup=0.5)
    parallel = DistributedDataParallel(stage, broadcast_buffers=False)
    optimiser = optimiser_of(parallel)
    assert all(math.isfinite(step(parallel, optimiser, seed)[0]) for seed in range(3))


@pytest.mark.parametrize(
    "options",
    [
        {"coupling": "encoder"},
        {"coupling": "encoder", "head": "linear"},
        {"coupling": "channel"},
        {"coupling": "frozen"},
        {"coupling": "none", "mixup": 0.5},
        {"coupling": "none", "network": "test_efficientnet"},
    ],
    ids=str,
)
def test_learns_three_classes_of_clips_that_it_has_not_seen(options: dict[str, Any]) -> None:
    large = "network" not in options and options["coupling"] in ("channel", "none")  # trains MobileFaceNet
    stage, _ = parts(**options, scale=10.0)
    optimiser = optimiser_of(stage.train(), lr=1e-2 if options["coupling"] == "frozen" else 3e-3)
    steps = [step(stage, optimiser, seed) for seed in range(18 if large else 30)]
    assert sum(loss for loss, _ in steps[-5:]) < 0.7 * sum(loss for loss, _ in steps[:5])
    inputs, labels = clips(24, seed=100)
    assert (scores(stage, inputs).argmax(dim=1) == labels).float().mean() > 0.9


def test_light_network_runs_in_bf16_and_the_head_in_fp32() -> None:
    network, x = Network("mobilefacenet", F, T, precision="bf16").eval(), torch.randn(4, F, T)
    seen: list[torch.dtype] = []
    network.network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    half = network(x)
    network.precision = "fp32"
    full = network(x)
    assert seen == [torch.bfloat16, torch.float32]
    assert half.dtype == torch.float32
    assert nnf.cosine_similarity(full, half).min() > 0.999
    assert network.network.expand[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_networks_that_do_not_fit_are_errors_for_the_user() -> None:
    with pytest.raises(
        ConfigError, match=r"method.finetune.network: test_vit does not take inputs of 1 × 32 × 40 .*; choose"
    ):
        Network("test_vit", F, T, 1, key=NETWORK)
    with pytest.raises(ConfigError, match=r"method.finetune.network: timm has no architecture 'hf-hub:x/y'"):
        Network("hf-hub:x/y", F, T, 1, key=NETWORK)
    light = Network("mobilefacenet", F, T, 2, key=NETWORK)
    with pytest.raises(
        ConfigError, match=r"coupling: channel needs .* that of test_mambaout has the shape \(1, 2, 64\)"
    ):
        finetune.ChannelNetwork(Network("test_mambaout", F, T), light, F, T)


# Loss, mixup, validation


def test_accuracy_is_that_of_the_logits_without_margin() -> None:
    stage, _ = parts(margin=1.4)
    inputs, labels = clips()
    logits = scores(stage, inputs)
    loss, metrics = stage(inputs, labels)
    assert metrics["accuracy"].item() == (logits.argmax(dim=1) == labels).float().mean().item()
    assert loss > nnf.cross_entropy(logits, labels)


@pytest.mark.parametrize("head", ["linear", "arcface"])
def test_mixup_is_the_weighted_loss_of_both_labels_on_mixed_clips(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clip by clip, with the margin on the first label, and mixed before the pre-norm instead of after it."""
    stage, _ = parts(mixup=0.5, head=head)
    stage.eval()
    inputs, labels = clips()
    ratio, partner = 0.3, torch.tensor([1, 2, 3, 4, 5, 6, 7, 0])
    monkeypatch.setattr(finetune, "draw_mixup", lambda alpha, batch, device: (ratio, partner))
    loss, metrics = stage(inputs, labels)
    losses, hits = [], 0.0
    for a, b in enumerate(partner.tolist()):
        mixed = ratio * inputs["log_mel"][a].float() + (1 - ratio) * inputs["log_mel"][b].float()
        features = stage.trunk(stage.pre_norm(mixed[None]))
        log_p = stage.head(features, labels[a, None]).log_softmax(dim=1)[0]
        losses.append(-ratio * log_p[labels[a]] - (1 - ratio) * log_p[labels[b]])
        best = stage.head(features).argmax().item()
        hits += ratio * (best == labels[a].item()) + (1 - ratio) * (best == labels[b].item())
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    assert metrics["accuracy"].item() == pytest.approx(hits / 8)


def test_mixup_with_ratio_1_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, _ = parts(mixup=0.5)
    plain = FinetuneStage(FinetuneConfig(), stage.pre_norm, stage.trunk, stage.head)
    monkeypatch.setattr(finetune, "draw_mixup", lambda alpha, batch, device: (1.0, torch.arange(batch).flip(0)))
    (loss, metrics), (expected, expected_metrics) = stage(*clips()), plain(*clips())
    assert torch.equal(loss, expected)
    assert metrics == expected_metrics


def test_mixup_with_ratio_0_has_the_partners_clips_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, _ = parts(mixup=0.5, head="linear")
    stage.eval()
    inputs, labels = clips()
    partner = torch.randperm(8)
    monkeypatch.setattr(finetune, "draw_mixup", lambda alpha, batch, device: (0.0, partner))
    swapped, _ = stage(inputs, labels)
    stage.mixup = 0.0
    expected, _ = stage({"log_mel": inputs["log_mel"][partner]}, labels[partner])
    torch.testing.assert_close(swapped, expected)


def test_mixup_draws_from_torchs_generator_anew_for_every_batch() -> None:
    stage, _ = parts(mixup=0.5)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(stage.eval()(*clips())[0].item())
    assert losses[0] == losses[1] != losses[2]


def test_validation_loss_is_a_sum_of_plain_cross_entropies() -> None:
    stage, _ = parts(mixup=0.5, margin=0.9)
    inputs, labels = clips(9)
    log_p = scores(stage, inputs).double().log_softmax(dim=1)
    with torch.no_grad():
        total = stage.validation_loss(inputs, labels)
        torch.testing.assert_close(total, sum(-log_p[i, label] for i, label in enumerate(labels)))
        halves = [
            stage.validation_loss({"log_mel": inputs["log_mel"][part]}, labels[part])
            for part in (slice(0, 4), slice(4, 9))
        ]
        torch.testing.assert_close(halves[0] + halves[1], total, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lead", [20.0, 30.0])
def test_validation_tells_apart_what_is_nearly_perfect(lead: float, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, _ = parts()
    monkeypatch.setattr(stage.head, "forward", lambda x, labels=None: torch.tensor([[lead, 0.0, 0.0]] * len(x)))
    inputs, _ = clips(4)
    loss = stage.validation_loss(inputs, torch.zeros(4, dtype=torch.long))
    assert loss.item() == pytest.approx(4 * 2 * math.exp(-lead), rel=1e-2)


def test_validation_leaves_the_network_as_it_was() -> None:
    stage, _ = parts()
    before = snapshot(stage.eval())
    with torch.no_grad():
        stage.validation_loss(*clips())
    assert all(torch.equal(before[name], tensor) for name, tensor in stage.state_dict().items())


def test_patience_without_validation_is_refused() -> None:
    with pytest.raises(ValidationError, match="patience needs clips that are held out"):
        FinetuneConfig(patience=3, validation=0)
    assert FinetuneConfig(patience=3).validation == 0.05
    assert FinetuneConfig(validation=0).keep == "best"
