from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from asd_ray.config import PretrainConfig
from asd_ray.methods.base import DataInfo
from asd_ray.methods.blocks.networks import Network
from asd_ray.methods.sia_moco.augment import PreNorm
from asd_ray.methods.sia_moco.moco import KeyQueue, begin_keys, momentum_at, momentum_update
from asd_ray.methods.sia_moco.pretrain import PretrainStage
from asd_ray.methods.workers import gather
from tests.two_processes import WORKERS, in_two_processes


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)  # the networks are tiny
    torch.manual_seed(0)


# Queue and momentum


def test_queue_starts_with_random_unit_vectors_that_keys_replace() -> None:
    queue = KeyQueue(5, 8)
    torch.testing.assert_close(queue.items.norm(dim=1), torch.ones(5))
    assert queue.items.std(dim=0).min() > 0.05
    assert int(queue.count) == 0
    before, keys = queue.items.clone(), torch.randn(3, 8)
    queue.push(keys)
    assert torch.equal(queue.items, torch.cat([keys, before[3:]]))
    queue.push(keys)  # the queue's size is no multiple of the batch: it wraps
    assert torch.equal(queue.items, keys[[2, 1, 2, 0, 1]])


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.99, 1.0])
def test_momentum_update_moves_parameters_only(momentum: float) -> None:
    key, query = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2))
    query(torch.randn(8, 3))
    old, buffers = [p.clone() for p in key.parameters()], [b.clone() for b in key.buffers()]
    addresses = [p.data_ptr() for p in key.parameters()]
    momentum_update(key, query, momentum)
    for k, before, q in zip(key.parameters(), old, query.parameters(), strict=True):
        torch.testing.assert_close(k, momentum * before + (1 - momentum) * q)
    assert all(map(torch.equal, buffers, key.buffers()))
    assert addresses == [p.data_ptr() for p in key.parameters()]


def test_momentum_schedules() -> None:
    assert [momentum_at(0.9, progress, "constant") for progress in (0, 0.5, 1)] == [0.9, 0.9, 0.9]
    assert [momentum_at(0.9, progress, "cosine") for progress in (0, 0.5, 1)] == pytest.approx([0.9, 0.95, 1])


# Shuffled batch norm on one worker


@pytest.mark.parametrize("clips", [1, 2, 7, 8])
@pytest.mark.parametrize("shuffle", [True, False])
def test_keys_come_back_in_the_order_of_the_clips(clips: int, shuffle: bool) -> None:
    x = torch.randn(clips, 5)
    assert torch.equal(begin_keys(x, shuffle)(lambda part: 2 * part), 2 * x)


def test_a_keys_statistics_are_those_of_a_random_half() -> None:
    norm, halves = nn.BatchNorm1d(5, affine=False), []

    def encode(part: Tensor) -> Tensor:
        halves.append(part)
        return norm(part)

    x = torch.randn(8, 5)
    keys = begin_keys(x, shuffle=True)(encode)
    assert [len(half) for half in halves] == [4, 4]
    assert not torch.equal(torch.cat(halves), x)
    for half in halves:
        standardised = (half - half.mean(0)) / (half.var(0, correction=0) + norm.eps).sqrt()
        places = [int((x == row).all(dim=1).nonzero()) for row in half]
        torch.testing.assert_close(keys[places], standardised)


@pytest.mark.parametrize("shuffle", [True, False])
def test_keys_carry_no_gradient(shuffle: bool) -> None:
    layer = nn.Linear(5, 3)
    assert not begin_keys(torch.randn(4, 5, requires_grad=True), shuffle)(layer).requires_grad


# Several workers: the same numbers as one

BATCH, STEPS = 32, 3
SETTINGS: dict[str, dict[str, Any]] = {
    "queue": {"queue_size": 40},
    "queue smaller than the batch, not shuffled": {"queue_size": 12, "shuffle_bn": False},
    "in-batch": {"queue_size": 0},
}
OFF = {"alpha": 0, "crop_scale": (1, 1), "canvas": (1, 1)}  # mixing and crop are the identity; post-norm stays
PARTS = 2
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def pretrain_stage(settings: dict[str, Any]) -> PretrainStage:
    """Batch norm in eval mode."""
    torch.manual_seed(1)
    config = PretrainConfig.model_validate({"encoder": "test_resnet", "dim": 16, **settings})
    info = DataInfo(n_mels=32, frames=40, classes=("a_0",), mean=0.5, std=2.0, clips=64)
    return PretrainStage(
        config, info, PreNorm(info.mean, info.std), Network("test_resnet", 32, 40, precision="fp32")
    ).eval()


def train(stage: PretrainStage, workers: int, rank: int, parts: int = 1) -> dict[str, Any]:
    """A few steps on this worker's share of the same global batches, each batch in parts."""
    parallel = DistributedDataParallel(stage, broadcast_buffers=False) if workers > 1 else None
    step_loss: nn.Module = parallel or stage
    optimiser = torch.optim.SGD([p for p in stage.parameters() if p.requires_grad], lr=0.1)
    losses, gradients = [], []
    for step in range(STEPS):
        batch = torch.randn(BATCH, 32, 40, generator=torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        for number, part in enumerate(batch.chunk(parts), start=1):
            share = part.chunk(workers)[rank]
            with parallel.no_sync() if parallel and number < parts else nullcontext():
                loss, metrics = step_loss({"log_mel": share}, torch.zeros(len(share), dtype=torch.long))
                (loss / parts).backward()
            losses.append(torch.stack([loss.detach(), *metrics.values()]))
        gradients.append([p.grad.clone() for p in stage.query.parameters() if p.grad is not None])
        optimiser.step()
        stage.end_step(0.0)
    return {
        "metrics": torch.stack(losses),
        "gradients": gradients,
        "key": [p.detach() for p in stage.key.parameters()],
        "queue": stage.queue.state_dict() if stage.queue is not None else {},
    }


def without_post_norm(settings: dict[str, Any]) -> PretrainStage:
    """Post-norm's statistics are those of a part of the batch."""
    stage = pretrain_stage(settings)
    stage.views.post_norm = nn.Identity()
    return stage


def worker(rank: int) -> dict[str, Any]:
    torch.manual_seed(rank)  # gathering and shuffling must not rely on equal random states
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(rank))
    encode = nn.Identity()
    parts: list[Tensor] = []
    encode.register_forward_hook(lambda module, inputs, output: parts.append(output))
    keys = begin_keys(x, shuffle=True)(encode)
    results: dict[str, Any] = {"gather": gather(x), "keys": keys, "encoded": parts[0]}
    for name, settings in SETTINGS.items():
        stage = pretrain_stage({**OFF, **settings})
        torch.manual_seed(rank)
        results[name] = train(stage, WORKERS, rank)
        torch.manual_seed(rank)
        results[f"{name}, in parts"] = train(without_post_norm({**OFF, **settings}), WORKERS, rank, PARTS)
    results["as in training"] = train(pretrain_stage({"queue_size": 40}).train(), WORKERS, rank)
    return results


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return in_two_processes(worker, tmp_path_factory.mktemp("workers"))


def test_gathered_and_shuffled_over_two_workers(two_workers: list[dict[str, Any]]) -> None:
    x = torch.cat([torch.randn(3, 2, generator=torch.Generator().manual_seed(rank)) for rank in range(2)])
    for result in two_workers:
        assert torch.equal(result["gather"], x)
        assert torch.equal(result["keys"], x)
        assert result["encoded"].shape == (3, 2)
    encoded = torch.cat([result["encoded"] for result in two_workers])
    assert not torch.equal(encoded, x)
    assert torch.equal(encoded.sort(dim=0).values, x.sort(dim=0).values)  # each clip encoded once


def assert_equal_training(workers: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    assert max(float(gradient.abs().max()) for gradient in alone["gradients"][0]) > 1e-3  # something to compare
    for result in workers:
        for part in ("gradients", "key", "queue"):
            torch.testing.assert_close(result[part], alone[part], **CLOSE)


@pytest.mark.parametrize("name", SETTINGS)
def test_two_workers_of_16_equal_one_of_32(two_workers: list[dict[str, Any]], name: str) -> None:
    alone = train(pretrain_stage({**OFF, **SETTINGS[name]}), workers=1, rank=0)
    results = [result[name] for result in two_workers]
    assert_equal_training(results, alone)
    torch.testing.assert_close((results[0]["metrics"] + results[1]["metrics"]) / 2, alone["metrics"], **CLOSE)


@pytest.mark.parametrize("name", SETTINGS)
def test_parts_on_two_workers_equal_parts_on_one(two_workers: list[dict[str, Any]], name: str) -> None:
    """With a queue also the batch as a whole; in-batch negatives are those of a part."""
    results = [result[f"{name}, in parts"] for result in two_workers]
    for parts in (PARTS, 1) if SETTINGS[name]["queue_size"] else (PARTS,):
        alone = train(without_post_norm({**OFF, **SETTINGS[name]}), workers=1, rank=0, parts=parts)
        assert_equal_training(results, alone)
        loss = (results[0]["metrics"] + results[1]["metrics"])[:, 0].view(STEPS, PARTS).mean(dim=1) / 2
        torch.testing.assert_close(loss, alone["metrics"][:, 0].view(STEPS, parts).mean(dim=1), **CLOSE)


@pytest.mark.parametrize("name", [*SETTINGS, "queue, in parts", "as in training"])
def test_workers_hold_the_same_queue_and_key_encoder_bit_for_bit(two_workers: list[dict[str, Any]], name: str) -> None:
    first, second = (result[name] for result in two_workers)
    for part in ("gradients", "key", "queue"):
        torch.testing.assert_close(first[part], second[part], atol=0, rtol=0)
    assert not torch.equal(first["metrics"], second["metrics"])  # of different clips
