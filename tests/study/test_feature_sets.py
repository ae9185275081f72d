from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asd_ray.config import StudyConfig
from asd_ray.config.study_file import parse_study, with_values
from asd_ray.data.clips import Clip
from asd_ray.features.build import build
from asd_ray.features.extract import serial
from asd_ray.features.read import open_features
from asd_ray.study.feature_sets import FeatureSets


def study(**values: object) -> StudyConfig:
    given = parse_study({"name": "sets", "features": {"n_mels": 16, "seconds": 1}}, "test")
    return with_values(given, values)  # type: ignore[arg-type]


@pytest.fixture
def sets(tmp_path: Path) -> FeatureSets:
    rng = np.random.default_rng(0)
    clips = []
    for number in range(6):
        split = "train" if number < 4 else "test"
        name = f"{split}_{number}.wav"
        soundfile.write(tmp_path / name, 0.1 * rng.standard_normal(16000), 16000)
        clips.append(Clip(name, "fan", "00", split, "normal", sample_rate=16000, frames=16000))
    own = build(clips, tmp_path, tmp_path / "own", study().features, tasks=serial).manifest
    features = open_features(tmp_path / "own", own, reading="own")
    return FeatureSets(tmp_path / "sets", tmp_path, tuple(clips), own, features, again=True)


def never(path: Path) -> None:
    raise AssertionError(f"nobody is asked for {path}")


def test_the_studys_own_settings_take_the_studys_own_features(sets: FeatureSets) -> None:
    manifest, features = sets.take(study(), never)
    assert (manifest, features) == (sets.manifest, sets.features)
    assert not sets.folder.exists()


def test_other_settings_get_a_set_that_is_asked_for_and_made_once(sets: FeatureSets) -> None:
    asked: list[Path] = []
    config = study(**{"features.n_mels": 24})
    manifest, features = sets.take(config, asked.append)
    assert asked[0].parent.parent == sets.folder
    assert not asked[0].with_name("other").exists()
    written = {path: path.stat().st_mtime_ns for path in asked[0].parent.glob("*.parquet")}
    [batch] = features.batches("train", ["fan/00"]).in_order(8)
    assert batch.inputs["log_mel"].shape == (4, 24, 32)
    again, _ = sets.take(config, asked.append)
    assert again == manifest
    assert {path: path.stat().st_mtime_ns for path in asked[0].parent.glob("*.parquet")} == written


def test_a_trials_set_is_what_a_study_of_these_settings_would_have(sets: FeatureSets, tmp_path: Path) -> None:
    config = study(**{"features.n_mels": 24, "features.log": "db"})
    _, features = sets.take(config, lambda path: None)
    whole = build(sets.clips, sets.root, tmp_path / "whole", config.features, tasks=serial).manifest
    expected = open_features(tmp_path / "whole", whole, reading="own")
    for split in ("train", "test"):
        [mine] = features.batches(split, ["fan/00"]).in_order(8)
        [theirs] = expected.batches(split, ["fan/00"]).in_order(8)
        assert torch.equal(mine.inputs["log_mel"], theirs.inputs["log_mel"])


@pytest.mark.parametrize("again", [True, False])
def test_a_set_that_nobody_can_want_again_is_deleted(sets: FeatureSets, again: bool) -> None:
    sets = FeatureSets(sets.folder, sets.root, sets.clips, sets.manifest, sets.features, again)
    config = study(**{"features.f_min": 123.4})
    sets.take(config, lambda path: None)
    sets.discard(study())
    assert any((sets.root / "own").iterdir())
    sets.discard(config)
    assert any(sets.folder.glob("*")) is again


def test_several_workers_stream_what_they_cannot_share_in_memory(sets: FeatureSets) -> None:
    _, features = sets.take(study(**{"features.n_mels": 24, "resources.workers": 2}), lambda path: None)
    assert features.tables is None
