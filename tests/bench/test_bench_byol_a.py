"""The slow reference and ours are the same operation wherever nothing is left to chance."""

from __future__ import annotations

import math

import pytest
import torch

from asd_ray.bench.byol_a import ClipByClip
from asd_ray.methods.sia_moco.augment import LogMixupExp, PreNorm, RandomResizeCrop, TwoViews

MEAN, STD = -8.0, 3.0


@pytest.mark.parametrize("scale", [1.0, 1.5])  # at 1.5 the crop is the whole canvas: there is one place for it
def test_without_chance_both_make_the_same_views(scale: float) -> None:
    features = (MEAN + STD * torch.randn(3, 16, 20)).half()
    canvas = (1.0, scale)
    mix = LogMixupExp(0.0, 64, 16, 20)
    ours = TwoViews(PreNorm(MEAN, STD), mix, RandomResizeCrop((scale, scale), canvas))(features)
    theirs = ClipByClip(MEAN, STD, 0.0, scale=(scale, scale), canvas=canvas)(features)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_a_clip_is_mixed_with_a_past_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.5)
    views = ClipByClip(0.0, 1.0, alpha=0.4)
    first, second = torch.full((2, 2), 1.0), torch.full((2, 2), 3.0)
    assert torch.equal(views._mix(first), first)  # the bank was empty
    expected = math.log(0.8 * math.exp(3) + 0.2 * math.exp(1))
    torch.testing.assert_close(views._mix(second), torch.full((2, 2), expected))
    assert [float(clip[0, 0]) for clip in views.bank] == [1.0, 3.0]  # un-mixed
