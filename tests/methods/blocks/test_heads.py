from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as nnf
from torch import nn

from asd_ray.methods.blocks.heads import ArcFaceHead, LinearHead, projection


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def at_angles(head: ArcFaceHead, angles: torch.Tensor) -> torch.Tensor:
    """Logits of class 0 for 2-d clips at these angles from its weight, trained as class 0."""
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    x = torch.stack([angles.cos(), angles.sin()], dim=1)
    return head(x, torch.zeros(len(x), dtype=torch.long))[:, 0]


def test_margin_0_is_the_scaled_cosine() -> None:
    head, x = ArcFaceHead(8, 5, scale=30, margin=0), torch.randn(6, 8)
    expected = 30 * nnf.cosine_similarity(x[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(x, torch.arange(6) % 5), expected)


def test_margin_is_added_to_the_own_classs_angle_only() -> None:
    head, x, labels = ArcFaceHead(8, 5, scale=30, margin=0.4), torch.randn(6, 8), torch.arange(6) % 5
    cosine = nnf.cosine_similarity(x[:, None], head.weight[None], dim=2)
    expected = 30 * cosine
    for row, label in enumerate(labels):
        angle = math.acos(cosine[row, label].item())
        assert angle < math.pi - 0.4
        expected[row, label] = 30 * math.cos(angle + 0.4)
    torch.testing.assert_close(head(x, labels), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("margin", [0.1, 0.4, 0.7, 1.4])
def test_logit_falls_monotonically_over_all_angles(margin: float) -> None:
    head = ArcFaceHead(2, 2, scale=1, margin=margin)
    logits = at_angles(head, torch.linspace(0, math.pi, 2001))
    assert (logits.diff() < 1e-6).all()
    beyond = at_angles(head, torch.tensor([math.pi - margin / 2]))
    assert beyond.item() == pytest.approx(math.cos(math.pi - margin / 2) - margin * math.sin(margin), abs=1e-5)


def test_no_margin_without_labels() -> None:
    head, x = ArcFaceHead(8, 5, margin=0.4), torch.randn(6, 8)
    labels = torch.arange(6) % 5
    plain, trained = head(x), head(x, labels)
    own = nnf.one_hot(labels, 5).bool()
    assert torch.equal(plain[~own], trained[~own])
    assert (plain[own] > trained[own]).all()


def test_several_classes_can_have_the_margin() -> None:
    head, x, labels = ArcFaceHead(8, 5), torch.randn(6, 8), torch.arange(6) % 5
    own = nnf.one_hot(labels, 5).bool()
    assert torch.equal(head(x, own), head(x, labels))
    every = torch.stack([head(x, torch.full((6,), label))[:, label] for label in range(5)], dim=1)
    own[:, 2] = True
    torch.testing.assert_close(head(x, own), torch.where(own, every, head(x)))


def test_gradient_is_finite_at_the_ends_of_the_cosine() -> None:
    head = ArcFaceHead(2, 2, margin=0.4)
    at_angles(head, torch.tensor([0.0, math.pi, math.pi - 0.4])).sum().backward()
    assert head.weight.grad is not None
    assert head.weight.grad.isfinite().all()


def test_angular_margin_is_fp32_under_autocast() -> None:
    head, x, labels = ArcFaceHead(8, 5), torch.randn(6, 8), torch.arange(6) % 5
    expected = head(x, labels), head(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x.T).dtype == torch.bfloat16
        logits = head(x, labels), head(x)
        from_bf16 = head(x.bfloat16(), labels)
    assert torch.equal(logits[0], expected[0])
    assert torch.equal(logits[1], expected[1])
    assert torch.equal(from_bf16, head(x.bfloat16().float(), labels))


def test_linear_head_does_not_look_at_labels() -> None:
    head, x = LinearHead(8, 5), torch.randn(6, 8)
    assert torch.equal(head(x, torch.arange(6) % 5), head(x))
    torch.testing.assert_close(head(x), x @ head.weight.T + head.bias)


def test_projections() -> None:
    x = torch.randn(4, 8)
    assert isinstance(projection("linear", 8, 3), nn.Linear)
    mlp = projection("mlp", 8, 3)
    assert mlp(x).shape == (4, 3)
    assert [tuple(p.shape) for p in mlp.parameters()] == [(8, 8), (8,), (3, 8), (3,)]


def test_repr_names_the_parameters() -> None:
    assert "features=8, classes=5, scale=30, margin=0.4" in repr(ArcFaceHead(8, 5, scale=30, margin=0.4))
