from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asd_ray.config import FeatureConfig
from asd_ray.data import layouts
from asd_ray.data.clips import Clip
from asd_ray.errors import AsdRayError
from asd_ray.features.extract import BATCH, Extractor, Outcome, Recipe, make_shard, to_json
from asd_ray.features.plan import ShardPlan, plan_shards
from asd_ray.features.storage import Storage
from asd_ray.features.store import clips_of, read_shard, settings_of, shard_summary

FEATURES = FeatureConfig(seconds=0.25, n_mels=16)
COUNT = BATCH + 3


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        path = tmp_path / "data" / "fan" / "train" / f"normal_id_00_{number:08d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(4000), 16000, subtype="PCM_16")
    return Recipe(tmp_path / "data", Storage(tmp_path / "store"), FEATURES, 0, False)


def plan(recipe: Recipe) -> ShardPlan:
    clips = layouts.scan(recipe.root, "dcase2020")
    [only] = plan_shards(clips, recipe.root, settings_of(FEATURES, 0))["train"]
    return only


def file(outcome: Outcome, column: str) -> str:
    return next(name for stem, name in outcome.files.items() if stem.startswith(column))


def test_a_shard_has_the_clips_their_features_and_their_samples(recipe: Recipe) -> None:
    shard = plan(recipe)
    outcome = make_shard(shard, ("log_mel", "waveform"), {}, recipe)
    assert (outcome.clips, outcome.decoded) == (COUNT, COUNT)
    log_mel, waveform = (read_shard(recipe.store, file(outcome, name)) for name in ("log_mel", "waveform"))
    assert clips_of(log_mel) == clips_of(waveform) == list(shard.clips)
    for row, clip in enumerate(shard.clips):
        samples = soundfile.read(recipe.root / clip.path, dtype="int16")[0]
        assert waveform["waveform"][row].as_py() == samples.tobytes()
        assert log_mel["bytes"][row].as_py() == os.stat(recipe.root / clip.path).st_size
    summary = shard_summary(recipe.store, file(outcome, "log_mel"))
    assert summary == outcome.summaries[shard.stem("log_mel")]


def test_rows_of_older_shards_are_taken_over_and_the_file_is_the_same(recipe: Recipe) -> None:
    shard = plan(recipe)
    first = make_shard(shard, ("log_mel", "waveform"), {}, recipe)
    names = {name: file(first, name) for name in ("log_mel", "waveform")}
    for name in names.values():
        os.rename(recipe.store.url(name), recipe.store.url(name.replace("-train-00000-", "-train-00009-")))
    old = {column: name.replace("-train-00000-", "-train-00009-") for column, name in names.items()}
    sources = {column: [None if row == 4 else (name, row) for row in range(COUNT)] for column, name in old.items()}
    again = make_shard(shard, ("log_mel", "waveform"), sources, recipe)
    assert (again.clips, again.decoded) == (COUNT, 1)
    assert again.files == first.files  # the names carry the files' checksums
    for clip in shard.clips:
        if clip != shard.clips[4]:
            (recipe.root / clip.path).unlink()  # proves that they are not read
    assert make_shard(shard, ("log_mel",), sources, recipe).files.items() <= first.files.items()


def test_a_damaged_older_shard_is_not_taken_over(recipe: Recipe) -> None:
    shard = plan(recipe)
    first = make_shard(shard, ("log_mel",), {}, recipe)
    name = file(first, "log_mel")
    path = Path(recipe.store.url(name))
    path.write_bytes(path.read_bytes()[:-1000] + bytes(1000))
    again = make_shard(shard, ("log_mel",), {"log_mel": [(name, row) for row in range(COUNT)]}, recipe)
    assert again.decoded == COUNT
    assert again.files == first.files
    assert shard_summary(recipe.store, name) is not None


def test_a_bad_clip_stops_the_shard_or_is_left_out(recipe: Recipe) -> None:
    shard = plan(recipe)
    bad = shard.clips[2].path
    (recipe.root / bad).write_bytes(b"RIFF")
    with pytest.raises(AsdRayError, match=rf"{bad}.*data\.skip_bad"):
        make_shard(shard, ("log_mel",), {}, recipe)
    outcome = make_shard(shard, ("log_mel", "waveform"), {}, replace(recipe, skip_bad=True))
    kept = [clip for clip in shard.clips if clip.path != bad]
    for column in ("log_mel", "waveform"):
        assert clips_of(read_shard(recipe.store, file(outcome, column))) == kept
        summary = outcome.summaries[shard.stem(column)]
        assert (summary["clips"], [clip["path"] for clip in summary["bad"]]) == (COUNT - 1, [bad])


def test_a_shard_may_lose_all_its_clips(recipe: Recipe) -> None:
    shard = plan(recipe)
    for clip in shard.clips:
        (recipe.root / clip.path).write_bytes(b"RIFF")
    outcome = make_shard(shard, ("log_mel", "waveform"), {}, replace(recipe, skip_bad=True))
    assert {summary["clips"] for summary in outcome.summaries.values()} == {0}


def test_a_task_reports_a_full_disk_as_one_sentence(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The half-written file is a link to a device that is always full: the error is the operating system's own."""
    part = Path.with_name
    monkeypatch.setattr(Path, "with_name", lambda path, name: full if name.endswith(".part") else part(path, name))
    full = recipe.root.parent / "full.part"
    full.symlink_to("/dev/full")
    row = {"work": to_json(plan(recipe), ("log_mel",), {})}
    outcome = Extractor(recipe)(row)["outcome"]
    assert "the disk is full" in outcome
    assert recipe.store.names() == set()


def test_work_survives_the_way_to_a_task(recipe: Recipe) -> None:
    shard = plan(recipe)
    odd = replace(shard.clips[0], attributes='ä "quoted"\n')
    shard = replace(shard, clips=(odd, *shard.clips[1:]))
    row = {"work": to_json(shard, ("log_mel",), {"log_mel": [None] * COUNT})}
    outcome = Extractor(recipe)(row)["outcome"]
    name = next(name for name in recipe.store.names())
    assert name in outcome
    assert clips_of(read_shard(recipe.store, name)) == list(shard.clips)
    assert isinstance(shard.clips[0], Clip)
