from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as nnf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asd_ray.methods.blocks.losses import supervised_contrastive


def unit(rows: int, dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return nnf.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


def slow_contrast(z: Tensor, labels: list[int], temperature: float, base: float) -> float:
    """Anchor by anchor, pair by pair, as the equation is written."""
    total = 0.0
    for i in range(len(z)):
        positives = [p for p in range(len(z)) if p != i and labels[p] == labels[i]]
        everyone = sum(math.exp(float(z[i] @ z[a]) / temperature) for a in range(len(z)) if a != i)
        terms = [math.log(math.exp(float(z[i] @ z[p]) / temperature) / everyone) for p in positives]
        total += -sum(terms) / max(1, len(positives))
    return temperature / base * total / len(z)


@settings(deadline=None, max_examples=40)
@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=9),
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([0.02, 0.07, 1.0]),
)
def test_contrast_against_the_papers_equation(labels: list[int], seed: int, temperature: float) -> None:
    z = unit(len(labels), 5, seed)
    loss = supervised_contrastive(z, torch.tensor(labels), temperature, 0.07)
    assert loss.item() == pytest.approx(slow_contrast(z, labels, temperature, 0.07), rel=1e-9, abs=1e-12)


def test_gradient_of_the_contrast_by_finite_differences() -> None:
    z, labels = unit(6, 4, 0), [0, 1, 0, 2, 1, 0]
    variable = z.clone().requires_grad_()
    supervised_contrastive(variable, torch.tensor(labels), 0.2, 0.07).backward()
    assert variable.grad is not None
    step = 1e-6
    for i in range(6):
        for j in range(4):
            moved = [z.clone(), z.clone()]
            moved[0][i, j] += step
            moved[1][i, j] -= step
            above, below = (slow_contrast(m, labels, 0.2, 0.07) for m in moved)
            assert variable.grad[i, j].item() == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-7)


def test_anchors_without_positives_count_nothing_in_the_mean() -> None:
    z = unit(5, 8, 0)
    assert supervised_contrastive(z, torch.arange(5)).item() == 0
    alone = supervised_contrastive(z, torch.tensor([0, 0, 1, 2, 3]), 0.1, 0.07)
    assert alone.item() == pytest.approx(slow_contrast(z, [0, 0, 1, 2, 3], 0.1, 0.07))
    assert alone > 0


@pytest.mark.parametrize("temperature", [0.02, 0.3, 1.0])
def test_two_alike_and_an_orthogonal_other(temperature: float) -> None:
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    loss = supervised_contrastive(z, torch.tensor([0, 0, 1]), temperature, 0.07)
    e = math.exp(1 / temperature)
    anchor = -(temperature / 0.07) * math.log(e / (e + 1))
    assert loss.item() == pytest.approx(2 / 3 * anchor, rel=1e-6, abs=1e-12)


def test_contrast_is_finite_in_fp32_at_a_low_temperature() -> None:
    z = nnf.normalize(torch.cat([torch.ones(2, 3), -torch.ones(2, 3)]), dim=1).requires_grad_()
    loss = supervised_contrastive(z, torch.tensor([0, 1, 0, 1]), 0.001)
    loss.backward()
    assert loss.isfinite()
    assert z.grad is not None
    assert z.grad.isfinite().all()
