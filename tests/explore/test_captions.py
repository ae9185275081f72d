from __future__ import annotations

from pathlib import Path

import pytest

from asd_ray.errors import AsdRayError
from asd_ray.explore.captions import caption


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("fan/train/normal_id_02_00000007.wav", "fan 02, normal"),
        ("ToyCar/test/anomaly_id_01_00000000.wav", "ToyCar 01, anomaly"),
        ("fan/test/id_01_00000000.wav", "fan 01, label not known"),
        ("gearbox/test/section_00_target_test_anomaly_0003_v_1.wav", "gearbox 00, anomaly, target domain"),
        ("valve/source_test/section_03_source_test_0000.wav", "valve 03, label not known, source domain"),
    ],
)
def test_names_of_the_challenges_say_who_it_is(tmp_path: Path, path: str, title: str) -> None:
    name = Path(path).name
    assert str(caption(touch(tmp_path / path))) == f"{title}\n{name}"


@pytest.mark.parametrize(
    "path",
    [
        "sound.wav",
        "fan/elsewhere/normal_id_00_00000000.wav",
        "fan/test/sound.wav",
        "fan/train/anomaly_id_00_00000000.wav",  # the name contradicts the folder
    ],
)
def test_a_name_that_says_nothing_is_the_caption(tmp_path: Path, path: str) -> None:
    found = caption(touch(tmp_path / path))
    assert found.clip is None
    assert str(found) == Path(path).name


def test_a_relative_path_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = touch(tmp_path / "fan/test/normal_id_00_00000000.wav")
    monkeypatch.chdir(path.parent)
    assert str(caption(Path(path.name))).startswith("fan 00, normal\n")


def test_side_files_add_the_label_the_domain_and_the_fault(tmp_path: Path) -> None:
    hidden = touch(tmp_path / "fan/test/id_01_00000000.wav")
    (tmp_path / "fan/test_labels.csv").write_text("file,label\nid_01_00000000.wav,anomaly\n")
    (tmp_path / "faults.csv").write_text(
        "path,fault,band,severity\nfan/test/id_01_00000000.wav,leak,high,0.62\npump/test/x.wav,clogging,,\n"
    )
    assert str(caption(hidden)) == "fan 01, anomaly: leak (high, severity 0.62)\nid_01_00000000.wav"
    section = touch(tmp_path / "valve/test/section_03_test_0007.wav")
    (tmp_path / "valve/test_labels.csv").write_text("file,label,domain\nsection_03_0007.wav,normal,target\n")
    assert str(caption(section)) == "valve 03, normal, target domain\nsection_03_test_0007.wav"
    (tmp_path / "fan/test_labels.csv").write_text("file,label\nid_01_00000000.wav,broken\n")
    with pytest.raises(AsdRayError, match=r"test_labels\.csv, line 2"):
        caption(hidden)


def test_a_list_of_clips_above_says_it(tmp_path: Path) -> None:
    mine = touch(tmp_path / "set/a/b/mine.wav")
    other = touch(tmp_path / "set/a/other.wav")
    (tmp_path / "set/clips.csv").write_text("path,machine,id,split,label\na/b/mine.wav,press,7,test,anomaly\n")
    (tmp_path / "set/faults.csv").write_text("path,fault\na/b/mine.wav,crack\n")
    assert str(caption(mine)) == "press 7, anomaly: crack\nmine.wav"
    assert caption(other).clip is None
    (tmp_path / "set/a/clips.csv").write_text("something,else\n1,2\n")  # no list of clips: looked past
    assert str(caption(mine)).startswith("press 7")
