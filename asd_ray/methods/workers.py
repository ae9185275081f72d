"""The workers that train together: who they are, and what they add up or gather from each other.

Legend: R workers, B batch of one worker.

Everything works without a process group too: then there is one worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """R: workers of the process group, 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this worker, 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def gather(x: Tensor) -> Tensor:
    """(B, …) of every worker as (R·B, …) in the order of their ranks, the same on all of them. Carries no gradient.

    Every worker must bring the same shape.
    """
    return begin_gather(x)()


def begin_gather(x: Tensor) -> Callable[[], Tensor]:
    """Start :func:`gather` and return at once; the returned function waits for the other workers."""
    x = x.detach().contiguous()
    if world_size() == 1:
        return lambda: x
    gathered = x.new_empty(world_size() * len(x), *x.shape[1:])
    under_way = dist.all_gather_into_tensor(gathered, x, async_op=True)

    def end() -> Tensor:
        under_way.wait()
        return gathered

    return end


@dataclass(frozen=True)
class Workers:
    """This worker's rank among the workers that train together, and their number R."""

    rank: int = 0
    size: int = 1

    def sum(self, value: float) -> float:
        """The sum of all workers' values."""
        return self._reduced(value, dist.ReduceOp.SUM)

    def largest(self, value: float) -> float:
        """The largest of all workers' values."""
        return self._reduced(value, dist.ReduceOp.MAX)

    def _reduced(self, value: float, operation: Any) -> float:
        if self.size == 1:
            return value
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        tensor = torch.tensor(value, dtype=torch.float64, device=device)
        dist.all_reduce(tensor, operation)
        return tensor.item()

    @staticmethod
    def of_process_group() -> Workers:
        """The process group's workers; one worker without a group."""
        return Workers(rank(), world_size())
