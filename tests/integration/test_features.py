"""Features through Ray: built, built again, killed while building, on S3, read by workers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import soundfile
import torch

from asd_ray.config import FeatureConfig
from asd_ray.data import audio, layouts
from asd_ray.data.clips import Clip
from asd_ray.errors import AsdRayError
from asd_ray.features import plan
from asd_ray.features.build import build
from asd_ray.features.extract import serial
from asd_ray.features.log_mel import LogMel
from asd_ray.features.read import Features, open_features
from asd_ray.features.storage import Storage
from asd_ray.features.store import collect, read_manifest
from tests.integration.buckets import Bucket

pytestmark = pytest.mark.integration

FEATURES = FeatureConfig(seconds=0.5, n_mels=16)
BOTH = ("log_mel", "waveform")
BUILDER = """
import sys
from pathlib import Path
import ray
from asd_ray.config import FeatureConfig
from asd_ray.data import layouts
from asd_ray.features import plan
from asd_ray.features.build import build
plan.SHARD_CLIPS = 2
ray.init(address=sys.argv[1], namespace="test", log_to_driver=False)
clips = layouts.scan(sys.argv[2], "dcase2020")
build(clips, Path(sys.argv[2]), sys.argv[3], FeatureConfig(seconds=0.5, n_mels=16), columns=("log_mel", "waveform"))
"""


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, str]]:
    """The environment in which a bucket is found."""
    found = Bucket()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in found.variables.items():
            patch.setenv(name, value)
        yield found.variables
    found.stop()


@pytest.fixture(scope="module", autouse=True)
def connected(cluster: str, bucket: dict[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(address=cluster, namespace="test", log_to_driver=False, runtime_env={"env_vars": bucket})
        yield
        ray.shutdown()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for machine, split, count in (("fan", "train", 140), ("pump", "train", 10), ("fan", "test", 7)):
        for number in range(count):
            path = tmp_path / "data" / machine / split / f"normal_id_00_{number:08d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * rng.standard_normal(8000), 16000)
    return tmp_path / "data"


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir() if not path.name.startswith(".")}


def values(features: Features, splits: tuple[str, ...] = ("train",), workers: int = 1) -> dict[str, torch.Tensor]:
    """All workers' columns in order, joined."""
    batches = [features.batches(splits, [], rank, workers) for rank in range(workers)]
    inputs = [batch.inputs for part in batches for batch in part.in_order(32)]
    return {name: torch.cat([batch[name] for batch in inputs]) for name in features.columns}


def test_build_and_build_again(root: Path, tmp_path: Path) -> None:
    clips, store = layouts.scan(root, "dcase2020"), tmp_path / "store"
    seen: list[tuple[int, int]] = []
    built = build(clips, root, store, FEATURES, progress=lambda done, total: seen.append((done, total)))
    manifest = built.manifest
    assert manifest.counts == {"train": 150, "test": 7, "extra": 0}
    assert (built.decoded, built.reused, built.written, built.kept) == (157, 0, 3, 0)
    assert (seen[0], seen[-1]) == ((0, 157), (157, 157))
    assert read_manifest(store) == manifest
    assert build(clips, root, tmp_path / "serial", FEATURES, tasks=serial) == built
    assert contents(tmp_path / "serial") == contents(store)

    tables = [pq.read_table(store / shard.files["log_mel"]) for shard in manifest.shards["train"]]
    whole = collect(tables, manifest.shape)
    waveform = audio.read(root / whole.clips[5].path, 16000, 0.5)
    expected = LogMel(FEATURES)(torch.from_numpy(waveform)[None])[0].half().numpy()
    np.testing.assert_array_equal(whole.log_mel[5], expected)
    assert manifest.mean == pytest.approx(whole.log_mel.astype(float).mean(), abs=1e-6)

    before = contents(store)
    times = {path: path.stat().st_mtime_ns for path in store.iterdir()}
    again = build(clips, root, store, FEATURES, prune=True)
    assert again.manifest == manifest
    assert (again.decoded, again.reused, again.written, again.kept, again.deleted) == (0, 0, 0, 3, 0)
    assert {path: path.stat().st_mtime_ns for path in store.iterdir()} == times

    # one clip changes: it alone is decoded; and its shard's old file is gone after a build that prunes
    one = next(clip for clip in clips if clip.split == "train")
    soundfile.write(root / one.path, np.zeros(9000), 16000)
    changed = build(layouts.scan(root, "dcase2020"), root, store, FEATURES, prune=True)
    assert (changed.decoded, changed.written, changed.kept, changed.deleted) == (1, 1, 2, 1)
    assert changed.reused in {shard.clips - 1 for shard in manifest.shards["train"]}
    assert changed.manifest.hash != manifest.hash
    assert len(set(contents(store)) & set(before)) == 2 + 2  # shards, manifests
    fresh = build(layouts.scan(root, "dcase2020"), root, tmp_path / "fresh", FEATURES)
    assert fresh.decoded == 157
    assert contents(tmp_path / "fresh") == contents(store)

    # waveforms are added, and nothing that is there is made again; a study that does not need them is served
    added = build(layouts.scan(root, "dcase2020"), root, store, FEATURES, columns=BOTH)
    assert (added.written, added.kept) == (3, 3)
    served = build(layouts.scan(root, "dcase2020"), root, store, FEATURES, prune=True)
    assert (served.decoded, served.written, served.deleted) == (0, 0, 0)
    assert build(layouts.scan(root, "dcase2020"), root, store, FEATURES, columns=BOTH).decoded == 0

    # bit rot
    [name, *_] = (shard.files["log_mel"] for shard in added.manifest.shards["test"])
    damaged = bytearray((store / name).read_bytes())
    damaged[len(damaged) // 2] ^= 4
    (store / name).write_bytes(damaged)
    repaired = build(layouts.scan(root, "dcase2020"), root, store, FEATURES, columns=BOTH)
    assert (repaired.damaged, repaired.written, repaired.decoded) == ((name,), 1, 7)
    assert repaired.manifest == added.manifest
    assert build(layouts.scan(root, "dcase2020"), root, store, FEATURES, columns=BOTH).damaged == ()

    with pytest.raises(AsdRayError, match="n_mels is 16 there and 32 here"):
        build(clips, root, store, FeatureConfig(seconds=0.5, n_mels=32))


def test_studies_with_other_machines_share_a_store(root: Path, tmp_path: Path) -> None:
    clips, store = layouts.scan(root, "dcase2020"), tmp_path / "store"
    everything = build(clips, root, store, FEATURES)
    fan = build([clip for clip in clips if clip.machine == "fan"], root, store, FEATURES, prune=True)
    assert (fan.decoded, fan.deleted) == (0, 0)
    assert fan.reused == 140 + 7 - fan.kept * 7
    again = build(clips, root, store, FEATURES, prune=True)
    assert (again.decoded, again.written, again.deleted) == (0, 0, 0)
    assert again.manifest == everything.manifest
    fresh = build([clip for clip in clips if clip.machine == "fan"], root, tmp_path / "fresh", FEATURES)
    assert fresh.manifest == fan.manifest


def test_a_clip_that_breaks_while_decoding_is_named_or_left_out(root: Path, tmp_path: Path) -> None:
    clips, store = layouts.scan(root, "dcase2020"), tmp_path / "store"
    bad = next(clip for clip in clips if clip.split == "train")
    whole = (root / bad.path).read_bytes()

    def write(content: bytes) -> None:
        (root / bad.path).write_bytes(content)
        os.utime(root / bad.path, (1, 1))

    write(b"RIFF" + bytes(len(whole) - 4))
    with pytest.raises(AsdRayError, match=bad.path):
        build(clips, root, store, FEATURES)
    manifest = build(clips, root, store, FEATURES, skip_bad=True).manifest
    assert manifest.skipped == [bad.path]
    assert manifest.counts["train"] == 149
    with pytest.raises(AsdRayError, match=bad.path):  # what was left out then is not left out silently now
        build(clips, root, store, FEATURES)
    write(whole)  # as a disk that could not be read for a moment: same size, same time
    repaired = build(clips, root, store, FEATURES)
    assert (repaired.decoded, repaired.written, repaired.manifest.counts["train"]) == (1, 1, 150)
    assert len(list(store.glob("*.parquet"))) == 3


def test_killed_at_any_moment_the_same_command_ends_in_the_same_bytes(
    cluster: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SHARD_CLIPS", 2)
    clips, store = layouts.scan(root, "dcase2020"), tmp_path / "store"
    whole = build(clips, root, tmp_path / "whole", FEATURES, columns=BOTH)
    counts = []
    for shards in (1, 90):
        process = subprocess.Popen([sys.executable, "-c", BUILDER, cluster, str(root), str(store)])
        deadline = time.monotonic() + 100
        while len(list(store.glob("*.parquet"))) < shards:
            assert process.poll() is None, "the build ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
        process.wait()
        counts.append(len(list(store.glob("*.parquet"))))
        assert not (store / "manifest.json").exists()
    resumed = build(clips, root, store, FEATURES, columns=BOTH)
    assert resumed.kept >= counts[-1] > counts[0]
    assert resumed.written + resumed.kept == whole.written
    assert 0 < resumed.decoded < 157
    assert contents(store) == contents(tmp_path / "whole")


def test_a_store_on_s3(root: Path, tmp_path: Path) -> None:
    clips = layouts.scan(root, "dcase2020")
    uri = "s3://features/some/store"
    built = build(clips, root, uri, FEATURES, columns=BOTH, prune=True)
    local = build(clips, root, tmp_path / "store", FEATURES, columns=BOTH)
    assert built.manifest == local.manifest
    assert {name: Storage(uri).read(name).to_pybytes() for name in Storage(uri).names()} == contents(tmp_path / "store")
    changes = boto3.client("s3").list_objects_v2(Bucket="features")["Contents"]
    again = build(clips, root, uri, FEATURES, columns=BOTH, prune=True)
    assert (again.manifest, again.decoded, again.kept) == (built.manifest, 0, 6)
    assert boto3.client("s3").list_objects_v2(Bucket="features")["Contents"] == changes
    os.utime(root / clips[0].path, (1, 1))
    touched = build(clips, root, uri, FEATURES, columns=BOTH, prune=True)
    assert (touched.decoded, touched.written, touched.deleted) == (1, 2, 2)
    assert len(Storage(uri).names()) == 6 + 2
    for reading in ("cached", "streamed"):
        opened = open_features(uri, touched.manifest, BOTH, reading)
        expected = open_features(tmp_path / "store", local.manifest, BOTH, reading)
        for name, column in values(opened).items():
            assert torch.equal(column, values(expected)[name])
    with pytest.raises(AsdRayError, match=r"s3://not-there/x.*: cannot be written"):
        build(clips, root, "s3://not-there/x", FEATURES)


def test_cached_and_streamed_are_equal_in_content_for_any_number_of_workers(root: Path, tmp_path: Path) -> None:
    elsewhere = [tmp_path / "elsewhere" / f"{number}.wav" for number in range(9)]
    elsewhere[0].parent.mkdir()
    for path in elsewhere:
        soundfile.write(path, np.full(8000, 0.5), 16000)
    extra = [Clip(str(path), "extra", "elsewhere", "extra", "unknown") for path in elsewhere]
    clips = layouts.scan(root, "dcase2020")
    manifest = build(clips, root, tmp_path / "alone", FEATURES).manifest
    joined = build(clips + extra, root, tmp_path / "store", FEATURES, columns=BOTH).manifest
    assert joined.counts == {"train": 150, "test": 7, "extra": 9}
    assert (joined.mean, joined.std) == (manifest.mean, manifest.std)

    cached = open_features(tmp_path / "store", joined, BOTH)
    assert cached.tables is not None  # so small a set fits
    streamed = open_features(tmp_path / "store", joined, BOTH, "streamed")
    reference = values(cached, ("train", "extra"))
    assert len(reference["log_mel"]) == 159
    for features in (cached, streamed):
        for workers in (1, 2, 3):
            found = values(features, ("train", "extra"), workers)
            assert all(torch.equal(found[name], reference[name]) for name in BOTH)
        epochs = []
        for rank in range(3):
            batches = features.batches(("train", "extra"), [], rank, 3)
            keep = np.arange(len(batches.clips)) != 4
            half = batches.where(keep)
            assert [clip.path for clip in half.clips] == [c.path for c, k in zip(batches.clips, keep, strict=True) if k]
            epochs += [row for batch in batches.shuffled(1, "epoch") for row in batch.inputs["waveform"]]
        assert sorted(row.sum().item() for row in epochs) == sorted(reference["waveform"].sum(1).tolist())
    test = cached.batches("test", ["fan/00"])
    assert [len(batch.labels) for batch in test.in_order(4)] == [4, 3]


def test_workers_of_a_node_share_one_copy_of_the_features(root: Path, tmp_path: Path) -> None:
    manifest = build(layouts.scan(root, "dcase2020"), root, tmp_path / "store", FEATURES, columns=BOTH).manifest
    features = open_features(tmp_path / "store", manifest, BOTH, "cached")

    @ray.remote(num_cpus=0)
    def where(handle: list[Features]) -> tuple[list[str], float]:
        """Which mappings of its memory a worker's columns lie in, and their sum."""
        batches = handle[0].batches("train", [])
        blocks = batches.columns["waveform"].blocks  # type: ignore[attr-defined]
        maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        spans = [(*(int(end, 16) for end in fields[0].split("-")), "".join(fields[5:])) for fields in maps]
        names = [next(n for low, high, n in spans if low <= block.ctypes.data < high) for block in blocks]
        return names, float(sum(block.sum(dtype=np.float64) for block in blocks))

    reference = ray.put([features])
    answers = ray.get([where.remote(reference) for _ in range(2)])
    assert answers[0] == answers[1]
    assert all(name.startswith("/dev/shm") for name in answers[0][0])
    assert replace(features, tables=None).batches("train", []).clips == features.batches("train", []).clips
