"""Mixup of the clips of a batch, and its classification loss.

Zhang et al., "mixup", ICLR 2018, as in Noisy-ArcMix (Choi and Choi, ICASSP 2024) and OS-SCL (arXiv 2509.13853).

Legend: B batch, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor


def draw_mixup(alpha: float, batch: int, device: torch.device) -> tuple[float, Tensor]:
    """λ ~ Beta(alpha, alpha), which is not folded to λ ≥ 1/2, and the partners: a permutation (B,) of the batch."""
    ratio = torch.distributions.Beta(alpha, alpha).sample().item()
    return ratio, torch.randperm(batch, device=device)


def mixed_cross_entropy(logits: Tensor, labels: Tensor, partners: Tensor, ratio: float) -> Tensor:
    """λ CE(y_a) + (1 − λ) CE(y_b), mean over the batch, of the same logits: those with the angular margin on y_a.

    Noisy-ArcMix, and the classification loss of OS-SCL.

    Args:
        logits: (B, C).
        labels: y_a, (B,).
        partners: y_b, (B,) labels of the clips that are mixed in.
        ratio: λ.
    """
    return ratio * nnf.cross_entropy(logits, labels) + (1 - ratio) * nnf.cross_entropy(logits, partners)


def mixed_accuracy(logits: Tensor, labels: Tensor, partners: Tensor, ratio: float) -> Tensor:
    """Share of clips whose largest logit is that of their label, weighted like :func:`mixed_cross_entropy`.

    Args:
        logits: (B, C), without margin.
        labels: y_a, (B,).
        partners: y_b, (B,).
        ratio: λ.
    """
    predicted = logits.argmax(dim=1)
    return (ratio * (predicted == labels) + (1 - ratio) * (predicted == partners)).mean()
