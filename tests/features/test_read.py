"""What a worker gets of a store, without Ray: streamed features need none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.config import FeatureConfig
from asd_ray.data.clips import Clip
from asd_ray.errors import AsdRayError, StorageError
from asd_ray.features import read
from asd_ray.features.read import Features, fits, open_features
from asd_ray.features.storage import Storage
from asd_ray.features.store import Manifest, Shard, settings_of, write_shard

SETTINGS = settings_of(FeatureConfig(n_mels=8, seconds=0.064), 0)
LENGTHS = {"train": [5, 3, 8, 4], "test": [6], "extra": [7, 9]}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Features:
    """A store whose values are the clips' own numbers."""
    folder = tmp_path_factory.mktemp("store")
    shards: dict[str, list[Shard]] = {}
    shape = Manifest(SETTINGS, {}, {}, 0, 1, {}, []).shape
    number = 0
    for split, lengths in LENGTHS.items():
        shards[split] = []
        for place, length in enumerate(lengths):
            values = np.arange(number, number + length)
            clips = [Clip(f"{n}.wav", "fan", f"{n % 2:02d}", split, "normal") for n in values]  # type: ignore[arg-type]
            log_mel = np.broadcast_to(values[:, None, None], (length, *shape)).astype(np.float16)
            columns = {"log_mel": log_mel, "level_db": values.astype(np.float32)}
            samples = np.broadcast_to(-values[:, None], (length, 1024)).astype(np.int16)
            stem = f"{split}-{place:05d}-0123456789abcdef"
            files = {
                "log_mel": write_shard(folder, f"log_mel-{stem}", clips, columns, {}),
                "waveform": write_shard(folder, f"waveform-{stem}", clips, {"waveform": samples}, {}),
            }
            shards[split].append(Shard(length, files))
            number += length
    counts = {split: sum(lengths) for split, lengths in LENGTHS.items()}
    manifest = Manifest(SETTINGS, shards, counts, 0.0, 1.0, {}, [])
    return open_features(folder, manifest, ("log_mel", "waveform"), "streamed")


def numbers(features: Features, splits: str | tuple[str, ...], rank: int = 0, workers: int = 1) -> list[int]:
    return [int(clip.path[:-4]) for clip in features.batches(splits, [], rank, workers).clips]


def test_a_worker_gets_clips_values_and_labels(opened: Features) -> None:
    batches = opened.batches("train", ["fan/00"], rank=1, workers=2)
    [batch] = batches.in_order(100)
    assert [int(clip.path[:-4]) for clip in batches.clips] == list(range(10, 20))
    assert torch.equal(batch.inputs["log_mel"][:, 0, 0], torch.arange(10, 20).half())
    assert torch.equal(batch.inputs["waveform"][:, -1], -torch.arange(10, 20).short())
    assert batch.inputs["log_mel"].shape == (10, *opened.manifest.shape)
    assert batch.labels.tolist() == [0, -1] * 5


@settings(deadline=None)
@given(
    splits=st.lists(st.sampled_from(sorted(LENGTHS)), min_size=1, max_size=3, unique=True), workers=st.integers(1, 9)
)
def test_every_clip_is_with_exactly_one_worker(opened: Features, splits: list[str], workers: int) -> None:
    parts = [numbers(opened, tuple(splits), rank, workers) for rank in range(workers)]
    joined = [number for part in parts for number in part]
    assert joined == numbers(opened, tuple(splits))
    assert len(joined) == len(set(joined)) == sum(sum(LENGTHS[split]) for split in splits)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_of_several_splits_every_worker_has_its_part(opened: Features) -> None:
    for rank in range(2):
        clips = opened.batches(("train", "extra"), [], rank, 2).clips
        assert {clip.split for clip in clips} == {"train", "extra"}


def test_a_split_without_clips_has_no_batches(opened: Features) -> None:
    assert list(opened.batches("nothing", []).in_order(2)) == []
    assert list(opened.batches("nothing", []).shuffled(2, 0)) == []


def test_a_shard_that_is_damaged_is_named(opened: Features, tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    name = opened.manifest.shards["test"][0].files["log_mel"]
    with pytest.raises(AsdRayError, match=r"cannot be read .* run the same command again"):
        open_features(storage, opened.manifest, ("log_mel",), "streamed")
    content = bytearray(opened.storage.read(name).to_pybytes())
    content[len(content) // 2] ^= 1
    for shards in opened.manifest.shards.values():
        for shard in shards:
            storage.write(shard.files["log_mel"], opened.storage.read(shard.files["log_mel"]))
    storage.write(name, bytes(content))
    features = open_features(storage, opened.manifest, ("log_mel",), "streamed")
    with pytest.raises(AsdRayError, match=f"{name}: this shard is damaged"):
        list(features.batches("test", []).in_order(4))


class Failing(Storage):
    """Fails as often as it is told."""

    def __init__(self, where: str, failures: int) -> None:
        super().__init__(where)
        self.failures = failures

    def read(self, name: str) -> pa.Buffer:
        if self.failures:
            self.failures -= 1
            raise StorageError(f"{name}: cannot be read (no answer).")
        return super().read(name)


def test_storage_that_fails_for_a_while_is_read_again(
    opened: Features, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(read, "PAUSE_SECONDS", 0)
    features = replace(opened, storage=Failing(opened.storage.where, 2))
    [[batch], [expected]] = [f.batches("test", []).in_order(9) for f in (features, opened)]
    assert torch.equal(batch.inputs["log_mel"], expected.inputs["log_mel"])
    assert [record.getMessage().count("cannot be read (no answer). It is read again") for record in caplog.records] == [
        1,
        1,
    ]
    monkeypatch.setattr(read, "PATIENCE_SECONDS", 0)
    with pytest.raises(StorageError, match=r"cannot be read .no answer.\."):
        list(replace(opened, storage=Failing(opened.storage.where, 2)).batches("test", []).in_order(9))


def test_what_fits_is_a_question_of_columns_and_memory() -> None:
    manifest = Manifest(settings_of(FeatureConfig(), 0), {}, {"train": 20000, "test": 10000}, 0.0, 1.0, {}, [])
    assert fits(manifest, ("log_mel",), 4e9)
    assert not fits(manifest, ("log_mel", "waveform"), 4e9)
    assert fits(manifest, ("log_mel", "waveform"), 16e9)
