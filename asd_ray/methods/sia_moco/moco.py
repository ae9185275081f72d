"""Parts of momentum contrast: key queue, momentum update, shuffled batch norm.

Legend: B batch of one worker, R workers, N = R·B the global batch, D embedding, K queue.

After He et al., "Momentum contrast for unsupervised visual representation learning", CVPR 2020. Everything works
with several workers and with one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from asd_ray.methods.blocks.fifo import Fifo
from asd_ray.methods.workers import begin_gather, gather, rank, world_size


class KeyQueue(Fifo):
    """The last K keys, the negatives. At first they are random unit vectors, as in MoCo.

    Args:
        size: K, which need not be a multiple of the batch.
        dim: D.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__(size, (dim,))
        self.items.copy_(nnf.normalize(torch.randn(size, dim), dim=1))


@torch.no_grad()
def momentum_update(key: nn.Module, query: nn.Module, momentum: float) -> None:
    """θ_k ← m θ_k + (1 − m) θ_q, in place (equation 2 of MoCo and of method A).

    Only for parameters. The key encoder's buffers (running statistics of batch norm) come from its own passes.
    """
    get_ema_multi_avg_fn(momentum)(list(key.parameters()), list(query.parameters()), None)


def momentum_at(momentum: float, progress: float, schedule: str) -> float:
    """m after a share ``progress`` in [0, 1] of the training steps.

    ``constant`` (MoCo), or ``cosine``: from ``momentum`` to 1 along half a cosine (BYOL, Grill et al. 2020).
    """
    if schedule == "constant":
        return momentum
    return 1 - (1 - momentum) * (1 + math.cos(math.pi * progress)) / 2


def begin_keys(x: Tensor, shuffle: bool) -> Callable[[Callable[[Tensor], Tensor]], Tensor]:
    """Start to compute the keys of the global batch, in its order: row ``rank · B + i`` is of this worker's clip i.

    ``shuffle`` hides from batch norm which query and key belong together (MoCo, section 3.3). With several workers,
    each encodes a random part of the global batch; the clips travel while the caller computes its queries. A single
    worker, on which MoCo refuses to run, encodes the permuted batch in two halves: a key has the batch-norm statistics
    of a random half of the batch, its query those of the whole.

    Args:
        x: (B, …), this worker's part; the same B on every worker.
        shuffle: whether to permute.

    Returns:
        A function that must be called once. It takes the encoder of keys, (B, …) to (B, D), in its present mode, and
        returns the keys (N, D) without gradient, the same on every worker.
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
    """Start to exchange clips. The returned function waits for this worker's part of the permuted global batch."""
    agreed = dist.broadcast(order, src=0, async_op=True)  # each worker has its own random state
    everyone = begin_gather(x)

    def end() -> Sequence[Tensor]:
        agreed.wait()
        return [everyone()[order.chunk(world_size())[rank()]]]

    return end
