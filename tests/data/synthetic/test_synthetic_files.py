"""The files of a synthetic set: as planned, whole or not there, and never over somebody else's."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asd_ray.config import SyntheticConfig
from asd_ray.data.layouts import scan
from asd_ray.data.synthetic.recordings import GENERATOR, plan, read_description, render, synthesise, write
from asd_ray.errors import AsdRayError

SMALL = SyntheticConfig(machines=2, ids=1, train=3, test_normal=2, test_anomaly=2)


@pytest.fixture(autouse=True)
def short_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one second."""
    monkeypatch.setattr("asd_ray.data.synthetic.recordings.SECONDS", 1.0)


def content(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("layout", ["dcase2020", "dcase2022"])
def test_the_files_are_read_back_as_planned(tmp_path, layout):
    recordings = synthesise(tmp_path / "set", SMALL, layout)
    clips = {clip.path: clip for clip in scan(tmp_path / "set", "synthetic")}
    assert len(clips) == len(recordings)
    for r in recordings:
        clip = clips[r.path]
        assert (clip.machine, clip.id, clip.split, clip.label, clip.domain) == (
            r.machine,
            r.id,
            r.split,
            r.label,
            r.domain,
        )
        assert (clip.sample_rate, clip.frames, clip.channels) == (16000, 16000, 1)
    with (tmp_path / "set" / "faults.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [r.path for r in recordings if r.fault]
    assert all(set(row) == {"path", "machine", "id", "fault", "band", "severity"} and all(row.values()) for row in rows)
    if layout == "dcase2022":
        with (tmp_path / "set" / "fan" / "attributes_00.csv").open(newline="") as file:
            attributes = {row["file_name"]: row for row in csv.DictReader(file)}
        for r in recordings:
            if r.machine == "fan":
                row = attributes[r.path]
                named = "_".join(row[key] for key in ("d1p", "d1v", "d2p", "d2v", "d3p", "d3v"))
                assert r.path.endswith(f"_{named}.wav")
                assert named.startswith(f"spd_{10 * round(10 * r.speed)}_load_{50 * round(2 * r.load)}_mic_")


def test_a_file_is_16_bit_and_holds_the_rendered_sound(tmp_path):
    recording = plan(SMALL)[0]
    write(tmp_path, recording, 16000, 1.0)
    assert soundfile.info(tmp_path / recording.path).subtype == "PCM_16"
    signal, rate = soundfile.read(tmp_path / recording.path, dtype="float32")
    assert rate == 16000
    np.testing.assert_allclose(signal, render(recording, 16000, 1.0), atol=1.01 / 32768)


def test_order_and_workers_make_no_difference(tmp_path):
    def backwards(function: Callable, chunks: Iterable) -> Iterator:
        yield from map(function, reversed([chunk[::-1] for chunk in chunks]))

    synthesise(tmp_path / "a", SMALL)
    synthesise(tmp_path / "b", SMALL, parallel_map=backwards)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_second_run_makes_only_what_is_missing(tmp_path):
    seen: list[tuple[int, int]] = []
    recordings = synthesise(tmp_path, SMALL, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, len(recordings))
    assert seen[-1] == (len(recordings), len(recordings))
    before = content(tmp_path)
    gone, cut, kept = (tmp_path / r.path for r in recordings[:3])
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:1000])
    marked = kept.read_bytes()[:-2] + b"\x01\x00"  # a whole file is left alone
    kept.write_bytes(marked)
    seen.clear()
    assert synthesise(tmp_path, SMALL, progress=lambda done, total: seen.append((done, total))) == recordings
    assert seen == [(len(recordings) - 2, len(recordings)), (len(recordings), len(recordings))]
    assert content(tmp_path) == before | {recordings[2].path: marked}


def test_an_interrupted_run_is_taken_up_and_leaves_no_half_files(tmp_path):
    def interrupted(function: Callable, chunks: Iterable) -> Iterator:
        for chunk in chunks:
            yield function(chunk[:4])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesise(tmp_path / "a", SMALL, parallel_map=interrupted)
    assert len(list((tmp_path / "a").rglob("*.wav"))) == 4
    synthesise(tmp_path / "a", SMALL)
    synthesise(tmp_path / "b", SMALL)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    write_bytes = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if ".wav" not in self.name:
            return write_bytes(self, data)
        write_bytes(self, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(AsdRayError, match=r"normal_id_00_00000000\.wav.*disk is full"):
        synthesise(tmp_path, SMALL)
    assert set(content(tmp_path)) == {"synthetic.json"}


@pytest.mark.parametrize(
    ("update", "layout", "message"),
    [
        ({"seed": 5, "ids": 2}, "dcase2020", r"\(ids 1 instead of 2, seed 0 instead of 5\)"),
        ({}, "dcase2022", "layout dcase2020 instead of dcase2022"),
    ],
)
def test_another_set_in_the_folder_is_refused(tmp_path, update, layout, message):
    synthesise(tmp_path, SMALL)
    before = content(tmp_path)
    with pytest.raises(AsdRayError, match=message):
        synthesise(tmp_path, SMALL.model_copy(update=update), layout)
    assert content(tmp_path) == before


def test_another_generator_is_refused(tmp_path):
    synthesise(tmp_path, SMALL)
    mark = tmp_path / "synthetic.json"
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"generator": 0}))
    with pytest.raises(AsdRayError, match=f"generator 0 instead of {GENERATOR}"):
        synthesise(tmp_path, SMALL)


@pytest.mark.parametrize(("name", "text"), [("notes.txt", "x"), ("synthetic.json", "x"), ("synthetic.json", "[1]")])
def test_a_folder_of_something_else_is_left_alone(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(AsdRayError, match=r"no readable synthetic\.json; expected a synthetic set"):
        synthesise(tmp_path, SMALL)
    assert content(tmp_path) == {name: text.encode()}


def test_a_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AsdRayError, match="file"):
        synthesise(tmp_path / "file", SMALL)
    with pytest.raises(AsdRayError, match=r"synthetic\.json: cannot be written"):
        synthesise(tmp_path / "file" / "below", SMALL)


def test_a_set_describes_itself(tmp_path: Path) -> None:
    assert read_description(tmp_path) is None
    config = SyntheticConfig(machines=1, ids=1, train=1, test_normal=1, test_anomaly=1, snr_db=0, seed=9)
    synthesise(tmp_path, config, "dcase2022")
    assert read_description(tmp_path) == (config, "dcase2022")
    (tmp_path / "synthetic.json").write_text("{}")
    with pytest.raises(AsdRayError, match="does not describe a synthetic set"):
        read_description(tmp_path)
