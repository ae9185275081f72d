from __future__ import annotations

from pathlib import Path

import pytest

from asd_ray.data.public.ground_truth import attach, hidden_clips, is_attached, read_2020, read_2022, write_labels
from asd_ray.data.public.registry import DCASE2020, DCASE2022
from asd_ray.data.public.unpack import CorruptedFile
from asd_ray.errors import AsdRayError

LIST = """fan
id_01_00000000.wav,anomaly_id_01_00000012.wav,1
id_01_00000001.wav,normal_id_01_00000003.wav,0
ToyCar
id_05_00000000.wav,normal_id_05_00000007.wav,0
"""


def touch(folder: Path, *names: str) -> Path:
    (folder / "test").mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / "test" / name).touch()
    return folder


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())
    return path


@pytest.mark.parametrize("content", [LIST, LIST.replace("\n", "\r\n"), "\ufeff" + LIST.replace("ToyCar", "\nToyCar")])
def test_reads_the_blocks_of_2020(tmp_path: Path, content: str) -> None:
    """With either line end: a copy with CRLF is in circulation."""
    assert read_2020([text(tmp_path / "eval_data_list.csv", content)]) == {
        "fan": {"id_01_00000000": ("anomaly", "none"), "id_01_00000001": ("normal", "none")},
        "ToyCar": {"id_05_00000000": ("normal", "none")},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id_01_00000000.wav,normal_id_01_00000000.wav,0\n", "line 1: found 'id_01.*expected a machine"),
        ("fan\nid_01_00000000.wav,0\n", "line 2: found 'id_01_00000000.wav,0'; expected"),
        (LIST.replace(",1\n", ",2\n"), "line 2: found '2'; expected 0 or 1"),
        (LIST.replace(",1\n", ",0\n"), "line 2: found label 0 for anomaly_id_01.*expected the two to agree"),
        (LIST + "id_05_00000000.wav,normal_id_05_00000008.wav,0\n", "line 6: found id_05_00000000 a second time"),
        (LIST + "fan\n", "line 6: found the machine fan a second time"),
        ("<!doctype html>\n", "line 1: found '<!doctype html>'; expected a machine"),
    ],
)
def test_a_list_of_another_form_is_named_by_its_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(CorruptedFile, match=f"eval_data_list.csv, {message}"):
        read_2020([text(tmp_path / "eval_data_list.csv", content)])


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "eval_data_list.csv").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(CorruptedFile, match=r"eval_data_list\.csv: this is no CSV file"):
        read_2020([tmp_path / "eval_data_list.csv"])


def test_attaches_2020_and_keeps_the_recordings_names(tmp_path: Path) -> None:
    names = ["id_01_00000000.wav", "id_01_00000001.wav", "normal_id_00_00000000.wav", "anomaly_id_00_00000000.wav"]
    folder = touch(tmp_path / "fan", *names)
    assert not is_attached(DCASE2020, folder)
    path = attach(DCASE2020, folder, [text(tmp_path / "eval_data_list.csv", LIST)])
    assert path == folder / "test_labels.csv"
    assert path.read_text() == "file,label\nid_01_00000000.wav,anomaly\nid_01_00000001.wav,normal\n"
    assert sorted(p.name for p in (folder / "test").iterdir()) == sorted(names)
    assert is_attached(DCASE2020, folder)


def lists_2022(folder: Path, labels: str, domains: str) -> list[Path]:
    name = "ground_truth_ToyCar_section_03_test.csv"
    return [
        text(folder / "ground_truth_data" / name, labels),
        text(folder / "ground_truth_domain" / name, domains),
    ]


def rows(values: str, name: str = "section_03_") -> str:
    return "".join(f"{name}{number:04d}.wav,{value}\n" for number, value in enumerate(values))


@pytest.mark.parametrize("on_disk", ["section_03_", "section_03_test_"])
@pytest.mark.parametrize("in_list", ["section_03_", "section_03_test_"])
def test_attaches_2022_under_both_names(tmp_path: Path, on_disk: str, in_list: str) -> None:
    folder = touch(tmp_path / "ToyCar", *(f"{on_disk}{number:04d}.wav" for number in range(4)))
    touch(folder, "section_00_source_test_normal_0000_car_A1.wav")
    path = attach(DCASE2022, folder, lists_2022(tmp_path, rows("1010", in_list), rows("0011", in_list)))
    assert path.read_text().splitlines() == [
        "file,label,domain",
        f"{on_disk}0000.wav,anomaly,source",
        f"{on_disk}0001.wav,normal,source",
        f"{on_disk}0002.wav,anomaly,target",
        f"{on_disk}0003.wav,normal,target",
    ]
    assert is_attached(DCASE2022, folder)


def test_attribute_files_that_say_otherwise_are_not_looked_at(tmp_path: Path) -> None:
    """In the evaluator's repository, about half of the toys' attribute names contradict the official labels."""
    folder = touch(tmp_path / "ToyCar", "section_03_0000.wav")
    (folder / "attributes_03.csv").write_text(
        "file_name,d1p,d1v,file_name_with_full_attributes\n"
        "section_03_0000.wav,car,A1,section_03_target_test_anomaly_0000_car_A1.wav\n"
    )
    path = attach(DCASE2022, folder, lists_2022(tmp_path, rows("0"), rows("0")))
    assert path.read_text() == "file,label,domain\nsection_03_0000.wav,normal,source\n"


@pytest.mark.parametrize(
    ("labels", "domains", "message"),
    [
        (rows("01"), rows("0"), "section_03_0001 in only one of its lists"),
        (rows("0x"), rows("00"), r"ground_truth_data/ground_truth_ToyCar_section_03_test\.csv, line 2: found 'x'"),
        (rows("00"), rows("02"), r"ground_truth_domain/.*, line 2: found '2'; expected 0 or 1"),
        (rows("0") + rows("0"), rows("0"), "line 2: found section_03_0000 a second time"),
        ("section_03_0000.wav,0,1\n", rows("0"), "line 1: found 'section_03_0000.wav,0,1'; expected file,number"),
    ],
)
def test_lists_of_2022_that_are_wrong(tmp_path: Path, labels: str, domains: str, message: str) -> None:
    with pytest.raises(CorruptedFile, match=message):
        read_2022(lists_2022(tmp_path, labels, domains))


@pytest.mark.parametrize(
    ("labelled", "message"),
    [
        (["id_01_00000000"], r"1 of 2 evaluation clips have no labels \(the first is id_01_00000001\)"),
        (
            ["id_01_00000000", "id_01_00000001", "id_01_00000002"],
            r"1 of 3 evaluation clips have no recordings \(the first is id_01_00000002\)",
        ),
        ([], "2 of 2 evaluation clips have no labels"),
    ],
)
def test_labels_and_recordings_must_fit(tmp_path: Path, labelled: list[str], message: str) -> None:
    folder = touch(tmp_path / "fan", "id_01_00000000.wav", "id_01_00000001.wav")
    with pytest.raises(AsdRayError, match=message):
        write_labels(DCASE2020, folder, dict.fromkeys(labelled, ("normal", "none")))
    assert not (folder / "test_labels.csv").exists()


def test_a_clip_under_both_names_is_an_error(tmp_path: Path) -> None:
    folder = touch(tmp_path / "fan", "section_03_0000.wav", "section_03_test_0000.wav")
    with pytest.raises(AsdRayError, match=r"section_03_test_0000\.wav: this clip is there as section_03_0000\.wav too"):
        hidden_clips(DCASE2022, folder)


def test_labels_that_lack_a_recording_or_cannot_be_read_are_not_attached(tmp_path: Path) -> None:
    folder = touch(tmp_path / "fan", "id_01_00000000.wav", "id_01_00000001.wav")
    text(folder / "test_labels.csv", "file,label\nid_01_00000000.wav,normal\n")
    assert not is_attached(DCASE2020, folder)
    text(folder / "test_labels.csv", "file,label\nid_01_00000000.wav,normal\nid_01_00000001.wav,odd\n")
    assert not is_attached(DCASE2020, folder)
    text(folder / "test_labels.csv", "file,label\nid_01_00000000.wav,normal\nid_01_00000001.wav,anomaly\n")
    assert is_attached(DCASE2020, folder)
