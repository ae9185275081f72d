from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.methods.blocks.mixup import draw_mixup, mixed_accuracy, mixed_cross_entropy


@pytest.mark.parametrize("alpha", [0.2, 0.5, 2.0])
def test_mixups_ratio_has_the_moments_of_its_beta_distribution(alpha: float) -> None:
    ratios = torch.tensor([draw_mixup(alpha, 2, torch.device("cpu"))[0] for _ in range(4000)])
    variance = 1 / (4 * (2 * alpha + 1))
    assert ratios.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(variance / 4000))
    assert ratios.var().item() == pytest.approx(variance, rel=0.1)


@settings(deadline=None, max_examples=50)
@given(alpha=st.floats(1e-3, 1e3), batch=st.integers(1, 70), seed=st.integers(0, 2**32))
def test_mixups_draw_is_a_ratio_and_a_permutation(alpha: float, batch: int, seed: int) -> None:
    torch.manual_seed(seed)
    ratio, partner = draw_mixup(alpha, batch, torch.device("cpu"))
    assert 0 <= ratio <= 1
    assert sorted(partner.tolist()) == list(range(batch))


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_mixed_cross_entropy_clip_by_clip(ratio: float) -> None:
    logits = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 10
    labels, partners = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 1, 0, 2, 0])
    total = 0.0
    for row, a, b in zip(logits.tolist(), labels.tolist(), partners.tolist(), strict=True):
        everything = sum(math.exp(value) for value in row)
        total -= ratio * math.log(math.exp(row[a]) / everything)
        total -= (1 - ratio) * math.log(math.exp(row[b]) / everything)
    assert mixed_cross_entropy(logits, labels, partners, ratio).item() == pytest.approx(total / 5)


def test_mixed_accuracy_weighs_both_labels() -> None:
    logits = torch.eye(3)  # predicts 0, 1, 2
    labels, partners = torch.tensor([0, 0, 2]), torch.tensor([1, 1, 2])
    assert mixed_accuracy(logits, labels, partners, 0.75).item() == pytest.approx((0.75 + 0.25 + 1) / 3)
