from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asd_ray.config import FeatureConfig
from asd_ray.data.clips import Clip
from asd_ray.errors import AsdRayError
from asd_ray.features.plan import ShardPlan, choice, make_manifest, plan_shards, shard_statistics
from asd_ray.features.store import settings_of

SETTINGS = settings_of(FeatureConfig(), channel=0)


def make_clips(root: Path, count: int, split: str = "train", machine: str = "fan") -> list[Clip]:
    clips = [
        Clip(f"{machine}/{split}/normal_id_00_{number:08d}.wav", machine, "00", split, "normal")  # type: ignore[arg-type]
        for number in range(count)
    ]
    for clip in clips:
        (root / clip.path).parent.mkdir(parents=True, exist_ok=True)
        (root / clip.path).write_bytes(b"x")
        os.utime(root / clip.path, (1, 1))
    return clips


def test_every_clip_is_in_exactly_one_shard_of_its_split(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    extra = [replace(clip, path=str(elsewhere / clip.path)) for clip in make_clips(elsewhere, 20, "extra", "extra")]
    clips = make_clips(tmp_path / "root", 300) + make_clips(tmp_path / "root", 10, "test") + extra
    plans = plan_shards(clips, tmp_path / "root", SETTINGS)
    for split, count in (("train", 300), ("test", 10), ("extra", 20)):
        paths = [clip.path for plan in plans[split] for clip in plan.clips]
        assert len(paths) == len(set(paths)) == count
    assert [len(plans[split]) for split in plans] == [4, 1, 1]
    assert all(print_ == (1, 10**9) for print_ in plans["extra"][0].fingerprints)


def test_a_shard_name_changes_with_its_clips_and_settings_and_with_nothing_else(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, 300)

    def names(clips: list[Clip], settings: dict = SETTINGS) -> list[str]:
        return [plan.name for plan in plan_shards(clips, tmp_path, settings)["train"]]

    before = names(clips)
    assert names(list(reversed(clips))) == before
    assert not set(names(clips, {**SETTINGS, "n_mels": 64})) & set(before)
    assert len(set(names([replace(clips[5], label="unknown"), *clips[:5], *clips[6:]])) - set(before)) == 1
    os.utime(tmp_path / clips[0].path, (2, 2))
    assert len(set(names(clips)) - set(before)) == 1
    os.utime(tmp_path / clips[0].path, (1, 1))
    (tmp_path / clips[0].path).write_bytes(b"longer")
    assert len(set(names(clips)) - set(before)) == 1
    (tmp_path / clips[1].path).unlink()
    with pytest.raises(AsdRayError, match=clips[1].path):
        names(clips)


def test_a_choice_is_of_machines_and_ids_not_of_single_recordings(tmp_path: Path) -> None:
    fan, pump = make_clips(tmp_path, 3), make_clips(tmp_path, 3, machine="pump")
    before = choice(fan, tmp_path, ("log_mel",))
    assert choice(fan[:2], tmp_path, ("log_mel",)) == before
    others = [
        choice(fan + pump, tmp_path, ("log_mel",)),
        choice(fan, tmp_path / "fan", ("log_mel",)),
        choice(fan, tmp_path, ("log_mel", "waveform")),
        choice([*fan, replace(fan[0], id="02")], tmp_path, ("log_mel",)),
    ]
    assert len({before, *others}) == 5


def plans_and_summaries(root: Path) -> tuple[dict[str, list[ShardPlan]], dict[str, str], dict[str, dict], np.ndarray]:
    rng = np.random.default_rng(0)
    clips = make_clips(root, 200) + make_clips(root, 100, machine="pump") + make_clips(root, 9, "test")
    plans = plan_shards(clips, root, SETTINGS)
    files, summaries, training = {}, {}, []
    for split, members in plans.items():
        for plan in members:
            values = rng.normal(3 if split == "train" else 50, 2, (len(plan.clips), 4, 3)).astype(np.float16)
            stem = plan.stem("log_mel")
            files[stem] = f"{stem}.parquet"
            statistics = shard_statistics(plan.clips, values)
            summaries[stem] = {"clips": len(values), "bad": [], "statistics": statistics}
            training += [values] if split == "train" else []
    return plans, files, summaries, np.concatenate(training).astype(np.float64)


def test_the_manifest_joins_means_and_deviations_of_the_training_clips_exactly(tmp_path: Path) -> None:
    plans, files, summaries, training = plans_and_summaries(tmp_path)
    manifest = make_manifest(plans, files, summaries, ("log_mel",), SETTINGS)
    assert manifest.mean == pytest.approx(training.mean(), abs=1e-12)
    assert manifest.std == pytest.approx(training.std(), abs=1e-9)
    assert manifest.counts == {"train": 300, "test": 9, "extra": 0}
    assert {key: manifest.machines["fan"][key] for key in manifest.counts} == {"train": 200, "test": 9, "extra": 0}
    assert manifest.machines["pump"]["mean"] == pytest.approx(3, abs=0.3)
    assert [shard.clips for shard in manifest.shards["train"]] == [len(plan.clips) for plan in plans["train"]]


def test_the_datas_hash_is_that_of_the_clips_and_not_of_their_times_or_the_settings(tmp_path: Path) -> None:
    def data_hash(root: Path, settings: dict = SETTINGS, label: str = "normal") -> str:
        clips = [replace(clip, label=label) for clip in make_clips(root, 5)]  # type: ignore[arg-type]
        [plan] = plan_shards(clips, root, settings)["train"]
        summary = {"clips": 5, "bad": [], "statistics": []}
        stem = plan.stem("log_mel")
        return make_manifest({"train": [plan]}, {stem: "x"}, {stem: summary}, ("log_mel",), settings).data_hash

    first = data_hash(tmp_path / "a")
    assert data_hash(tmp_path / "b", {**SETTINGS, "n_mels": 64}) == first
    assert data_hash(tmp_path / "c", label="anomaly") != first
