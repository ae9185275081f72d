from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.data.clips import Clip
from asd_ray.features.batches import Batches
from asd_ray.features.stream import Part, StreamedBatches, window_order

LENGTHS = [5, 1, 7, 4, 6, 3, 8]
COUNT = sum(LENGTHS)


class Disk:
    """Shards that notice who holds them: how many are in memory, and from which threads they were read."""

    def __init__(self, lengths: list[int]) -> None:
        starts = np.cumsum([0, *lengths])
        self.shards = [
            np.arange(start, start + n, dtype=np.float32)[:, None] for start, n in zip(starts, lengths, strict=False)
        ]
        self.alive: weakref.WeakSet[Array] = weakref.WeakSet()
        self.most = self.reads = 0
        self.threads: set[int] = set()

    def loader(self, number: int) -> Callable[[], Mapping[str, np.ndarray]]:
        def load() -> Mapping[str, np.ndarray]:
            values = self.shards[number].view(Array)
            self.alive.add(values)
            self.reads += 1
            self.most = max(self.most, len(self.alive))
            self.threads.add(threading.get_ident())
            return {"log_mel": values, "waveform": self.shards[number].astype(np.int16)}

        return load

    def batches(self, window: int = 3) -> StreamedBatches:
        parts = [Part(self.loader(number), np.arange(len(shard))) for number, shard in enumerate(self.shards)]
        clips = [Clip(f"{n}.wav", "fan", f"{n % 2:02d}", "train", "normal") for n in range(sum(map(len, self.shards)))]
        return StreamedBatches(parts, clips, ["fan/00", "fan/01"], window)


class Array(np.ndarray):
    """An array that can be watched, and hashed by what it is."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:  # type: ignore[override]
        return self is other


def numbers(batches: Batches, batch_size: int, *order: object) -> list[int]:
    walk = batches.shuffled(batch_size, *order) if order else batches.in_order(batch_size)
    return [int(row) for batch in walk for row in batch.inputs["log_mel"][:, 0]]


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 12), max_size=12), window=st.integers(1, 6), seed=st.integers(0, 3))
def test_a_walk_has_every_row_once_and_never_needs_more_than_the_window(
    lengths: list[int], window: int, seed: int
) -> None:
    walk = [tuple(step) for step in window_order(lengths, window, seed).tolist()]
    assert sorted(walk) == [(part, row) for part, length in enumerate(lengths) for row in range(length)]
    assert walk == [tuple(step) for step in window_order(lengths, window, seed).tolist()]
    first, last = {}, {}
    for position, (part, _) in enumerate(walk):
        first.setdefault(part, position)
        last[part] = position
    for position in range(len(walk)):
        assert sum(first[part] <= position <= last[part] for part in first) <= window


def test_a_walk_mixes_shards_and_differs_between_epochs() -> None:
    lengths = [100] * 20
    walk = window_order(lengths, 8, 0, 1)
    assert not np.array_equal(walk, window_order(lengths, 8, 0, 2))
    for start in range(800, 1200, 64):
        assert len(set(walk[start : start + 64, 0].tolist())) >= 8


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_an_epoch_has_each_clip_once_with_its_label_and_all_its_columns(batch_size: int) -> None:
    batches = Disk(LENGTHS).batches()
    epoch = numbers(batches, batch_size, 0, "epoch", 1)
    assert len(epoch) == len(set(epoch)) == COUNT // batch_size * batch_size
    assert numbers(Disk(LENGTHS).batches(), batch_size, 0, "epoch", 1) == epoch
    assert numbers(batches, batch_size, 0, "epoch", 2) != epoch
    assert numbers(batches, batch_size) == list(range(COUNT))
    for batch in batches.shuffled(batch_size, 5):
        assert batch.inputs["log_mel"].dtype == torch.float32
        assert batch.inputs["waveform"].tolist() == batch.inputs["log_mel"].int().tolist()
        assert batch.labels.tolist() == (batch.inputs["log_mel"][:, 0].int() % 2).tolist()


@pytest.mark.parametrize("window", [1, 3, 20])
def test_memory_holds_the_window_and_one_more_read_in_another_thread(window: int) -> None:
    disk = Disk(LENGTHS * 3)
    epoch = numbers(disk.batches(window), 3, 0)
    assert len(epoch) == 3 * COUNT
    assert disk.most <= window + 1
    assert disk.reads == len(LENGTHS) * 3
    assert threading.get_ident() not in disk.threads
    del epoch
    assert len(disk.alive) == 0


def test_an_epoch_that_is_left_early_leaves_no_thread() -> None:
    before = threading.active_count()
    walk = Disk(LENGTHS).batches().shuffled(2, 0)
    next(walk)
    assert threading.active_count() == before + 1
    walk.close()
    assert threading.active_count() == before


def test_what_breaks_while_reading_ahead_reaches_the_caller() -> None:
    def broken() -> Mapping[str, np.ndarray]:
        raise OSError("gone")

    disk = Disk([2, 2])
    parts = [Part(disk.loader(0), np.arange(2)), Part(broken, np.arange(2))]
    batches = StreamedBatches(parts, disk.batches().clips, [])
    with pytest.raises(OSError, match="gone"):
        numbers(batches, 2)


def test_a_mask_keeps_what_it_says_and_reads_only_the_shards_of_it() -> None:
    disk = Disk(LENGTHS)
    keep = np.zeros(COUNT, dtype=bool)
    keep[[0, 3, 6, 7, COUNT - 1]] = True
    kept = disk.batches().where(keep).where(np.array([True, True, False, True, True]))
    assert numbers(kept, 2) == [0, 3, 7, COUNT - 1]
    assert [clip.path for clip in kept.clips] == ["0.wav", "3.wav", "7.wav", f"{COUNT - 1}.wav"]
    assert disk.reads == 3
    assert sorted(numbers(kept, 2, 1)) == [0, 3, 7, COUNT - 1]
    nothing = disk.batches().where(np.zeros(COUNT, dtype=bool))
    assert numbers(nothing.where(np.zeros(0, dtype=bool)), 2) == numbers(nothing, 2, 1) == []
