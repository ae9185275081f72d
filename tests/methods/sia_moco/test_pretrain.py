from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asd_ray.config import FeatureConfig, PretrainConfig
from asd_ray.errors import ConfigError
from asd_ray.features.store import settings_of
from asd_ray.methods.base import DataInfo
from asd_ray.methods.blocks.networks import Network
from asd_ray.methods.sia_moco.augment import PreNorm
from asd_ray.methods.sia_moco.pretrain import PretrainStage

INFO = DataInfo(n_mels=32, frames=40, classes=("fan/00",), mean=-5.0, std=3.0, clips=24)
OFF = {"alpha": 0.0, "crop_scale": (1, 1), "canvas": (1, 1), "shuffle_bn": False}  # only the norms are left
CLIPS = 8


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)  # the networks are tiny
    torch.manual_seed(0)


def pretrain_stage(info: DataInfo = INFO, precision: str = "fp32", **settings: Any) -> PretrainStage:
    config = PretrainConfig.model_validate({"encoder": "test_resnet", "dim": 16, "queue_size": 20, **settings})
    encoder = Network(config.encoder, info.n_mels, info.frames, precision=precision)
    return PretrainStage(config, info, PreNorm(info.mean, info.std), encoder).train()


def features(count: int = CLIPS, seed: int = 0) -> Tensor:
    """Noise with nothing, with tones, with clicks, in turn; fp16 as in the feature store."""
    clips = torch.randn(count, 32, 40, generator=torch.Generator().manual_seed(seed)) - 5
    clips[1::3, ::6] += 8
    clips[2::3, :, ::6] += 8
    return clips.half()


def loss_of(stage: PretrainStage, clips: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    clips = features() if clips is None else clips
    return stage({"log_mel": clips}, torch.zeros(len(clips), dtype=torch.long))


def optimiser_of(stage: PretrainStage, lr: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in stage.parameters() if p.requires_grad], lr=lr)


def step(stage: PretrainStage, optimiser: torch.optim.Optimizer, seed: int = 0) -> tuple[float, dict[str, float]]:
    loss, metrics = loss_of(stage, features(seed=seed))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    stage.end_step(0.0)
    assert not any(value.requires_grad for value in metrics.values())
    return loss.item(), {name: value.item() for name, value in metrics.items()}


def normed(stage: PretrainStage, clips: Tensor) -> Tensor:
    """What both views are when mixing and crop are off."""
    x = stage.views.pre_norm(clips)
    return (x - x.mean()) / x.std(correction=0)


def unit(network: nn.Module, x: Tensor) -> Tensor:
    z = network(x)
    return z / z.norm(dim=1, keepdim=True)


# The contrast


@pytest.mark.parametrize("queue_size", [20, 0])
def test_every_trainable_parameter_gets_a_gradient_and_the_key_encoder_none(queue_size: int) -> None:
    stage = pretrain_stage(queue_size=queue_size)
    loss, _ = loss_of(stage)
    loss.backward()
    assert loss.dtype == torch.float32
    for name, parameter in stage.named_parameters():
        assert parameter.requires_grad == name.startswith("query."), name
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_key_encoder_starts_equal_and_follows_with_momentum() -> None:
    stage = pretrain_stage(momentum=0.9)
    assert all(map(torch.equal, stage.key.parameters(), stage.query.parameters()))
    old = [p.clone() for p in stage.key.parameters()]
    loss_of(stage)[0].backward()
    optimiser_of(stage).step()
    assert all(map(torch.equal, old, stage.key.parameters()))  # neither a gradient nor the forward pass moves it
    stage.end_step(0.0)
    for key, before, query in zip(stage.key.parameters(), old, stage.query.parameters(), strict=True):
        torch.testing.assert_close(key, 0.9 * before + 0.1 * query)


def test_scheduled_momentum() -> None:
    stage = pretrain_stage(momentum=0.9, momentum_schedule="cosine")
    step(stage, optimiser_of(stage))
    before = [p.clone() for p in stage.key.parameters()]
    stage.end_step(progress=1.0)  # m is 1 at the end
    assert all(map(torch.equal, before, stage.key.parameters()))


def test_what_is_trained_is_the_encoder_that_was_given() -> None:
    stage = pretrain_stage()
    assert stage.trained is stage.query[0]
    before = stage.trained.network.conv1[0].weight.clone()
    step(stage, optimiser_of(stage))
    assert not torch.equal(before, stage.trained.network.conv1[0].weight)


def test_key_encoders_batch_norm_statistics_are_its_own() -> None:
    stage = pretrain_stage()
    loss_of(stage)
    pairs = zip(stage.key.named_buffers(), stage.query.buffers(), strict=True)
    means = [(key, query) for (name, key), query in pairs if name.endswith("running_mean")]
    assert means
    assert all(key.abs().sum() > 0 for key, _ in means)
    assert not any(torch.equal(key, query) for key, query in means)


def test_queue_wraps_and_holds_the_newest_keys() -> None:
    stage = pretrain_stage(queue_size=20)
    optimiser = optimiser_of(stage)
    assert stage.queue is not None
    filled = [step(stage, optimiser, seed)[1]["queue_filled"] for seed in range(4)]
    assert filled == pytest.approx([0, 0.4, 0.8, 1.0])  # of what the step's negatives were
    assert int(stage.queue.pointer) == 32 % 20
    torch.testing.assert_close(stage.queue.items.norm(dim=1), torch.ones(20))


def test_loss_is_that_of_momentum_contrast() -> None:
    """The step's loss from its parts, spelled out, against the queue as it was before."""
    stage = pretrain_stage(**OFF).eval()
    assert stage.queue is not None
    queue = stage.queue.items.clone()
    loss, metrics = loss_of(stage)
    x = normed(stage, features())
    q, k = unit(stage.query, x), unit(stage.key, x)
    losses = []
    for i in range(len(q)):
        similarities = torch.cat([(q[i] @ k[i])[None], queue @ q[i]]) / 0.2
        losses.append(-similarities.log_softmax(dim=0)[0])
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    torch.testing.assert_close(metrics["positive_similarity"], (q * k).sum(1).mean().detach())
    torch.testing.assert_close(metrics["negative_similarity"], (q @ queue.T).mean().detach())
    torch.testing.assert_close(metrics["embedding_std"], q.detach().std(dim=0).mean())
    assert torch.equal(stage.queue.items, queue)
    stage.end_step(0.0)
    torch.testing.assert_close(stage.queue.items[:CLIPS], k.detach())
    assert torch.equal(stage.queue.items[CLIPS:], queue[CLIPS:])


def test_without_a_queue_the_batchs_other_keys_are_the_negatives() -> None:
    stage = pretrain_stage(queue_size=0, **OFF).eval()
    loss, metrics = loss_of(stage)
    z = unit(stage.query, normed(stage, features()))
    similarities = z @ z.T / 0.2  # query and key encoder are still the same
    torch.testing.assert_close(loss, -similarities.log_softmax(dim=1).diagonal().mean())
    off_diagonal = similarities[~torch.eye(CLIPS, dtype=torch.bool)] * 0.2
    torch.testing.assert_close(metrics["negative_similarity"], off_diagonal.mean().detach())
    assert "queue_filled" not in metrics


def test_what_a_collapsed_encoder_shows() -> None:
    stage = pretrain_stage(queue_size=0)
    for network in (stage.query, stage.key):
        nn.init.zeros_(network[1][2].weight)
    loss, metrics = loss_of(stage)
    assert loss.item() == pytest.approx(math.log(CLIPS), abs=1e-5)  # log(K + 1) with K the other clips
    assert metrics["embedding_std"].item() == pytest.approx(0, abs=1e-6)
    assert metrics["alignment"].item() == pytest.approx(0, abs=1e-6)
    assert metrics["uniformity"].item() == pytest.approx(0, abs=1e-6)
    assert metrics["positive_similarity"].item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("queue_size", [20, 0])
def test_pretraining_learns_to_tell_clips_apart(queue_size: int) -> None:
    """Against the same contrast with an encoder that stays as it is (a queue that fills makes it harder by itself)."""

    def last_steps(lr: float) -> dict[str, float]:
        torch.manual_seed(0)
        stage = pretrain_stage(queue_size=queue_size, crop_scale=(0.9, 1.1), momentum=0.9)
        optimiser = optimiser_of(stage, lr)
        steps = [step(stage, optimiser, number % 2) for number in range(40)][-10:]
        means = {name: sum(metrics[name] for _, metrics in steps) / 10 for name in steps[0][1]}
        return {"loss": sum(loss for loss, _ in steps) / 10, **means}

    trained, untrained = last_steps(3e-3), last_steps(1e-12)
    assert trained["loss"] < untrained["loss"] - 0.2
    gap, gap_before = (m["positive_similarity"] - m["negative_similarity"] for m in (trained, untrained))
    assert gap > gap_before + 0.1
    assert trained["embedding_std"] > 0.05


# Parts of a batch, precision, state


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_give_the_gradients_and_queue_of_the_whole(parts: int) -> None:
    """Also where a batch has more clips than the queue takes, and twice, so that the second step sees the first's."""
    results = []
    for count in (1, parts):
        torch.manual_seed(0)
        stage = pretrain_stage(queue_size=12, **OFF).eval()
        stage.views.post_norm = nn.Identity()  # its statistics are those of a part
        optimiser = torch.optim.SGD(stage.query.parameters(), lr=0.1)
        for seed in range(2):
            optimiser.zero_grad()
            losses = []
            for part in features(16, seed).chunk(count):
                loss, metrics = loss_of(stage, part)
                (loss / count).backward()
                losses.append(loss.item())
                assert metrics["queue_filled"] == (seed > 0)  # no key of this step is a negative of it
            optimiser.step()
            stage.end_step(0.0)
        gradients = [p.grad for p in stage.query.parameters() if p.grad is not None]
        results.append((sum(losses) / count, gradients, list(stage.key.parameters()), stage.queue.state_dict()))
    assert max(float(gradient.abs().max()) for gradient in results[0][1]) > 1e-3
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-5)


def test_query_and_key_pass_run_in_bf16_and_what_is_compared_in_fp32() -> None:
    stage = pretrain_stage(precision="bf16")
    seen: list[torch.dtype] = []
    for network in (stage.query, stage.key):
        network[0].network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    loss, metrics = loss_of(stage)
    assert seen == [torch.bfloat16] * 3  # the query's batch, the key's halves
    assert {value.dtype for value in [loss, *metrics.values(), *stage.new_keys]} == {torch.float32}
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in stage.query.parameters())


def test_resumed_from_its_state_it_continues_bit_for_bit() -> None:
    def run(stop: int | None) -> dict[str, Tensor]:
        torch.manual_seed(0)
        stage = pretrain_stage()
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
    stage = pretrain_stage()
    local = {key for key in stage.state_dict() if key.startswith(stage.worker_local)}
    assert local == {f"views.mix.bank.{name}" for name in ("items", "pointer", "count")}


# Corpus and augmentation settings


@pytest.mark.parametrize(
    ("corpus", "splits", "clips"), [("own", ("train",), 24), ("extra", ("extra",), 7), ("both", ("train", "extra"), 31)]
)
def test_the_bank_never_holds_more_than_the_corpus_twice(corpus: str, splits: tuple[str, ...], clips: int) -> None:
    info = replace(INFO, extra_clips=7)
    stage = pretrain_stage(info, corpus=corpus, bank_size=2048)
    assert stage.corpus == splits
    assert len(stage.views.mix.bank) == 2 * clips
    assert len(pretrain_stage(info, corpus=corpus, bank_size=10).views.mix.bank) == 10


@pytest.mark.parametrize("corpus", ["extra", "both"])
def test_a_corpus_without_clips_is_refused(corpus: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"method.pretrain.corpus: is {corpus}, but there are no clips .* take own\."
    ):
        pretrain_stage(corpus=corpus)


@pytest.mark.parametrize(
    ("features", "to_energy"),
    [
        ({"log": "natural"}, torch.exp),
        ({"log": "db"}, lambda x: 10 ** (x / 10)),
        ({"log": "db", "power": 1.0}, lambda x: 10 ** (x / 20)),
    ],
)
def test_mix_domain_and_band_reach_the_mixing(features: dict[str, Any], to_energy: Callable[[Tensor], Tensor]) -> None:
    config = FeatureConfig.model_validate({"n_mels": 32, **features})
    info = replace(INFO, features=settings_of(config, 0))
    plain = pretrain_stage(info).views.mix
    assert (plain.scale, plain.first_band) == (1.0, 0)
    views = pretrain_stage(info, mix_domain="power", band="high", band_from_hz=1500, bank_size=1).views
    first = views.mix.first_band
    assert 0 < first < 32
    raw = torch.randn(2, 1, 32, 40) * 2 - 5
    views.mix(views.pre_norm(raw[0]))
    mixed = views.mix(views.pre_norm(raw[1])) * 3.0 - 5.0
    torch.testing.assert_close(mixed[:, :first], raw[1][:, :first])
    energy, other, own = (to_energy(x[:, first:].double()) for x in (mixed, raw[0], raw[1]))
    ratio = (energy - own) / (other - own)  # λ, the same everywhere if it is energies that were mixed
    ratio = ratio[(other - own).abs() > 0.1 * (other + own)]  # where it can be told; the bank is fp16
    assert 0 < ratio.median() < 0.4
    torch.testing.assert_close(ratio, ratio.median().expand_as(ratio), atol=0.02, rtol=0)
