"""Gradients on their way between two processes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

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


def worker(rank: int) -> dict[str, Tensor]:
    return {name: gradient(rank, name, alone=False) for name in PRECISIONS}


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    return in_two_processes(worker, tmp_path_factory.mktemp("workers"))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-6), ("bf16", 2**-7)])
def test_every_worker_has_the_mean_of_all(exchanged: list[dict[str, Tensor]], precision: str, tolerance: float) -> None:
    parts = torch.stack([gradient(rank, precision, alone=True) for rank in range(WORKERS)])
    assert torch.equal(exchanged[0][precision], exchanged[1][precision])
    largest = parts.abs().amax(0)  # what is rounded are the parts: their sum may be much smaller
    assert ((exchanged[0][precision] - parts.mean(0)).abs() <= tolerance * largest).all()


def test_in_bf16_only_where_the_networks_calculate_in_it(exchanged: list[dict[str, Tensor]]) -> None:
    def is_bf16(values: Tensor) -> bool:
        return torch.equal(values, values.bfloat16().float())

    assert is_bf16(exchanged[0]["bf16"])
    assert not is_bf16(exchanged[0]["fp32"])
