from __future__ import annotations

from collections import deque

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.methods.blocks.fifo import Fifo


def oldest_first(fifo: Fifo) -> list[float]:
    count, pointer = int(fifo.count), int(fifo.pointer)
    return fifo.items.roll(-pointer, dims=0)[len(fifo) - count :, 0].tolist()


@settings(deadline=None)
@given(size=st.integers(1, 9), batches=st.lists(st.integers(0, 25), max_size=8))
def test_holds_the_last_n_items_in_order(size: int, batches: list[int]) -> None:
    fifo, reference, pushed = Fifo(size, (1,)), deque(maxlen=size), 0
    for batch in batches:
        new = torch.arange(pushed, pushed + batch, dtype=torch.float32)
        fifo.push(new[:, None])
        reference.extend(new.tolist())
        pushed += batch
        assert oldest_first(fifo) == list(reference)
        assert int(fifo.pointer) == pushed % size


def test_state_goes_with_state_dict_and_is_not_trained() -> None:
    fifo, other = Fifo(4, (2, 3), torch.float16), Fifo(4, (2, 3), torch.float16)
    fifo.push(torch.randn(6, 2, 3, requires_grad=True))
    other.load_state_dict(fifo.state_dict())
    assert torch.equal(other.items, fifo.items)
    assert (int(other.pointer), int(other.count)) == (2, 4)
    assert not list(fifo.parameters())
    assert not fifo.items.requires_grad
    assert "size=4, item_shape=(2, 3)" in repr(fifo)
