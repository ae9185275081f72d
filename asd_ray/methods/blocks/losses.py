"""Contrastive losses, and measures of how well an embedding is spread.

Legend: B batch, D embedding, K negatives. Embeddings are L2-normalised rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor


def info_nce(positive: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """InfoNCE, −log(exp(q·k₊/T) / (exp(q·k₊/T) + Σ_j exp(q·k_j/T))), mean over the batch.

    He et al., "Momentum contrast", CVPR 2020, equation 1: cross-entropy over [positive | negatives] with label 0.

    Args:
        positive: (B,) cosine similarity of each query with its own key.
        negative: (B, K) cosine similarities with the negatives.
        temperature: T.
    """
    logits = torch.cat([positive[:, None], negative], dim=1) / temperature
    return nnf.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def alignment(query: Tensor, key: Tensor) -> Tensor:
    """Mean squared distance of positive pairs (B, D): 0 if the two views of each clip agree.

    Wang and Isola, "Understanding contrastive representation learning through alignment and uniformity on the
    hypersphere", ICML 2020, with α = 2.
    """
    return (query - key).square().sum(dim=1).mean()


def uniformity(embedding: Tensor) -> Tensor:
    """log of the mean Gaussian potential exp(−2 |z_i − z_j|²) of all pairs of (B, D), B ≥ 2.

    0 if all embeddings are the same; −4 + O(1/D) if they spread over the sphere (Wang and Isola 2020, t = 2).
    """
    return nnf.pdist(embedding).square().mul(-2).exp().mean().log()


def supervised_contrastive(
    embedding: Tensor, labels: Tensor, temperature: float = 0.02, base_temperature: float = 0.07
) -> Tensor:
    """Supervised contrastive loss of one view per clip, mean over all clips as anchors.

    (T / T_base) · −1/|P(i)| Σ_{p ∈ P(i)} log( exp(z_i·z_p/T) / Σ_{a ≠ i} exp(z_i·z_a/T) ), P(i) the other clips with
    i's label. An anchor without such clips has loss 0 and stays in the mean. Khosla et al., "Supervised contrastive
    learning", NeurIPS 2020, equation 2, with the scale of its published code.

    Args:
        embedding: z, (B, D) L2-normalised.
        labels: (B,).
        temperature: T.
        base_temperature: T_base.
    """
    similarity = embedding @ embedding.T / temperature
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    log_p = similarity - similarity.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    positive = (labels[:, None] == labels) & ~itself
    mean = log_p.masked_fill(~positive, 0).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
    return -temperature / base_temperature * mean.mean()
