"""A first-in-first-out buffer on the training device.

Legend: n capacity, B batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Fifo(nn.Module):
    """Keep the last n items in buffers: they are in ``state_dict``, move with the module, and are never trained.

    The buffer is a ring, and ``pointer`` is the slot of the next item. Every step stays on the device, without
    synchronisation. Any number of items may be pushed at once, even more than n.

    Args:
        size: capacity n.
        item_shape: shape of one item.
        dtype: data type of the stored items.
    """

    items: Tensor
    pointer: Tensor
    count: Tensor

    def __init__(self, size: int, item_shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("items", torch.zeros(size, *item_shape, dtype=dtype))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def __len__(self) -> int:
        """Capacity n. ``count`` is the number of items pushed so far, at most n."""
        return len(self.items)

    @torch.no_grad()
    def push(self, new: Tensor) -> None:
        """Store (B, *item_shape), oldest first; of more than n items, store the last n."""
        kept = new.detach()[-len(self) :]
        skipped = len(new) - len(kept)
        slots = (self.pointer + skipped + torch.arange(len(kept), device=new.device)) % len(self)
        self.items.index_copy_(0, slots, kept.to(self.items.dtype))
        self.pointer.add_(len(new)).remainder_(len(self))
        self.count.add_(len(new)).clamp_(max=len(self))

    def extra_repr(self) -> str:
        return f"size={len(self)}, item_shape={tuple(self.items.shape[1:])}, dtype={self.items.dtype}"
