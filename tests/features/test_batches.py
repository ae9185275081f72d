from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.data.clips import Clip
from asd_ray.features.batches import Batches, Blocks, CachedBatches, class_numbers, group_numbers, permutation

CLASSES = ["fan/00", "fan/02"]


def some_clips(count: int) -> list[Clip]:
    return [Clip(f"{number}.wav", "fan", f"{2 * (number % 3):02d}", "train", "normal") for number in range(count)]


def numbers(batches: Batches, batch_size: int, *order: object) -> list[int]:
    """Clip numbers in the order of an epoch, read off a column that holds them."""
    walk = batches.shuffled(batch_size, *order) if order else batches.in_order(batch_size)
    return [int(row) for batch in walk for row in batch.inputs["log_mel"][:, 0]]


def cached(count: int, lengths: list[int] | None = None) -> CachedBatches:
    values = np.arange(count, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    column = torch.from_numpy(values) if lengths is None else Blocks(np.split(values, np.cumsum(lengths)[:-1]))
    return CachedBatches(some_clips(count), {"log_mel": column}, CLASSES)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=8), data=st.data())
def test_blocks_are_one_array_that_was_never_joined(lengths: list[int], data: st.DataObject) -> None:
    whole = np.random.default_rng(0).standard_normal((sum(lengths), 2, 3)).astype(np.float16)
    blocks = Blocks(np.split(whole, np.cumsum(lengths)[:-1]))
    assert len(blocks) == len(whole)
    rows = data.draw(st.lists(st.integers(0, max(len(whole) - 1, 0)), max_size=10 if len(whole) else 0))
    chosen = blocks[torch.tensor(rows, dtype=torch.long)]
    assert chosen.dtype == torch.float16
    np.testing.assert_array_equal(chosen.numpy(), whole[rows])
    np.testing.assert_array_equal(blocks.on(torch.device("cpu")).numpy(), whole)


def test_gathered_rows_are_copies() -> None:
    blocks = Blocks([np.zeros((2, 3), np.float32)])
    blocks[torch.tensor([0, 1])].fill_(7)
    assert not blocks.blocks[0].any()


@pytest.mark.parametrize("lengths", [None, [4, 0, 6, 13]])
def test_an_epoch_has_each_clip_once_and_its_order_depends_on_its_name_alone(lengths: list[int] | None) -> None:
    batches = cached(23, lengths)
    epoch = numbers(batches, 5, 7, "order", 1)
    assert len(epoch) == len(set(epoch)) == 20
    assert numbers(cached(23), 5, 7, "order", 1) == epoch
    assert numbers(batches, 5, 7, "order", 2) != epoch
    assert numbers(batches, 4) == list(range(23))
    assert [len(batch.labels) for batch in batches.in_order(10)] == [10, 10, 3]


def test_labels_are_those_of_the_clips() -> None:
    batches = cached(9, [4, 5])
    for batch in [*batches.shuffled(3, 0), *batches.in_order(4)]:
        clips = [batches.clips[int(number)] for number in batch.inputs["log_mel"][:, 0]]
        expected = [CLASSES.index(clip.group) if clip.group in CLASSES else -1 for clip in clips]
        assert batch.labels.tolist() == expected
    assert -1 in batch.labels.tolist()


def test_attributes_decide_the_class_of_training_clips_alone() -> None:
    classes = ["fan/00", "fan/00/a", "fan/02/a"]
    one = Clip("x.wav", "fan", "00", "train", "normal", attributes="a")
    other, third, foreign = replace(one, attributes="b"), replace(one, id="02"), replace(one, id="04")
    tests = [replace(clip, split="test", label="anomaly") for clip in (one, other, third, foreign)]
    clips = [one, other, third, replace(third, attributes="b"), foreign, *tests]
    assert class_numbers(clips, classes).tolist() == [1, 0, 2, -1, -1, 0, 0, -1, -1]
    assert group_numbers(clips, classes).tolist() == [0, 0, 1, 1, -1, 0, 0, 1, -1]
    assert CachedBatches(clips, {}, classes).labels.tolist() == class_numbers(clips, classes).tolist()


@pytest.mark.parametrize("lengths", [None, [4, 6]])
def test_a_mask_keeps_what_it_says_without_copying(lengths: list[int] | None) -> None:
    batches = cached(10, lengths)
    kept = batches.where(np.arange(10) % 2 == 1).where(np.array([True, False, True, True, True]))
    assert numbers(kept, 3) == [1, 5, 7, 9]
    assert [clip.path for clip in kept.clips] == ["1.wav", "5.wav", "7.wav", "9.wav"]
    assert kept.columns is batches.columns
    assert sorted(numbers(kept, 2, 0)) == [1, 5, 7, 9]
    assert numbers(batches.where(np.zeros(10, dtype=bool)), 3) == []


def test_permutations_differ_by_every_part_of_their_name() -> None:
    names = [(0, "order", "a", 1), (1, "order", "a", 1), (0, "order", "b", 1), (0, "order", "a", 2)]
    assert len({tuple(permutation(50, *name).tolist()) for name in names}) == 4
