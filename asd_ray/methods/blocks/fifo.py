"""First-in-first-out buffers on the training device.

Legend: n capacity, B batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Fifo(nn.Module):
    """The last n items that were pushed, as buffers: in ``state_dict``, moved with the module, never trained.

    A ring: ``pointer`` is the slot that the next item takes. Every step stays on the device (no synchronisation), and
    any number of items may be pushed at once, more than n included.

    Args:
        size: capacity n.
        item_shape: shape of one item.
        dtype: that items are stored in.
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
        """Capacity n; ``count`` says how many items have been pushed so far, n at most."""
        return len(self.items)

    @torch.no_grad()
    def push(self, new: Tensor) -> None:
        """Stores (B, *item_shape), oldest first; of more than n items only the last n are kept."""
        kept = new.detach()[-len(self) :]
        skipped = len(new) - len(kept)
        slots = (self.pointer + skipped + torch.arange(len(kept), device=new.device)) % len(self)
        self.items.index_copy_(0, slots, kept.to(self.items.dtype))
        self.pointer.add_(len(new)).remainder_(len(self))
        self.count.add_(len(new)).clamp_(max=len(self))

    def extra_repr(self) -> str:
        return f"size={len(self)}, item_shape={tuple(self.items.shape[1:])}, dtype={self.items.dtype}"
