from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from asd_ray.config.autoencoder import AutoencoderConfig
from asd_ray.data.clips import Clip
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.features.batches import CachedBatches
from asd_ray.methods.autoencoder import method as autoencoder
from asd_ray.methods.autoencoder.method import AutoencoderMethod, AutoencoderStage
from asd_ray.methods.autoencoder.network import context_vectors
from asd_ray.methods.base import DataInfo

F, T = 6, 12
CLASSES = ("fan/00", "fan/02", "pump/00")
MACHINE = [0, 0, 1]
INFO = DataInfo(n_mels=F, frames=T, classes=CLASSES, mean=0.0, std=1.0, clips=24)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def method(**options: Any) -> AutoencoderMethod:
    return AutoencoderMethod(AutoencoderConfig.model_validate(options), INFO)


def stage_of(built: AutoencoderMethod) -> AutoencoderStage:
    [stage] = built.stages()
    assert isinstance(stage, AutoencoderStage)
    return stage


def clips(labels: list[int], seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """Two machine types: one is loud in its low bands, the other in its high ones."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(labels), F, T, generator=generator)
    for number, label in enumerate(labels):
        features[number, :3] += 6 * (MACHINE[label] == 0)
        features[number, 3:] += 6 * (MACHINE[label] == 1) * torch.rand(1, generator=generator)
    return {"log_mel": features.half()}, torch.tensor(labels)


def batches(labels: list[int], domains: list[str], seed: int = 0) -> CachedBatches:
    identities = [
        Clip(f"{number}.wav", *CLASSES[label].split("/"), "train", "normal", domain=domain)
        for number, (label, domain) in enumerate(zip(labels, domains, strict=True))
    ]
    return CachedBatches(identities, clips(labels, seed)[0], CLASSES)


def slow_errors(built: AutoencoderMethod, machine: int, clip: Tensor) -> np.ndarray:
    """(V, 5, F): one vector of five frames at a time."""
    network = copy.deepcopy(built.networks[machine]).double()
    rows = []
    for start in range(T - 4):
        x = torch.cat([clip[:, frame].double() for frame in range(start, start + 5)])
        with torch.no_grad():
            rows.append((x - network(x[None])[0]).numpy().reshape(5, F))
    return np.stack(rows)


def trained(steps: int = 30, **options: Any) -> AutoencoderMethod:
    torch.manual_seed(0)
    built = method(**options)
    stage = stage_of(built)
    optimiser = torch.optim.Adam(stage.parameters(), lr=1e-2)
    for seed in range(steps):
        loss, _ = stage.train()(*clips([0, 1, 2, 2, 0, 1], seed))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return built.eval()


def test_one_network_of_five_frames_for_every_machine_type() -> None:
    built = method()
    assert built.machines == ["fan", "pump"]
    assert len(built.networks) == 2
    assert all(network[0].in_features == network[-1].out_features == 5 * F for network in built.networks)
    assert AutoencoderConfig().columns == ("log_mel",)
    assert {key.split(".")[0] for key in built.state_dict()} == {"networks"}


def test_loss_is_the_mean_over_machine_types_of_their_squared_errors() -> None:
    built, (batch, labels) = method(), clips([0, 2, 1, 0])
    stage = stage_of(built).eval()
    loss, metrics = stage(batch, labels)
    by_clip = [
        np.square(slow_errors(built, MACHINE[label], clip)).mean()
        for clip, label in zip(batch["log_mel"], labels.tolist(), strict=True)
    ]
    fan, pump = np.mean([by_clip[0], by_clip[2], by_clip[3]]), by_clip[1]
    assert loss.item() == pytest.approx((fan + pump) / 2, rel=1e-5)
    assert metrics["reconstruction"].item() == pytest.approx(np.mean(by_clip), rel=1e-5)
    with torch.no_grad():
        assert stage.validation_loss(batch, labels).item() == pytest.approx(sum(by_clip), rel=1e-5)


def test_every_machine_type_learns_from_its_own_clips_alone() -> None:
    """Its gradient is that of training it apart, but for a factor, which Adam does not see."""
    built, (batch, labels) = method(), clips([0, 2, 1, 0])
    apart = copy.deepcopy(built.networks)
    stage_of(built).train()(batch, labels)[0].backward()
    for number, network in enumerate(apart):
        own = torch.tensor([MACHINE[label] == number for label in labels])
        vectors = context_vectors(batch["log_mel"][own].float()).flatten(0, 1)
        (network.train()(vectors) - vectors).square().mean().backward()
        for joint, alone in zip(built.networks[number].parameters(), network.parameters(), strict=True):
            assert joint.grad is not None
            assert alone.grad is not None
            torch.testing.assert_close(2 * joint.grad, alone.grad, rtol=1e-4, atol=1e-6)
        for joint, alone in zip(built.networks[number].buffers(), network.buffers(), strict=True):
            torch.testing.assert_close(joint, alone)


def test_a_machine_type_without_clips_in_the_batch_gets_zero_gradients_and_keeps_its_statistics() -> None:
    built = method()
    before = copy.deepcopy(built.networks[1].state_dict())
    loss, _ = stage_of(built).train()(*clips([0, 1, 1]))
    loss.backward()
    for parameter in built.networks[1].parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()
    assert all(torch.equal(before[name], tensor) for name, tensor in built.networks[1].state_dict().items())
    assert all(parameter.grad is not None for parameter in built.networks[0].parameters())


def test_training_lowers_the_error_and_tells_the_machine_types_apart() -> None:
    untrained, built, (batch, labels) = method().eval(), trained(), clips([0, 1, 2, 2], seed=99)
    with torch.no_grad():
        before, after = (m.validation_loss(batch, labels) for m in (stage_of(untrained), stage_of(built).eval()))
        assert after < 0.5 * before
        scores, _ = built.embed(batch)
    own = scores.gather(1, torch.tensor(MACHINE)[labels][:, None])[:, 0]
    assert torch.equal(own, scores.amin(dim=1))


def test_stage_takes_its_settings_and_none_has_no_epochs() -> None:
    stage = stage_of(method(train={"validation": 0.2, "patience": 3, "keep": "best", "epochs": 7}))
    assert (stage.validation, stage.patience, stage.keep, stage.optimiser.epochs) == (0.2, 3, "best", 7)
    default = stage_of(method()).optimiser
    assert (default.epochs, default.lr, default.weight_decay, default.schedule) == (100, 1e-3, 0, "constant")
    assert method(train={"epochs": 0}).stages() == []
    with pytest.raises(ValidationError, match="patience needs clips"):
        method(train={"patience": 1, "validation": 0})


def test_scores_are_mean_squared_errors_by_every_machine_types_network() -> None:
    built, (batch, _) = trained(5), clips([0, 1, 2])
    with torch.no_grad():
        scores, logits = built.embed(batch)
    for number, clip in enumerate(batch["log_mel"]):
        expected = [np.square(slow_errors(built, machine, clip)).mean() for machine in range(2)]
        assert scores[number].tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(logits, -scores[:, MACHINE])


def test_bf16_rounds_the_passes_and_nothing_else() -> None:
    built, (batch, labels) = trained(5), clips([0, 1, 2])
    rounded = method(precision="bf16").eval()
    rounded.load_state_dict(built.state_dict())
    with torch.no_grad():
        exact, scores = built.embed(batch)[0], rounded.embed(batch)[0]
        loss = stage_of(rounded)(batch, labels)[0]
    assert scores.dtype == loss.dtype == torch.float32
    assert not torch.equal(scores, exact)
    torch.testing.assert_close(scores, exact, rtol=0.02, atol=1e-3)
    assert stage_of(rounded).settings == ("method.train", "method.precision")
    assert method().config.precision == "fp32"


def test_own_score_is_that_of_the_machine_type_whatever_the_id() -> None:
    built = method()
    assert built.has_own_score
    scores = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert built.own_score(scores, ["pump/00", "fan/99", "fan/02"]).tolist() == [2, 3, 5]
    assert built.own_score(scores[:0], []).shape == (0,)
    with pytest.raises(AsdRayError, match=r"valve/00: no autoencoder was trained for .* valve, only for fan, pump"):
        built.own_score(scores, ["fan/00", "valve/00", "fan/00"])


def slow_inverse(errors: list[np.ndarray]) -> np.ndarray:
    return np.linalg.inv(np.cov(np.concatenate(errors).reshape(-1, F).T))


@pytest.mark.parametrize("score", ["mahalanobis", "mahalanobis_of_mean"])
@pytest.mark.parametrize("domains", [["source", "target"] * 4, ["none"] * 8, ["target"] * 8], ids=str)
def test_mahalanobis_scores_frame_by_frame(score: str, domains: list[str]) -> None:
    built, labels = trained(5, score=score), [0, 0, 1, 1, 2, 2, 2, 2]
    built.finish(batches(labels, domains))
    train, (test, _) = clips(labels)[0]["log_mel"], clips([0, 2, 1], seed=7)
    with torch.no_grad():
        scores, _ = built.embed(test)
    for machine in range(2):
        groups: dict[bool, list[np.ndarray]] = {}
        for clip, label, domain in zip(train, labels, domains, strict=True):
            if MACHINE[label] == machine:
                groups.setdefault(domain == "target", []).append(slow_errors(built, machine, clip))
        inverses = [slow_inverse(errors) for errors in groups.values()]
        assert len(inverses) == len(set(domains))
        for number, clip in enumerate(test["log_mel"]):
            frames = slow_errors(built, machine, clip).reshape(-1, F)
            if score == "mahalanobis":
                distances = [np.mean([e @ inverse @ e for e in frames]) for inverse in inverses]
            else:  # the published code: the mean over all pairs of frames
                distances = [np.mean([a @ inverse @ b for a in frames for b in frames]) for inverse in inverses]
            assert scores[number, machine].item() == pytest.approx(min(distances), rel=1e-3)


def test_covariances_come_from_the_clips_of_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, domains = [0, 1, 2, 2], ["source", "target"] * 2
    alone, together = trained(5, score="mahalanobis"), trained(5, score="mahalanobis")
    alone.finish(batches(labels * 2, domains * 2))
    other: list[Tensor] = []
    monkeypatch.setattr(autoencoder, "world_size", lambda: 2)
    monkeypatch.setattr(autoencoder.dist, "all_reduce", lambda sums: other.append(sums.clone()))
    whole = batches(labels * 2, domains * 2)
    together.finish(whole.where(np.arange(8) >= 4))
    monkeypatch.setattr(autoencoder.dist, "all_reduce", lambda sums: sums.add_(other[0]))
    together.finish(whole.where(np.arange(8) < 4))
    assert alone.inverse_covariance is not None
    torch.testing.assert_close(together.inverse_covariance, alone.inverse_covariance, rtol=1e-4, atol=1e-5)


def test_statistics_are_finite_without_spread_and_again_the_same() -> None:
    built = method(score="mahalanobis").eval()
    silent = CachedBatches(batches([0, 2], ["none"] * 2).clips, {"log_mel": torch.zeros(2, F, T).half()}, CLASSES)
    for parameter in built.parameters():
        nn.init.zeros_(parameter)
    built.finish(silent)
    assert built.inverse_covariance is not None
    first = built.inverse_covariance.clone()
    assert first.isfinite().all()
    built.finish(silent)
    assert torch.equal(first, built.inverse_covariance)


def test_a_detector_built_from_its_state_scores_alike() -> None:
    built = trained(5, score="mahalanobis")
    built.finish(batches([0, 1, 2], ["none"] * 3))
    torch.manual_seed(5)
    loaded = method(score="mahalanobis").eval()
    loaded.load_state_dict(built.state_dict())
    with torch.no_grad():
        assert all(map(torch.equal, built.embed(clips([0, 2])[0]), loaded.embed(clips([0, 2])[0])))
    plain = trained(5)
    plain.finish(batches([0, 1, 2], ["none"] * 3))
    assert plain.inverse_covariance is None


def test_a_resumed_run_is_the_uninterrupted_one() -> None:
    first = method()
    stage = stage_of(first)
    stage.train()(*clips([0, 2]))
    second = method()
    second.load_state_dict(first.state_dict())
    resumed = stage_of(second)
    resumed.load_state_dict(stage.state_dict())
    losses = [s.train()(*clips([1, 2], seed=1))[0] for s in (stage, resumed)]
    assert torch.equal(*losses)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    assert math.isfinite(losses[0].item())


def test_clips_of_fewer_than_five_frames_are_refused() -> None:
    short = DataInfo(F, 4, CLASSES, 0.0, 1.0, 24)
    with pytest.raises(ConfigError, match=r"takes 5 frames at a time, but clips have 4; make them"):
        AutoencoderMethod(AutoencoderConfig(), short)
