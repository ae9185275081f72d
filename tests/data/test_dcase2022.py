from __future__ import annotations

from pathlib import Path

import pytest

from asd_ray.data import layouts
from asd_ray.errors import AsdRayError
from tests.data.small_sets import by_name, make


def test_dcase2022_clips(tmp_path: Path) -> None:
    make(
        tmp_path,
        "ToyCar/train/section_00_source_train_normal_0000_car_A1_spd_28V_mic_1.wav",
        "ToyCar/train/section_03_target_train_normal_0009_car_A1.wav",
        "ToyCar/test/section_00_target_test_anomaly_0049_noAttribute.wav",
    )
    clips = by_name(layouts.scan(tmp_path, "dcase2022"))
    train = clips["section_00_source_train_normal_0000_car_A1_spd_28V_mic_1.wav"]
    assert (train.id, train.domain, train.split, train.label, train.part, train.attributes) == (
        "00",
        "source",
        "train",
        "normal",
        "dev",
        "car_A1_spd_28V_mic_1",
    )
    assert clips["section_03_target_train_normal_0009_car_A1.wav"].part == "eval"
    test = clips["section_00_target_test_anomaly_0049_noAttribute.wav"]
    assert (test.domain, test.label, test.attributes) == ("target", "anomaly", "")


@pytest.mark.parametrize("on_disk", ["section_03_test_0007.wav", "section_03_0007.wav"])
@pytest.mark.parametrize("in_list", ["section_03_test_0007.wav", "section_03_0007.wav"])
def test_dcase2022_evaluation_clips_are_named_two_ways(tmp_path: Path, on_disk: str, in_list: str) -> None:
    make(tmp_path, f"bearing/test/{on_disk}", "bearing/test/section_03_0008.wav")
    (tmp_path / "bearing/test_labels.csv").write_text(f"file,label,domain\n{in_list},anomaly,target\n")
    clips = by_name(layouts.scan(tmp_path, "dcase2022"))
    assert (clips[on_disk].label, clips[on_disk].domain, clips[on_disk].part) == ("anomaly", "target", "eval")
    assert (clips["section_03_0008.wav"].label, clips["section_03_0008.wav"].domain) == ("unknown", "none")


def test_one_clip_under_both_names_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, "fan/test/section_03_test_0007.wav", "fan/test/section_03_0007.wav")
    with pytest.raises(AsdRayError, match=r"section_03_test_0007.wav: the same clip as fan/test/section_03_0007.wav"):
        layouts.scan(tmp_path, "dcase2022")


def test_dcase2022_list_and_name_that_contradict_each_other(tmp_path: Path) -> None:
    name = "section_03_source_test_anomaly_0007_vel_21.wav"
    make(tmp_path, f"ToyCar/test/{name}", "ToyCar/train/section_03_source_train_normal_0000_vel_21.wav")
    (tmp_path / "ToyCar/test_labels.csv").write_text(f"file,label\n{name},normal\n")
    with pytest.raises(AsdRayError, match=rf"{name}: its name says anomaly, test_labels.csv says normal"):
        layouts.scan(tmp_path, "dcase2022")
    (tmp_path / "ToyCar/test_labels.csv").write_text(f"file,label,domain\n{name},anomaly,target\n")
    with pytest.raises(AsdRayError, match=r"its name says source, test_labels.csv says target"):
        layouts.scan(tmp_path, "dcase2022")


def test_dcase2022_attribute_files_give_attributes_and_never_labels(tmp_path: Path) -> None:
    make(tmp_path, "ToyCar/test/section_03_0000.wav", "ToyCar/train/section_03_source_train_normal_0000.wav")
    (tmp_path / "ToyCar/attributes_03.csv").write_text(
        "file_name,d1p,d1v,d2p,d2v,file_name_with_full_attributes\n"
        "ToyCar/test/section_03_0000.wav,car,A1,spd,28V,section_03_target_test_anomaly_0000_car_A1_spd_28V.wav\n"
        "ToyCar/train/section_03_source_train_normal_0000.wav,car,B2,,,x.wav\n"
    )
    clips = by_name(layouts.scan(tmp_path, "dcase2022"))
    hidden = clips["section_03_0000.wav"]
    assert (hidden.attributes, hidden.label, hidden.domain) == ("car_A1_spd_28V", "unknown", "none")
    assert clips["section_03_source_train_normal_0000.wav"].attributes == "car_B2"


def test_2021_keeps_test_clips_by_domain(tmp_path: Path) -> None:
    make(
        tmp_path,
        "fan/source_test/section_00_source_test_normal_0000.wav",
        "fan/target_test/section_03_target_test_0000.wav",
        "fan/target_test/section_03_0001.wav",
    )
    clips = by_name(layouts.scan(tmp_path, "dcase2022"))
    assert [(clip.split, clip.domain, clip.label, clip.part) for clip in clips.values()] == [
        ("test", "source", "normal", "dev"),
        ("test", "target", "unknown", "eval"),
        ("test", "target", "unknown", "eval"),
    ]
    make(tmp_path, "fan/target_test/section_00_source_test_normal_0001.wav")
    with pytest.raises(AsdRayError, match="its name says source, its folder target_test/"):
        layouts.scan(tmp_path, "dcase2022")


def test_from_2023_a_machine_belongs_to_one_part_as_a_whole(tmp_path: Path) -> None:
    make(
        tmp_path,
        "bearing/train/section_00_source_train_normal_0000_noAttribute.wav",
        "bearing/test/section_00_source_test_anomaly_0000_noAttribute.wav",
        "Vacuum/train/section_00_source_train_normal_0000_noAttribute.wav",
        "Vacuum/test/section_00_0000.wav",
        "Vacuum/supplemental/section_00_machine_source_0000_noAttribute.wav",
    )
    clips, problems = layouts.index(tmp_path, "dcase2022")
    assert {(clip.machine, clip.part) for clip in clips} == {("bearing", "dev"), ("Vacuum", "eval")}
    assert [(problem.severity, problem.path) for problem in problems] == [("note", "Vacuum/supplemental")]
