"""Small networks on top of an encoder: projection for contrast, classifiers for machine and ID.

Legend: B batch, D features, C classes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn


def projection(kind: str, features: int, dim: int) -> nn.Module:
    """(B, features) to (B, dim), not normalised: ``linear`` (MoCo v1) or ``mlp``, two layers with ReLU (MoCo v2)."""
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
        """(B, D) to (B, C). Labels make no difference; they are there because an angular margin needs them."""
        return super().forward(x)


class ArcFaceHead(nn.Module):
    """Additive angular margin: s · cos(θ_j), and s · cos(θ_y + m) for a clip's own class y while it trains.

    Deng et al., "ArcFace", CVPR 2019, equation 3, with the guard of the authors' code: where θ_y + m would pass π, and
    the cosine rise again, the logit is s (cos θ_y − m sin m), so that it falls monotonically over all θ_y.
    In fp32 under autocast too: bf16's steps below 1 are 1/256, which s = 30 makes a tenth of a logit.

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
        """Logits (B, C) of features (B, D): with margin on the labels (B,), without any where there are none.

        Labels may also be a mask (B, C), for clips that may be of several classes.
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
        # The slope of the root is infinite at |cos θ| = 1, and rounding can push the cosine beyond it.
        sine = (1 - cosine.square()).clamp(min=1e-7).sqrt()
        shifted = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine - self.margin * math.sin(self.margin)
        return torch.where(cosine > math.cos(math.pi - self.margin), shifted, beyond)

    def extra_repr(self) -> str:
        classes, features = self.weight.shape
        return f"features={features}, classes={classes}, scale={self.scale}, margin={self.margin}"
