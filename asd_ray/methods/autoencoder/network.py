"""The autoencoder of the DCASE 2020 Task 2 baseline (y-kawagu/dcase2020_task2_baseline).

Legend: F mel bands, T frames, P = 5 consecutive frames.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

CONTEXT = 5  # P
MOMENTUM = 0.01  # of batch norm's running statistics


class Autoencoder(nn.Sequential):
    """r(x), vectors (N, P F) to the same shape: four layers of 128, a bottleneck of 8, four of 128, with batch norm.

    Initial weights and batch norm have Keras's defaults, as in the baseline: Glorot's uniform weights, biases of 0,
    ε = 1e-3, running statistics of momentum 0.99 (0.01 in torch's terms). In batch n of the first 1,000 they move
    faster, by 10 / (10 + n), so that after a short training they are not those of its start.
    """

    def __init__(self, size: int, hidden: int = 128, bottleneck: int = 8) -> None:
        sizes = [size, *[hidden] * 4, bottleneck, *[hidden] * 4]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs, eps=1e-3), nn.ReLU()]
        super().__init__(*layers, nn.Linear(hidden, size))
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, P F) to (N, P F)."""
        if self.training:
            norms = [layer for layer in self if isinstance(layer, nn.BatchNorm1d)]
            batches = int(norms[0].num_batches_tracked or 0)
            for norm in norms:
                norm.momentum = max(MOMENTUM, 10 / (10 + batches))
        return super().forward(x)


def context_vectors(log_mel: Tensor) -> Tensor:
    """(…, F, T) to (…, T − P + 1, P F): each P consecutive frames as one vector, frame after frame."""
    return log_mel.unfold(-1, CONTEXT, 1).movedim(-3, -1).flatten(-2)


def fit(vectors: Tensor, epochs: int = 100, batch_size: int = 512, lr: float = 1e-3, seed: int = 0) -> Autoencoder:
    """Train an autoencoder of (N, P F) vectors by mean squared error and Adam; defaults are the baseline's.

    Returns it in eval mode.
    """
    torch.manual_seed(seed)
    network = Autoencoder(vectors.shape[1])
    optimiser = torch.optim.Adam(network.parameters(), lr)
    for _ in range(epochs):
        for batch in torch.randperm(len(vectors)).split(batch_size):
            if len(batch) < 2:  # batch norm has no statistics of a single vector
                continue
            loss = (network(vectors[batch]) - vectors[batch]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network.eval()


@torch.no_grad()
def anomaly_score(network: Autoencoder, vectors: Tensor) -> float:
    """Mean squared error of the reconstruction over all vectors of a clip."""
    return float((network(vectors) - vectors).square().mean())
