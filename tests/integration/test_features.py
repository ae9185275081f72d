"""Features through Ray Data: built, built again, read into shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import soundfile
import torch

from asd_ray.config import FeatureConfig
from asd_ray.datasets import audio, layouts
from asd_ray.errors import AsdRayError
from asd_ray.features.build import build
from asd_ray.features.log_mel import LogMel
from asd_ray.features.read import materialise, take
from asd_ray.features.store import collect, shard_paths

pytestmark = pytest.mark.ray

FEATURES = FeatureConfig(seconds=0.5, n_mels=16)


@pytest.fixture(scope="module")
def connected(cluster: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(address=cluster, namespace="test", log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 150), ("test", 7)):
        for number in range(count):
            path = tmp_path / "data" / "fan" / split / f"normal_id_00_{number:08d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * rng.standard_normal(8000), 16000)
    return tmp_path / "data"


@pytest.mark.usefixtures("connected")
def test_build_read_and_build_again(root: Path, tmp_path: Path) -> None:
    clips, store = layouts.scan(root, "dcase2020"), tmp_path / "store"
    seen: list[tuple[int, int]] = []
    manifest = build(clips, root, store, FEATURES, progress=lambda done, total: seen.append((done, total)))
    assert manifest.counts == {"train": 150, "test": 7}
    assert seen[0] == (0, 157)
    assert seen[-1] == (157, 157)

    whole = collect([pq.read_table(path) for path in shard_paths(store, manifest, "train")], manifest.shape)
    waveform = audio.read(root / whole.clips[5].path, 16000, 0.5)
    expected = LogMel(FEATURES)(torch.from_numpy(waveform)[None])[0]
    np.testing.assert_allclose(whole.log_mel[5], expected, rtol=1e-3)
    assert manifest.mean == pytest.approx(whole.log_mel.astype(float).mean(), abs=1e-6)

    for workers in (1, 2, 3):
        shards = [take(shard, manifest.shape) for shard in materialise(store, manifest, "train", workers)]
        assert [clip.path for shard in shards for clip in shard.clips] == [clip.path for clip in whole.clips]
        np.testing.assert_array_equal(np.concatenate([shard.log_mel for shard in shards]), whole.log_mel)
        assert max(len(shard.clips) for shard in shards) - min(len(shard.clips) for shard in shards) <= 1

    times = {path: path.stat().st_mtime_ns for path in store.glob("*.parquet")}
    assert build(clips, root, store, FEATURES) == manifest
    assert {path: path.stat().st_mtime_ns for path in store.glob("*.parquet")} == times

    soundfile.write(root / clips[3].path, np.zeros(9000), 16000)  # one clip changes: one shard is made again
    changed = build(layouts.scan(root, "dcase2020"), root, store, FEATURES)
    kept = {path for path in times if path.exists()}
    assert len(kept) == len(times) - 1
    assert changed.hash != manifest.hash
    assert len(list(store.glob("*.parquet"))) == len(times)

    with pytest.raises(AsdRayError, match="n_mels is 16 there and 32 here"):
        build(clips, root, store, FeatureConfig(seconds=0.5, n_mels=32))


@pytest.mark.usefixtures("connected")
def test_a_clip_that_breaks_while_decoding_is_named_or_left_out(root: Path, tmp_path: Path) -> None:
    clips = layouts.scan(root, "dcase2020")
    bad = next(clip for clip in clips if clip.split == "train")
    (root / bad.path).write_bytes(b"RIFF")
    with pytest.raises(AsdRayError, match=bad.path):
        build(clips, root, tmp_path / "store", FEATURES)
    manifest = build(clips, root, tmp_path / "store", FEATURES, skip_bad=True)
    assert manifest.skipped == [bad.path]
    assert manifest.counts == {"train": 149, "test": 7}
