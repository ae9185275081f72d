from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType

import pytest

from asd_ray.data import layouts
from asd_ray.data.layouts import dcase2020, dcase2022
from asd_ray.errors import AsdRayError
from asd_ray.registry import LAYOUTS
from tests.data.small_sets import make

REAL = Path(__file__).parents[3] / "shared" / "data" / "real-mini"


@pytest.mark.parametrize(
    ("reader", "stem"),
    [
        (dcase2020, "normal_id_00_00000000"),
        (dcase2020, "id_01_00000123"),
        (dcase2022, "section_03_0000"),
        (dcase2022, "section_03_test_0000"),
        (dcase2022, "section_03_source_test_0000"),
        (dcase2022, "section_00_target_test_anomaly_0049"),
        (dcase2022, "section_00_target_test_anomaly_0049_m-n_W"),
    ],
)
def test_names_are_matched_whole(reader: ModuleType, stem: str) -> None:
    assert reader.parse("test", stem)
    for extra in ("x", " ", "_", "ab", ".", "\n", "\u0660"):
        assert reader.parse("test", extra + stem) is None
        if "m-n" not in stem:  # attributes are free text
            assert reader.parse("test", stem + extra) is None
    for wrong in (stem.replace("_0", "_x"), stem.replace("_0", "_\u0660"), stem.upper(), stem.replace("_", "-"), ""):
        assert reader.parse("test", wrong) is None
    assert (dcase2022 if reader is dcase2020 else dcase2020).parse("test", stem) is None


def test_files_that_are_no_clips_are_reported_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = "fan/test/normal_id_00_00000000.wav"
    strange = [
        "fan/test/normal_id_00_00000000 (1).wav",
        "fan/test/Normal_id_00_00000001.wav",
        "fan/train/id_00_00000000.wav",
    ]
    make(tmp_path, good, "fan/test/._normal_id_00_00000002.wav", *strange)
    (tmp_path / "fan/test/notes.txt").write_text("not a recording")
    with caplog.at_level(logging.WARNING, logger="asd_ray"):
        assert [clip.path for clip in layouts.scan(tmp_path, "dcase2020")] == [good]
    assert all(any(name in message for message in caplog.messages) for name in strange)
    assert len(caplog.messages) == len(strange)


@pytest.mark.parametrize(
    ("layout", "path", "message"),
    [
        ("dcase2020", "fan/train/anomaly_id_00_00000000.wav", "its name says anomaly, but train/ is for normal clips"),
        ("dcase2022", "fan/train/section_00_source_train_anomaly_0000_a.wav", "its name says anomaly"),
        ("dcase2022", "fan/train/section_00_source_test_normal_0000_a.wav", "its name says test, its folder train/"),
    ],
)
def test_a_name_that_contradicts_its_folder(tmp_path: Path, layout: str, path: str, message: str) -> None:
    make(tmp_path, path)
    ok = "normal_id_00_00000001" if layout == "dcase2020" else "section_00_source_train_normal_0001_a"
    make(tmp_path, f"fan/train/{ok}.wav")
    with pytest.raises(AsdRayError, match=message):
        layouts.scan(tmp_path, layout)
    assert len(layouts.scan(tmp_path, layout, skip_bad=True)) == 1


# Synthetic sets


@pytest.mark.parametrize("layout", ["synthetic", "dcase2020"])
def test_synthetic_ids_are_not_the_published_ones(tmp_path: Path, layout: str) -> None:
    make(tmp_path, "fan/train/normal_id_00_00000000.wav", "fan/test/anomaly_id_01_00000000.wav")
    (tmp_path / "synthetic.json").write_text("{}")
    assert {clip.part for clip in layouts.scan(tmp_path, layout)} == {"none"}


def test_a_synthetic_set_in_the_style_of_2022(tmp_path: Path) -> None:
    make(tmp_path, "fan/train/section_03_target_train_normal_0000_load_2.wav")
    (tmp_path / "synthetic.json").write_text("{}")
    [clip] = layouts.scan(tmp_path, "synthetic")
    assert (clip.id, clip.domain, clip.part, clip.attributes) == ("03", "target", "none", "load_2")


# Whole sets


def test_clips_are_ordered_and_machines_chosen(tmp_path: Path) -> None:
    paths = [
        f"{machine}/train/normal_id_00_0000000{n}.wav" for machine in ("valve", "fan", "ToyCar") for n in (2, 0, 1)
    ]
    make(tmp_path, *paths)
    assert [clip.path for clip in layouts.scan(tmp_path, "dcase2020")] == sorted(paths)
    assert {clip.machine for clip in layouts.scan(tmp_path, "dcase2020", ["valve", "fan"])} == {"fan", "valve"}
    with pytest.raises(AsdRayError, match=r"data.machines: pump, Fan not found in .*; there: ToyCar, fan, valve"):
        layouts.scan(tmp_path, "dcase2020", ["pump", "fan", "Fan"])


def test_an_unchosen_machine_is_not_read(tmp_path: Path) -> None:
    make(tmp_path, "fan/train/normal_id_00_00000000.wav", "pump/train/normal_id_00_00000000.wav")
    (tmp_path / "pump/train/normal_id_00_00000000.wav").write_bytes(b"")
    assert len(layouts.scan(tmp_path, "dcase2020", ["fan"])) == 1


def test_a_bad_clip_is_named_or_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, *(f"fan/train/normal_id_00_0000000{n}.wav" for n in range(3)))
    for number in (0, 2):
        path = tmp_path / f"fan/train/normal_id_00_0000000{number}.wav"
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        AsdRayError, match=r"0000.wav: 90 of 100 samples .* 1 more are wrong; .*data.skip_bad"
    ) as caught:
        layouts.scan(tmp_path, "dcase2020")
    assert str(tmp_path) in str(caught.value)
    with caplog.at_level(logging.WARNING, logger="asd_ray"):
        [clip] = layouts.scan(tmp_path, "dcase2020", skip_bad=True)
    assert clip.path == "fan/train/normal_id_00_00000001.wav"
    assert ["00000000.wav" in caplog.text, "00000002.wav" in caplog.text] == [True, True]


def test_nothing_but_bad_clips_is_an_error_even_when_they_may_be_skipped(tmp_path: Path) -> None:
    make(tmp_path, "fan/train/normal_id_00_00000000.wav")
    (tmp_path / "fan/train/normal_id_00_00000000.wav").write_bytes(b"")
    with pytest.raises(AsdRayError, match="a file of 0 bytes"):
        layouts.scan(tmp_path, "dcase2020", skip_bad=True)


def test_where_there_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(AsdRayError, match=r"nowhere: there is no such folder"):
        layouts.scan(tmp_path / "nowhere", "dcase2020")
    with pytest.raises(AsdRayError, match=r"there is no layout 'dcase'; choose one of dcase2020, dcase2022"):
        layouts.scan(tmp_path, "dcase")
    for layout in LAYOUTS.names():
        with pytest.raises(AsdRayError, match=f"no recording of the layout {layout}; expected .*<machine>"):
            layouts.scan(tmp_path, layout)


def test_hints_at_what_may_have_been_meant(tmp_path: Path) -> None:
    make(tmp_path, "sets/one/fan/train/normal_id_00_00000000.wav", "own/lathe/train/a.wav")
    one = tmp_path / "sets/one"
    for root, layout, hint in (
        (one, "dcase2022", "It looks like data.layout dcase2020"),
        (one / "fan", "dcase2020", f"one machine's folder: give the folder above it, {one}"),
        (tmp_path / "sets", "dcase2020", f"give {one}"),
        (tmp_path / "own", "dcase2020", r"1 files are there that do not fit; the first is lathe/train/a\.wav"),
        (tmp_path / "own/lathe/train", "dcase2020", "It looks like data.layout folder"),
    ):
        with pytest.raises(AsdRayError, match=hint):
            layouts.scan(root, layout)


def test_progress_counts_headers(tmp_path: Path) -> None:
    make(tmp_path, *(f"fan/train/normal_id_00_0000000{n}.wav" for n in range(3)))
    seen: list[tuple[int, int]] = []
    layouts.index(tmp_path, "dcase2020", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("path", "layout"),
    [
        ("fan/train/normal_id_00_00000000.wav", "dcase2020"),
        ("fan/test/id_01_00000000.wav", "dcase2020"),
        ("fan/train/section_00_source_train_normal_0000_a.wav", "dcase2022"),
        ("fan/source_test/section_00_source_test_normal_0000_a.wav", "dcase2022"),
        ("fan/test/section_03_0000.wav", "dcase2022"),
        ("fan/train/one.wav", "folder"),
        ("one.ogg", "folder"),
    ],
)
def test_layouts_are_recognised(tmp_path: Path, path: str, layout: str) -> None:
    assert layouts.detect(tmp_path) is None
    make(tmp_path, path)
    assert layouts.detect(tmp_path) == layout
    (tmp_path / "synthetic.json").write_text("{}")
    assert layouts.detect(tmp_path) == "synthetic"


def test_labels_of_clips_that_are_not_there_are_reported(tmp_path: Path) -> None:
    make(tmp_path, "fan/test/id_01_00000000.wav")
    (tmp_path / "fan/test_labels.csv").write_text("file,label\nid_01_00000000.wav,normal\nid_01_00000001.wav,normal\n")
    _, [problem] = layouts.index(tmp_path, "dcase2020")
    assert (problem.severity, problem.path) == ("warning", "fan/test_labels.csv")
    assert "1 clips that are not there (id_01_00000001" in problem.what


@pytest.mark.skipif(not REAL.is_dir(), reason="the real recordings are not here")
def test_the_real_recordings() -> None:
    clips, problems = layouts.index(REAL, "dcase2020")
    assert problems == []
    assert len(clips) == 215
    assert len({clip.group for clip in clips}) == 16
    assert [sum((c.split, c.label) == kind for c in clips) for kind in (("train", "normal"), ("test", "normal"))] == [
        91,
        57,
    ]
    assert {(clip.sample_rate, clip.frames, clip.channels, clip.part) for clip in clips} == {(16000, 160000, 1, "dev")}
