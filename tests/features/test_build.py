"""Building without Ray, in one process; with Ray: tests/integration/test_features.py."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import ray
import soundfile
import torch

from asd_ray.config import FeatureConfig
from asd_ray.data import layouts
from asd_ray.errors import AsdRayError
from asd_ray.features import build as build_module
from asd_ray.features import plan
from asd_ray.features.build import build
from asd_ray.features.extract import serial
from asd_ray.features.read import open_features

FEATURES = FeatureConfig(seconds=0.5, n_mels=16)
BOTH = ("log_mel", "waveform")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(plan, "SHARD_CLIPS", 8)
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 5)):
        for number in range(count):
            path = tmp_path / "data" / "fan" / split / f"normal_id_00_{number:08d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * rng.standard_normal(8000), 16000)
    return tmp_path / "data"


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


def test_a_build_in_this_process_needs_no_ray_and_goes_on_where_it_was(root: Path, tmp_path: Path) -> None:
    clips, store = layouts.scan(root, "dcase2020"), tmp_path / "store"
    seen: list[tuple[int, int]] = []
    built = build(clips, root, store, FEATURES, progress=lambda *done: seen.append(done), columns=BOTH, tasks=serial)
    assert not ray.is_initialized()
    assert (built.decoded, built.written, built.manifest.counts["train"]) == (25, 2 * len(seen) - 2, 20)
    assert (seen[0], seen[-1]) == ((0, 25), (25, 25))
    before = contents(store)
    next(store.glob("waveform-*")).unlink()
    assert build(clips, root, store, FEATURES, columns=BOTH, tasks=serial).written == 1
    assert contents(store) == before
    (root / clips[0].path).write_bytes(b"RIFF")
    with pytest.raises(AsdRayError, match=f"{clips[0].path}.*skip_bad"):
        build(clips, root, store, FEATURES, tasks=serial)


def test_few_clips_do_not_wait_for_workers(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = layouts.scan(root, "dcase2020")
    build(clips, root, tmp_path / "few", FEATURES, few=len(clips))  # Ray is not running
    build(clips, root, tmp_path / "serial", FEATURES, tasks=serial)
    assert contents(tmp_path / "few") == contents(tmp_path / "serial")

    def workers(*work: object) -> NoReturn:
        raise RuntimeError("workers")

    monkeypatch.setattr(build_module, "_run", workers)
    for given in (FEATURES.model_copy(update={"gpus_per_task": 1.0}), FEATURES):
        few = len(clips) if given.gpus_per_task else len(clips) - 1
        with pytest.raises(RuntimeError, match="workers"):
            build(clips, root, tmp_path / "many", given, few=few)


def test_the_files_do_not_depend_on_the_number_of_threads_and_it_is_left_as_it_was(root: Path, tmp_path: Path) -> None:
    clips, threads = layouts.scan(root, "dcase2020"), torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            build(clips, root, tmp_path / str(number), FEATURES, tasks=serial)
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def test_a_process_reads_its_own_features_as_they_were_built(root: Path, tmp_path: Path) -> None:
    clips = layouts.scan(root, "dcase2020")
    manifest = build(clips, root, tmp_path / "store", FEATURES, columns=BOTH, tasks=serial).manifest
    own, streamed = (open_features(tmp_path / "store", manifest, BOTH, way) for way in ("own", "streamed"))
    for split in (["train"], ["train", "test"], ["extra"]):
        for rank in range(2):
            batches = [features.batches(split, ["fan/00"], rank, 2) for features in (own, streamed)]
            assert batches[0].clips == batches[1].clips
            for one, other in zip(*(part.in_order(4) for part in batches), strict=True):
                assert torch.equal(one.labels, other.labels)
                assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in BOTH)
    assert len(next(own.batches("train", []).shuffled(16, "epoch")).labels) == 16
