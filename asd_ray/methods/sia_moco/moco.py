"""Momentum contrast's parts: key queue, momentum update, shuffled batch norm, gathering over workers.

Legend: B batch of one worker, R workers, N = R·B the global batch, D embedding, K queue.

After He et al., "Momentum contrast for unsupervised visual representation learning", CVPR 2020. Works alike with an
initialised process group and without one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as nnf
from torch import Tensor, nn

from asd_ray.methods.blocks.fifo import Fifo
from asd_ray.methods.workers import begin_gather, gather, rank, world_size


class KeyQueue(Fifo):
    """The last K keys as negatives; random unit vectors until they have been replaced, as in MoCo.

    Args:
        size: K. Need not be a multiple of the batch.
        dim: D.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__(size, (dim,))
        self.items.copy_(nnf.normalize(torch.randn(size, dim), dim=1))


@torch.no_grad()
def momentum_update(key: nn.Module, query: nn.Module, momentum: float) -> None:
    """θ_k ← m θ_k + (1 − m) θ_q, in place, over parameters only (MoCo, equation 2).

    The key encoder's buffers (batch norm's running statistics) come from its own forward passes.
    """
    torch._foreach_lerp_(list(key.parameters()), list(query.parameters()), 1 - momentum)


def momentum_at(momentum: float, progress: float, schedule: str) -> float:
    """m after a share ``progress`` in [0, 1] of the training steps.

    ``constant`` (MoCo), or ``cosine``: from ``momentum`` to 1 along half a cosine (BYOL, Grill et al. 2020).
    """
    if schedule == "constant":
        return momentum
    return 1 - (1 - momentum) * (1 + math.cos(math.pi * progress)) / 2


def begin_keys(x: Tensor, shuffle: bool) -> Callable[[Callable[[Tensor], Tensor]], Tensor]:
    """Keys of the global batch, in its order: row ``rank · B + i`` belongs to this worker's clip i.

    With ``shuffle``, the batch-norm statistics that a query and its key have seen do not give the pair away (MoCo,
    section 3.3). With several workers each encodes a random part of the global batch; the clips travel while the caller
    goes on, with its queries. On a single worker, where MoCo refuses to run, the permuted batch is encoded in two
    halves: a key's statistics are those of a random half of the batch, the query's those of the whole.

    Args:
        x: (B, …) this worker's part; the same B on every worker.
        shuffle: whether to permute.

    Returns:
        What encodes the keys, to be called once: it takes the encoder, (B, …) to keys (B, D), batch norm in its present
        mode, and returns keys (N, D) without gradient, the same on every worker.
    """
    if not shuffle:
        return torch.no_grad()(lambda encode: gather(encode(x)))
    order = torch.randperm(world_size() * len(x), device=x.device)
    parts = _halves(x, order) if world_size() == 1 else _begin_exchange(x, order)

    @torch.no_grad()
    def keys(encode: Callable[[Tensor], Tensor]) -> Tensor:
        return gather(torch.cat([encode(part) for part in parts()]))[order.argsort()]

    return keys


def _halves(x: Tensor, order: Tensor) -> Callable[[], Sequence[Tensor]]:
    return lambda: x[order].chunk(2)


def _begin_exchange(x: Tensor, order: Tensor) -> Callable[[], Sequence[Tensor]]:
    """The function that it returns waits for this worker's part of the permuted global batch."""
    agreed = dist.broadcast(order, src=0, async_op=True)  # each worker has its own random state
    everyone = begin_gather(x)

    def end() -> Sequence[Tensor]:
        agreed.wait()
        return [everyone()[order.chunk(world_size())[rank()]]]

    return end
