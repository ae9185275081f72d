from __future__ import annotations

from pathlib import Path

import pytest

from asd_ray.data.layouts import dcase2022
from asd_ray.data.side_files import Fault, read_attributes, read_faults, read_labels
from asd_ray.errors import AsdRayError


def test_no_list_no_labels(tmp_path: Path) -> None:
    assert read_labels(tmp_path, str) == {}


def test_labels_are_found_by_the_clips_own_name(tmp_path: Path) -> None:
    (tmp_path / "test_labels.csv").write_text(
        "\ufefflabel, file ,domain\nanomaly,test/section_03_test_0001.wav,target\n\nnormal, section_03_0002.wav ,\n",
        encoding="utf-8",
    )
    assert read_labels(tmp_path, dcase2022.key) == {
        "section_03_0001": ("anomaly", "target"),
        "section_03_0002": ("normal", "none"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: found the columns \(none\); expected file, label"),
        ("file,lable\na.wav,normal\n", "line 1: found the columns file, lable; expected file, label"),
        ("file,label,label\na.wav,normal,normal\n", "line 1: found the columns"),
        ("file,label\na.wav,normal\nb.wav,1\n", "line 3: found label '1'; expected normal or anomaly"),
        ("file,label\n\n\na.wav\n", "line 4: found 1 values; expected 2"),
        ("file,label\na.wav,\n", "line 2: found nothing under label"),
        ("file,label,domain\na.wav,normal,0\n", "line 2: found domain '0'; expected source or target or none"),
        ("file,label\nx_0.wav,normal\nx_0.wav,anomaly\n", "line 3: found x_0.wav a second time"),
    ],
)
def test_a_list_that_does_not_validate(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "test_labels.csv").write_text(text)
    with pytest.raises(AsdRayError, match=f"test_labels.csv, {message}"):
        read_labels(tmp_path, str)


def test_two_names_of_one_clip_with_two_labels(tmp_path: Path) -> None:
    (tmp_path / "test_labels.csv").write_text(
        "file,label\nsection_03_test_0001.wav,normal\nsection_03_0001.wav,anomaly\n"
    )
    with pytest.raises(AsdRayError, match=r"line 3: found section_03_0001.wav a second time, with another label"):
        read_labels(tmp_path, dcase2022.key)


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "test_labels.csv").write_bytes(b"file,label\n\xff\xfe,normal\n")
    with pytest.raises(AsdRayError, match=r"test_labels.csv: this is no CSV file in UTF-8"):
        read_labels(tmp_path, str)


def test_attributes_of_all_sections(tmp_path: Path) -> None:
    (tmp_path / "attributes_00.csv").write_text("file_name,d1p,d1v\nfan/train/a.wav,m-n,W\n")
    (tmp_path / "attributes_01.csv").write_text("file_name,d1p,d1v,d2p,d2v,d3p,d3v\nb.wav,vel,21,pat,06,car,G2\n")
    assert read_attributes(tmp_path) == {"a": "m-n_W", "b": "vel_21_pat_06_car_G2"}


def test_faults_are_read_from_the_sets_list(tmp_path: Path) -> None:
    assert read_faults(tmp_path) == {}
    (tmp_path / "faults.csv").write_text("path,machine,id,fault,band,severity\nfan/test/a.wav,fan,00,leak,high,0.4\n")
    assert read_faults(tmp_path) == {"fan/test/a.wav": Fault("leak", "high", "0.4")}
    (tmp_path / "faults.csv").write_text("path,fault\nfan/test/a.wav,leak\n")
    assert read_faults(tmp_path) == {"fan/test/a.wav": Fault("leak", "", "")}
    (tmp_path / "faults.csv").write_text("path,kind\nfan/test/a.wav,leak\n")
    with pytest.raises(AsdRayError, match=r"faults\.csv, line 1: found the columns path, kind"):
        read_faults(tmp_path)
