from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asd_ray.data import extra
from asd_ray.errors import AsdRayError


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(800, 0.25), 8000)
    return path


def test_every_recording_below_the_folders_is_found_once(tmp_path: Path) -> None:
    first = write(tmp_path / "a" / "deep" / "rain.wav")
    second = write(tmp_path / "b" / "street.flac")
    (tmp_path / "a" / "notes.txt").write_text("no audio")
    clips = extra.scan([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "a" / "deep")])
    assert [clip.path for clip in clips] == [str(first), str(second)]
    assert {(clip.machine, clip.split, clip.label, clip.sample_rate, clip.frames) for clip in clips} == {
        ("extra", "extra", "unknown", 8000, 800)
    }


def test_a_folder_that_is_missing_or_without_audio_says_so(tmp_path: Path) -> None:
    with pytest.raises(AsdRayError, match="no such folder"):
        extra.scan([str(tmp_path / "nowhere")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(AsdRayError, match="no audio in it"):
        extra.scan([str(tmp_path / "empty")])


def test_an_unreadable_recording_ends_or_is_left_out(tmp_path: Path) -> None:
    good = write(tmp_path / "good.wav")
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    with pytest.raises(AsdRayError, match=r"bad\.wav.*data\.skip_bad"):
        extra.scan([str(tmp_path)])
    assert [clip.path for clip in extra.scan([str(tmp_path)], skip_bad=True)] == [str(good)]
