from __future__ import annotations

from pathlib import Path

import pytest

from asd_ray.data import layouts
from asd_ray.data.clips import Clip, evaluation_splits
from asd_ray.data.layouts import dcase2020
from tests.data.small_sets import by_name, make


def test_dcase2020_clips(tmp_path: Path) -> None:
    make(tmp_path, "fan/train/normal_id_00_00000000.wav", "fan/test/anomaly_id_00_00000007.flac")
    assert layouts.scan(tmp_path, "dcase2020") == [
        Clip("fan/test/anomaly_id_00_00000007.flac", "fan", "00", "test", "anomaly", "none", "dev", "", 16000, 100, 1),
        Clip("fan/train/normal_id_00_00000000.wav", "fan", "00", "train", "normal", "none", "dev", "", 16000, 100, 1),
    ]


def test_words_elsewhere_in_the_path_say_nothing(tmp_path: Path) -> None:
    root = make(tmp_path / "anomaly_test_id_06" / "section_05_target", "fan/train/normal_id_00_00000000.wav")
    [clip] = layouts.scan(root, "dcase2020")
    assert (clip.id, clip.split, clip.label, clip.domain) == ("00", "train", "normal", "none")


@pytest.mark.parametrize(
    ("machine", "machine_id", "part"),
    [
        ("fan", "06", "dev"),
        ("valve", "05", "eval"),
        ("ToyCar", "01", "dev"),
        ("ToyCar", "04", "dev"),
        ("ToyCar", "05", "eval"),
        ("ToyConveyor", "03", "dev"),
        ("ToyConveyor", "04", "eval"),
        ("ToyConveyor", "07", "none"),
        ("lathe", "00", "none"),
    ],
)
def test_dcase2020_part_is_by_the_published_ids(tmp_path: Path, machine: str, machine_id: str, part: str) -> None:
    make(tmp_path, f"{machine}/train/normal_id_{machine_id}_00000000.wav")
    assert layouts.scan(tmp_path, "dcase2020")[0].part == part


def test_dcase2020_tables_add_up_to_the_published_totals() -> None:
    assert sum(len(dev) for dev, _ in dcase2020.IDS.values()) == 23
    assert sum(len(evaluation) for _, evaluation in dcase2020.IDS.values()) == 18
    totals = {key: sum(counts[key] for counts in dcase2020.COUNTS.values()) for key in dcase2020.RELEASES}
    assert list(totals.values()) == [20119, 10868, 16164, 7103]
    assert totals["dev", "train"] + totals["eval", "train"] == 36283


def test_dcase2020_evaluation_labels_come_from_the_list(tmp_path: Path) -> None:
    make(tmp_path, *(f"fan/test/id_01_0000000{n}.wav" for n in range(3)), "fan/test/anomaly_id_00_00000000.wav")
    assert {clip.label for clip in layouts.scan(tmp_path, "dcase2020") if clip.id == "01"} == {"unknown"}
    (tmp_path / "fan/test_labels.csv").write_text(
        "file,label\r\nid_01_00000000.wav,anomaly\r\nid_01_00000001.wav,normal\r\n"
        "anomaly_id_00_00000000.wav,anomaly\r\n"
    )
    clips = by_name(layouts.scan(tmp_path, "dcase2020"))
    assert clips["id_01_00000000.wav"].label == "anomaly"
    assert clips["id_01_00000001.wav"].label == "normal"
    assert clips["id_01_00000002.wav"].label == "unknown"
    assert {clip.part for clip in clips.values() if clip.id == "01"} == {"eval"}


def test_dcase2020_evaluation_ids_are_held_out(tmp_path: Path) -> None:
    make(tmp_path, "fan/test/normal_id_00_00000000.wav", "fan/test/id_01_00000000.wav")
    (tmp_path / "fan/test_labels.csv").write_text("file,label\nid_01_00000000.wav,anomaly\n")
    splits = evaluation_splits(layouts.scan(tmp_path, "dcase2020"))
    assert splits == {"fan/test/normal_id_00_00000000.wav": "select", "fan/test/id_01_00000000.wav": "holdout"}
