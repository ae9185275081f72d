from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from asd_ray.clips import Clip
from asd_ray.config import FeatureConfig
from asd_ray.errors import AsdRayError
from asd_ray.features import store
from asd_ray.features.build import make_manifest, shard_statistics

SETTINGS = store.settings_of(FeatureConfig(), channel=0)


def make_clips(root: Path, count: int, split: str = "train") -> list[Clip]:
    clips = [
        Clip(f"fan/{split}/normal_id_00_{number:08d}.wav", "fan", "00", split, "normal")  # type: ignore[arg-type]
        for number in range(count)
    ]
    for clip in clips:
        (root / clip.path).parent.mkdir(parents=True, exist_ok=True)
        (root / clip.path).write_bytes(b"x")
        os.utime(root / clip.path, (1, 1))
    return clips


def test_every_clip_is_in_exactly_one_shard(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, 300) + make_clips(tmp_path, 10, "test")
    plans = store.plan_shards(clips, tmp_path, SETTINGS)
    for split, count in (("train", 300), ("test", 10)):
        paths = [clip.path for plan in plans[split] for clip in plan.clips]
        assert len(paths) == len(set(paths)) == count
    assert len(plans["train"]) == 4


def test_a_shard_name_changes_with_its_clips_and_settings_and_with_nothing_else(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, 300)

    def names(clips: list[Clip], settings: dict = SETTINGS) -> list[str]:
        return [plan.name for plan in store.plan_shards(clips, tmp_path, settings)["train"]]

    before = names(clips)
    assert names(list(reversed(clips))) == before
    assert not set(names(clips, {**SETTINGS, "n_mels": 64})) & set(before)
    (tmp_path / clips[0].path).write_bytes(b"longer")
    assert len(set(names(clips)) - set(before)) == 1
    (tmp_path / clips[1].path).unlink()
    with pytest.raises(AsdRayError, match=clips[1].path):
        names(clips)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    clips = [replace(clip, sample_rate=16000, frames=5) for clip in make_clips(tmp_path, 5)]
    values = np.random.default_rng(0).standard_normal((5, 4, 3)).astype(np.float16)
    levels = np.arange(5, dtype=np.float32)
    path = tmp_path / "store" / "train-00000-x.parquet"
    store.write_shard(path, clips, values, levels, {"clips": 5})
    assert store.shard_summary(path) == {"clips": 5}
    table = pq.read_table(path)
    read = store.collect([table.slice(0, 2), table.slice(2, 3)], (4, 3))
    assert read.clips == clips
    np.testing.assert_array_equal(read.log_mel, values)
    np.testing.assert_array_equal(read.level_db, levels)
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "UNCOMPRESSED"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_damaged_shard_counts_as_missing(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-x.parquet"
    assert store.shard_summary(path) is None
    store.write_shard(path, [], np.empty((0, 4, 3)), np.empty(0), {"clips": 0})
    assert store.shard_summary(path) == {"clips": 0}
    path.write_bytes(path.read_bytes()[:-20])
    assert store.shard_summary(path) is None


def test_the_manifest_joins_means_and_deviations_exactly(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, 300)
    rng = np.random.default_rng(0)
    plans = store.plan_shards(clips, tmp_path, SETTINGS)
    everything = []
    for plan in plans["train"]:
        values = rng.normal(3, 2, (len(plan.clips), 4, 3)).astype(np.float16)
        summary = {"clips": len(values), "bad": [], "statistics": shard_statistics(plan.clips, values)}
        store.write_shard(tmp_path / plan.name, plan.clips, values, np.zeros(len(values)), summary)
        everything.append(values)
    manifest = make_manifest(plans, tmp_path, SETTINGS)
    joined = np.concatenate(everything).astype(np.float64)
    assert manifest.mean == pytest.approx(joined.mean(), abs=1e-12)
    assert manifest.std == pytest.approx(joined.std(), abs=1e-9)
    assert manifest.machines["fan"]["train"] == manifest.counts["train"] == 300
    store.write_manifest(tmp_path, manifest)
    assert store.read_manifest(tmp_path) == manifest


def test_a_store_with_other_settings_says_which(tmp_path: Path) -> None:
    manifest = store.Manifest({**SETTINGS, "n_fft": 2048}, {}, {}, 0.0, 1.0, {}, [])
    with pytest.raises(AsdRayError, match="n_fft is 2048 there and 1024 here"):
        store.require_settings(manifest, SETTINGS, tmp_path)
    store.require_settings(manifest, manifest.settings, tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 0}'])
def test_a_file_that_is_no_manifest_says_so(tmp_path: Path, content: str) -> None:
    assert store.read_manifest(tmp_path) is None
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(AsdRayError, match=r"manifest\.json"):
        store.read_manifest(tmp_path)
