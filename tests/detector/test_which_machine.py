from __future__ import annotations

from pathlib import Path

import pytest

from asd_ray.detector.which_machine import infer_group
from asd_ray.errors import ConfigError

CLASSES = ("ToyCar/01", "fan/00", "fan/02", "pump/00")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("fan/test/normal_id_02_00000001.wav", "fan/02"),
        ("/data/set/ToyCar/train/normal_id_01_00000001.wav", "ToyCar/01"),
        ("pump/test/id_00_00000003.wav", "pump/00"),
        ("pump/anywhere/section_00_source_train_normal_0000_x.wav", "pump/00"),
        ("fan/test/section_02_0007.wav", "fan/02"),
        ("fan/id_02/abnormal/x.wav", "fan/02"),
        ("fan/02/Test/Normal/x.wav", "fan/02"),
        ("pump/test/x.wav", "pump/00"),  # it has one ID
        ("pump/monday/x.wav", "pump/00"),
        ("fan/02/id_07_take.wav", "fan/02"),
        ("pump/fan/id_02/x.wav", "fan/02"),  # the nearest folder counts
        ("id_01_00000000.wav", "ToyCar/01"),  # no other machine has this ID
    ],
)
def test_what_a_path_says(path: str, expected: str) -> None:
    assert infer_group(Path(path), CLASSES) == expected


def test_ids_may_come_from_folders_that_are_joined() -> None:
    assert infer_group(Path("fan/hall/id_3/train/x.wav"), ["fan/hall-3", "fan/hall-4"]) == "fan/hall-3"


def test_what_the_path_does_not_say_is_asked_for() -> None:
    assert infer_group(Path("x.wav"), CLASSES, "fan", "02") == "fan/02"
    assert infer_group(Path("x.wav"), CLASSES, "pump") == "pump/00"
    assert infer_group(Path("normal_id_02_1.wav"), CLASSES, "fan") == "fan/02"
    assert infer_group(Path("normal_id_07_1.wav"), CLASSES, "fan", "02") == "fan/02"
    for path, found in (("x.wav", "neither"), ("normal_id_00_1.wav", "id 00"), ("fan/test/x.wav", "machine fan")):
        message = rf"{path}: cannot tell .* \(found {found}\).*knows ToyCar 01, fan 00, fan 02, pump 00"
        with pytest.raises(ConfigError, match=message):
            infer_group(Path(path), CLASSES)
    with pytest.raises(ConfigError, match="cannot tell"):
        infer_group(Path("x.wav"), CLASSES, "fan")
    with pytest.raises(ConfigError, match="cannot tell"):
        infer_group(Path("x.wav"), CLASSES, "valve", "00")


def test_a_name_of_an_unknown_id_is_not_scored_as_another() -> None:
    with pytest.raises(ConfigError, match="found machine fan, id 07"):
        infer_group(Path("fan/test/normal_id_07_1.wav"), CLASSES)
    with pytest.raises(ConfigError, match=r"\(found id 07\)"):
        infer_group(Path("normal_id_07_1.wav"), ["fan/00"])


def test_a_contradiction_is_refused() -> None:
    with pytest.raises(ConfigError, match="its path says fan 02, --machine and --id say pump;"):
        infer_group(Path("fan/test/normal_id_02_1.wav"), CLASSES, "pump")
    assert infer_group(Path("fan/test/normal_id_02_1.wav"), CLASSES, "fan", "02") == "fan/02"


def test_a_detector_of_one_class_needs_nothing() -> None:
    assert infer_group(Path("x.wav"), ["fan/00"]) == "fan/00"
    assert infer_group(Path("elsewhere/y.flac"), ["fan/00"]) == "fan/00"
