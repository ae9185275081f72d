"""Heads on top of an encoder: a projection for contrast, and classifiers of machine and ID.

Legend: B batch, D features, C classes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn


def projection(kind: str, features: int, dim: int) -> nn.Module:
    """Projection of (B, features) to (B, dim): ``linear`` (MoCo v1), or ``mlp``, two layers with ReLU (MoCo v2).

    Its output is not normalised.
    """
    if kind == "linear":
        return nn.Linear(features, dim)
    return nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, dim))


class LinearHead(nn.Linear):
    """Class logits w_j · x + b_j.

    Args:
        features: D.
        classes: C.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, D) to (B, C). Labels are ignored; :class:`ArcFaceHead` needs them."""
        return super().forward(x)


class ArcFaceHead(nn.Module):
    """Additive angular margin: logits s · cos(θ_j), and in training s · cos(θ_y + m) for the own class y of a clip.

    Deng et al., "ArcFace", CVPR 2019, equation 3, with the guard of the authors' code: where θ_y + m is beyond π, the
    logit is s (cos θ_y − m sin m), so that it falls with θ_y everywhere. Always in fp32: below 1, neighbouring numbers
    of bf16 are 1/256 apart, which s = 30 makes a tenth of a logit.

    Args:
        features: D.
        classes: C.
        scale: s.
        margin: m in radians.
    """

    def __init__(self, features: int, classes: int, scale: float = 30.0, margin: float = 0.4) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(classes, features)))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Features (B, D) to logits (B, C), with the margin on the labels (B,) if they are given.

        Labels may also be a mask (B, C), for clips that belong to one of several classes.
        """
        with torch.autocast(x.device.type, enabled=False):
            cosine = nnf.linear(nnf.normalize(x.float()), nnf.normalize(self.weight))
        if labels is None:
            return self.scale * cosine
        if labels.dtype == torch.bool:
            return self.scale * torch.where(labels, self._with_margin(cosine), cosine)
        own = labels[:, None]
        return self.scale * cosine.scatter(1, own, self._with_margin(cosine.gather(1, own)))

    def _with_margin(self, cosine: Tensor) -> Tensor:
        # The root has an infinite slope at |cos θ| = 1, and rounding can make |cos θ| larger than 1.
        sine = (1 - cosine.square()).clamp(min=1e-7).sqrt()
        shifted = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine - self.margin * math.sin(self.margin)
        return torch.where(cosine > math.cos(math.pi - self.margin), shifted, beyond)

    def extra_repr(self) -> str:
        classes, features = self.weight.shape
        return f"features={features}, classes={classes}, scale={self.scale}, margin={self.margin}"
