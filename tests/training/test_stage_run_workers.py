"""Training in two processes: gradients between them, and a run that goes on from the parts that each has kept."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from asd_ray.config import OptimiserConfig
from asd_ray.data.clips import Clip
from asd_ray.features.batches import CachedBatches
from asd_ray.methods.base import Inputs, Method, Stage
from asd_ray.training.loop import train
from asd_ray.training.stage_run import distributed
from tests.two_processes import WORKERS, in_two_processes

PRECISIONS = ("fp32", "bf16")


class Network(nn.Module):
    """Stands for a stage: what matters is the precision that one of its modules says it has."""

    def __init__(self, precision: str) -> None:
        super().__init__()
        self.encoder = nn.Linear(16, 8, bias=False)
        self.encoder.precision = precision  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x).square().mean()


def gradient(rank: int, precision: str, alone: bool) -> Tensor:
    torch.manual_seed(0)
    network = Network(precision)
    step = network if alone else distributed(network, torch.device("cpu"))  # type: ignore[arg-type]
    step(torch.randn(4, 16, generator=torch.Generator().manual_seed(rank))).backward()
    assert network.encoder.weight.grad is not None
    return network.encoder.weight.grad.clone()


class Banked(Stage):
    """A regression with a buffer that is the worker's own."""

    name = "banked"
    worker_local = ("bank",)

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.optimiser = OptimiserConfig(epochs=3, batch_size=4, lr=0.01, probe_every=0)
        self.register_buffer("bank", torch.zeros(()))
        self.bank: Tensor

    def forward(self, inputs: Inputs, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        features = inputs["log_mel"].float().flatten(1)
        self.bank += features.sum()
        return (self.net(features).squeeze(1) - labels + self.bank).square().mean(), {}


class OneStage(Method):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        self.stage = Banked(self.net)

    def stages(self) -> list[Stage]:
        return [self.stage]

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class Memory:
    """Checkpoints in memory: to go on, a worker gets the first one's state with its own part over it."""

    def __init__(self, kept: dict[str, Any] | None = None) -> None:
        self.kept = kept
        self.saved: list[dict[str, Any]] = []

    def load(self) -> dict[str, Any] | None:
        if self.kept is None:
            return None
        shared: list[Any] = [self.kept]
        dist.broadcast_object_list(shared)
        return {**shared[0], "stage_state": {**shared[0]["stage_state"], **self.kept["stage_state"]}}

    def save(self, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        self.saved.append(copy.deepcopy(state))


def trained(rank: int, memory: Memory) -> dict[str, Tensor]:
    features = torch.randn(8, 2, 3, generator=torch.Generator().manual_seed(rank)).half()
    clips = [Clip(f"{rank}-{number}.wav", "fan", str(number % 2), "train", "normal") for number in range(8)]
    batches = CachedBatches(clips, {"log_mel": features}, ["fan/0", "fan/1"])
    method = OneStage()
    train(method, lambda splits: batches, 1, memory)
    return dict(method.state_dict())


def worker(rank: int) -> dict[str, Any]:
    whole = Memory()
    states = [trained(rank, whole)]
    states += [trained(rank, Memory(kept)) for kept in whole.saved[:-1]]
    keys = [list(state) for state in whole.saved]
    return {"states": states, "keys": keys} | {name: gradient(rank, name, alone=False) for name in PRECISIONS}


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return in_two_processes(worker, tmp_path_factory.mktemp("workers"))


def test_two_workers_cut_off_after_any_epoch_continue_bit_for_bit(exchanged: list[dict[str, Any]]) -> None:
    for found in exchanged:
        whole, *resumed = found["states"]
        assert len(resumed) == 2
        for state in resumed:
            assert all(torch.equal(state[name], value) for name, value in whole.items())
    first, second = (found["states"][0] for found in exchanged)
    assert not torch.equal(first["stage.bank"], second["stage.bank"])
    assert torch.equal(first["net.0.weight"], second["net.0.weight"])


def test_the_first_worker_keeps_what_all_share(exchanged: list[dict[str, Any]]) -> None:
    own = {"stage", "epoch", "history", "stage_state"}
    assert [set(keys) for keys in exchanged[1]["keys"]] == [own] * 3
    assert all(set(keys) == own | {"method", "best", "optimiser", "schedule"} for keys in exchanged[0]["keys"])


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-6), ("bf16", 2**-7)])
def test_every_worker_has_the_mean_of_all(exchanged: list[dict[str, Any]], precision: str, tolerance: float) -> None:
    parts = torch.stack([gradient(rank, precision, alone=True) for rank in range(WORKERS)])
    assert torch.equal(exchanged[0][precision], exchanged[1][precision])
    largest = parts.abs().amax(0)  # what is rounded are the parts: their sum may be much smaller
    assert ((exchanged[0][precision] - parts.mean(0)).abs() <= tolerance * largest).all()


def test_in_bf16_only_where_the_networks_calculate_in_it(exchanged: list[dict[str, Any]]) -> None:
    def is_bf16(values: Tensor) -> bool:
        return torch.equal(values, values.bfloat16().float())

    assert is_bf16(exchanged[0]["bf16"])
    assert not is_bf16(exchanged[0]["fp32"])
