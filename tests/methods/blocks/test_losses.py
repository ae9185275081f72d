from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf

from asd_ray.methods.blocks.losses import alignment, info_nce, uniformity


def unit(rows: int, dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return nnf.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


@pytest.mark.parametrize("temperature", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("negatives", [1, 7, 100])
def test_info_nce_against_the_papers_equation(temperature: float, negatives: int) -> None:
    q, k, queue = unit(5, 8, 0), unit(5, 8, 1), unit(negatives, 8, 2)
    losses = []
    for i in range(5):
        own = np.exp(float(q[i] @ k[i]) / temperature)
        others = sum(np.exp(float(q[i] @ queue[j]) / temperature) for j in range(negatives))
        losses.append(-np.log(own / (own + others)))
    loss = info_nce((q * k).sum(1), q @ queue.T, temperature)
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-9)


@pytest.mark.parametrize("negatives", [1, 15, 4096])
def test_info_nce_of_equal_similarities_is_log_k_plus_1(negatives: int) -> None:
    loss = info_nce(torch.full((3,), 0.3), torch.full((3, negatives), 0.3), 0.2)
    assert loss.item() == pytest.approx(math.log(negatives + 1), rel=1e-5)


def test_info_nce_falls_with_the_positive_and_rises_with_a_negative() -> None:
    positive = torch.tensor([0.2, 0.1], requires_grad=True)
    negative = torch.tensor([[0.3], [-0.2]], requires_grad=True)
    info_nce(positive, negative, 0.2).backward()
    assert positive.grad is not None
    assert negative.grad is not None
    assert (positive.grad < 0).all()
    assert (negative.grad > 0).all()


def test_alignment_is_the_mean_squared_distance_of_pairs() -> None:
    q, k = unit(6, 4, 0), unit(6, 4, 1)
    assert alignment(q, q).item() == 0
    assert alignment(q, k).item() == pytest.approx(2 - 2 * (q * k).sum(1).mean().item())


def test_uniformity_against_all_pairs() -> None:
    z = unit(7, 4, 0)
    potentials = [math.exp(-2 * float((a - b).square().sum())) for a, b in itertools.combinations(z, 2)]
    assert uniformity(z).item() == pytest.approx(math.log(np.mean(potentials)))


def test_uniformity_from_one_point_to_the_whole_sphere() -> None:
    assert uniformity(unit(1, 8, 0).expand(5, 8)).item() == 0
    assert uniformity(unit(500, 256, 0)).item() == pytest.approx(-4, abs=0.05)
