from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch

from asd_ray.bench.reading import BATCH, epochs, formats
from asd_ray.bench.recordings import link_clips
from asd_ray.data.clips import Clip
from asd_ray.features.batches import CachedBatches


def test_every_epoch_has_a_rate_and_a_first_batch() -> None:
    clips = [Clip(f"{number}.wav", "fan", "00", "train", "normal") for number in range(2 * BATCH + 1)]
    batches = CachedBatches(clips, {"log_mel": torch.zeros(len(clips), 2, 3)}, ["fan/00"])
    rates, first = epochs(batches, 3)
    assert len(rates.values) == len(first.values) == 3
    # As many clips as came in the time that the rate says: the first batch is a part of it.
    for rate, seconds in zip(rates.values, first.values, strict=True):
        assert 0 < seconds < 2 * BATCH / rate


def test_both_formats_are_read_whole(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    found = formats([tmp_path / "a.wav"] * 2, tmp_path / "formats", 2)
    assert [len(measured.values) for measured in found] == [2, 2]
    assert all(value > 0 for measured in found for value in measured.values)


def test_clips_are_names_of_the_recordings(tmp_path: Path) -> None:
    recordings = [tmp_path / name for name in ("a.wav", "b.wav")]
    for path in recordings:
        path.write_bytes(path.name.encode())
    clips = link_clips(recordings, tmp_path / "clips", 5)
    assert len({clip.path for clip in clips}) == 5
    content = [(tmp_path / "clips" / clip.path).read_text() for clip in clips]
    assert content == ["a.wav", "b.wav", "a.wav", "b.wav", "a.wav"]
    assert {clip.split for clip in clips} == {"train"}
