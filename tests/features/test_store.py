from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asd_ray.config import FeatureConfig
from asd_ray.data.clips import Clip
from asd_ray.errors import AsdRayError
from asd_ray.features import store
from asd_ray.features.store import COLUMNS, DamagedShard, Manifest, Shard

SETTINGS = store.settings_of(FeatureConfig(n_mels=8, seconds=0.08), channel=0)
EMPTY = Manifest(SETTINGS, {}, {}, 0.0, 1.0, {}, [])
STEM = "train-00000-0123456789abcdef"


def some_clips(count: int) -> list[Clip]:
    return [
        Clip(f"fan/train/normal_id_00_{number:08d}.wav", "fan", "00", "train", "normal", sample_rate=16000, frames=5)
        for number in range(count)
    ]


def written(folder: Path, count: int = 5) -> tuple[Shard, list[Clip], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clips = some_clips(count)
    log_mel = rng.standard_normal((count, *EMPTY.shape)).astype(np.float16)
    waveform = rng.integers(-32768, 32767, (count, *EMPTY.column("waveform")[1]), dtype=np.int16)
    levels = np.arange(count, dtype=np.float32)
    files = {
        "log_mel": store.write_shard(
            folder, f"log_mel-{STEM}", clips, {"log_mel": log_mel, "level_db": levels}, {"clips": count}
        ),
        "waveform": store.write_shard(folder, f"waveform-{STEM}", clips, {"waveform": waveform}, {"clips": count}),
    }
    return Shard(count, files), clips, log_mel, waveform


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    shard, clips, log_mel, waveform = written(tmp_path)
    table = store.read_joined(tmp_path, shard, ("log_mel", "waveform"), ("level_db",))
    read = store.collect([table.slice(0, 2), table.slice(2, 3)], EMPTY.shape)
    assert read.clips == clips
    np.testing.assert_array_equal(read.log_mel, log_mel)
    np.testing.assert_array_equal(read.level_db, np.arange(5))
    np.testing.assert_array_equal(store.joined(store.views(table, "waveform", *EMPTY.column("waveform"))), waveform)
    manifest = replace(EMPTY, shards={"train": [shard]})
    [again] = store.read_tables(tmp_path, manifest, "train")
    np.testing.assert_array_equal(again.log_mel, log_mel)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(shard.files.values())
    metadata = pq.ParquetFile(tmp_path / shard.files["log_mel"]).metadata.row_group(0)
    for number in range(metadata.num_columns):
        assert metadata.column(number).compression == "UNCOMPRESSED"
        assert not metadata.column(number).has_dictionary_page


def test_views_copy_nothing(tmp_path: Path) -> None:
    table = store.read_shard(tmp_path, written(tmp_path)[0].files["log_mel"])
    [view] = store.views(table.slice(2, 2), "log_mel", COLUMNS["log_mel"], EMPTY.shape)
    row = EMPTY.bytes_per_clip(["log_mel"])
    assert view.ctypes.data == table["log_mel"].chunk(0).buffers()[1].address + 2 * row
    assert view.shape == (2, *EMPTY.shape)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_found(tmp_path: Path, data: st.DataObject) -> None:
    name = written(tmp_path)[0].files["log_mel"]
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert store.shard_summary(tmp_path, name) is None
    with pytest.raises(DamagedShard, match=f"{name}: this shard is damaged"):
        store.read_shard(tmp_path, name)


def test_a_truncated_or_missing_shard_counts_as_none(tmp_path: Path) -> None:
    name = written(tmp_path)[0].files["log_mel"]
    assert store.shard_summary(tmp_path, name) == {"clips": 5}
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-20])
    assert store.shard_summary(tmp_path, name) is None
    (tmp_path / name).unlink()
    assert store.shard_summary(tmp_path, name) is None
    with pytest.raises(DamagedShard, match="is missing"):
        store.read_shard(tmp_path, name)


def test_files_of_a_shard_with_different_clips_are_refused(tmp_path: Path) -> None:
    shard = written(tmp_path)[0]
    other = store.write_shard(
        tmp_path, "waveform-x", some_clips(4), {"waveform": np.zeros((4, *EMPTY.column("waveform")[1]), np.int16)}, {}
    )
    shard = Shard(5, {**shard.files, "waveform": other.replace("waveform-x", f"waveform-{STEM}")})
    (tmp_path / other).rename(tmp_path / shard.files["waveform"])
    with pytest.raises(AsdRayError, match="do not hold the same clips"):
        store.read_joined(tmp_path, shard, ("log_mel", "waveform"))


def test_a_shard_without_clips_can_be_written(tmp_path: Path) -> None:
    columns = {"log_mel": np.empty((0, 4, 3), np.float16), "level_db": np.empty(0, np.float32)}
    name = store.write_shard(tmp_path, f"log_mel-{STEM}", [], columns, {"clips": 0})
    assert store.collect([store.read_shard(tmp_path, name)], (4, 3)).log_mel.shape == (0, 4, 3)


def test_a_manifest_is_read_back_and_written_only_when_it_changes(tmp_path: Path) -> None:
    shard = Shard(3, {"log_mel": "a.parquet", "waveform": "b.parquet"})
    manifest = Manifest(
        SETTINGS, {"train": [shard]}, {"train": 3}, -7.5, 2.25, {"fan": {"train": 3, "mean": 1.5}}, ["x"]
    )
    store.write_manifest(tmp_path, manifest)
    assert store.read_manifest(tmp_path) == manifest
    time = (tmp_path / "manifest.json").stat().st_mtime_ns
    store.write_manifest(tmp_path, manifest)
    assert (tmp_path / "manifest.json").stat().st_mtime_ns == time
    store.write_manifest(tmp_path, replace(manifest, mean=0.0))
    assert store.read_manifest(tmp_path) != manifest


def test_the_hash_follows_settings_and_log_mel_and_not_further_columns() -> None:
    def manifest(settings: dict = SETTINGS, log_mel: str = "a", **others: str) -> Manifest:
        return Manifest(settings, {"train": [Shard(3, {"log_mel": log_mel, **others})]}, {}, 0.0, 1.0, {}, [])

    assert manifest().hash == manifest(waveform="b").hash
    assert len({manifest().hash, manifest(log_mel="b").hash, manifest({**SETTINGS, "n_mels": 9}).hash}) == 3
    assert manifest().settings_hash != manifest({**SETTINGS, "n_mels": 9}).settings_hash


def test_a_clip_takes_its_bytes() -> None:
    manifest = Manifest(store.settings_of(FeatureConfig(), 0), {}, {}, 0.0, 1.0, {}, [])
    assert manifest.bytes_per_clip(("log_mel",)) == 128 * 313 * 2
    assert manifest.bytes_per_clip(("log_mel", "waveform")) == 128 * 313 * 2 + 160000 * 2


@pytest.mark.parametrize("key", sorted(SETTINGS))
def test_a_store_with_other_settings_says_which(tmp_path: Path, key: str) -> None:
    there = replace(EMPTY, settings={**SETTINGS, key: "other"})
    with pytest.raises(AsdRayError, match=f"{key} is other there and"):
        store.require_settings(there, SETTINGS, tmp_path)
    store.require_settings(there, there.settings, tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}'])
def test_a_file_that_is_no_manifest_says_so(tmp_path: Path, content: str) -> None:
    assert store.read_manifest(tmp_path) is None
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(AsdRayError, match=r"manifest\.json"):
        store.read_manifest(tmp_path)
