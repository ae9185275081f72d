from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asd_ray.data import layouts
from asd_ray.data.clips import Clip
from asd_ray.data.layouts.folder import find_extra
from asd_ray.errors import AsdRayError


def make(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / path, np.full(50, 0.1), 8000)
    return root


def scan(root: Path) -> dict[str, Clip]:
    return {clip.path: clip for clip in layouts.scan(root, "folder")}


@pytest.mark.parametrize(
    ("path", "machine", "machine_id", "split", "label", "domain"),
    [
        ("fan/a.wav", "fan", "00", "train", "normal", "none"),
        ("fan/train/a.ogg", "fan", "00", "train", "normal", "none"),
        ("fan/id_03/train/a.wav", "fan", "03", "train", "normal", "none"),
        ("fan/test/a.flac", "fan", "00", "test", "unknown", "none"),
        ("fan/test/anomaly/a.WAV", "fan", "00", "test", "anomaly", "none"),
        ("fan/Test/normal/a.wav", "fan", "00", "test", "normal", "none"),
        ("fan/target/train/a.wav", "fan", "00", "train", "normal", "target"),
        ("fan/unit 7/night/test/abnormal/a.wav", "fan", "unit 7-night", "test", "anomaly", "none"),
        ("fan/id_00/abnormal/a.wav", "fan", "00", "test", "anomaly", "none"),
        ("a.wav", "set", "00", "train", "normal", "none"),
        ("test/anomalous/a.wav", "set", "00", "test", "anomaly", "none"),
        ("fan/test/train_7_normal.wav", "fan", "00", "test", "unknown", "none"),
    ],
)
def test_what_folders_say(
    tmp_path: Path, path: str, machine: str, machine_id: str, split: str, label: str, domain: str
) -> None:
    [clip] = scan(make(tmp_path / "set", path)).values()
    assert (clip.machine, clip.id, clip.split, clip.label, clip.domain) == (machine, machine_id, split, label, domain)
    assert (clip.path, clip.part, clip.sample_rate, clip.frames) == (path, "none", 8000, 50)


@pytest.mark.parametrize("normal", [0, 1, 5, 12])
def test_clips_without_a_split_folder_are_divided(tmp_path: Path, normal: int) -> None:
    make(
        tmp_path,
        *(f"fan/id_00/normal/{n}.wav" for n in range(normal)),
        *(f"fan/id_00/abnormal/{n}.wav" for n in range(4)),
    )
    clips = scan(tmp_path).values()
    assert all(clip.split == "test" for clip in clips if clip.label == "anomaly")
    assert sum(clip.label == "normal" and clip.split == "test" for clip in clips) == min(4, normal // 2)
    assert len(clips) == normal + 4


def test_the_division_depends_on_names_alone(tmp_path: Path) -> None:
    paths = [f"fan/{label}/{n}.wav" for label in ("normal", "abnormal") for n in range(6)]
    first, second = scan(make(tmp_path / "a", *paths)), scan(make(tmp_path / "b", *reversed(paths)))
    assert first == second
    assert {clip.split for clip in first.values() if clip.label == "normal"} == {"train", "test"}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("fan/train/test/a.wav", "both train and test"),
        ("fan/test/normal/abnormal/a.wav", "both normal and anomaly"),
        ("fan/train/abnormal/a.wav", "say anomaly, but training clips are normal"),
    ],
)
def test_folders_that_contradict_each_other(tmp_path: Path, path: str, message: str) -> None:
    make(tmp_path, "fan/train/good.wav", path)
    with pytest.raises(AsdRayError, match=f"{path}: .*{message}"):
        layouts.scan(tmp_path, "folder")


def test_formats_that_are_not_read_are_reported(tmp_path: Path) -> None:
    make(tmp_path, "fan/a.wav")
    (tmp_path / "fan/b.mp3").write_bytes(b"ID3")
    (tmp_path / "fan/notes.txt").write_text("")
    clips, [problem] = layouts.index(tmp_path, "folder")
    assert len(clips) == 1
    assert (problem.severity, problem.kind, problem.path) == ("warning", "format", "fan/b.mp3")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "a.wav")
    make(tmp_path / "set", "fan/b.wav")
    os.symlink(tmp_path / "elsewhere", tmp_path / "set/pump")
    os.symlink(tmp_path / "set", tmp_path / "set/fan/again")
    assert list(scan(tmp_path / "set")) == ["fan/b.wav", "pump/a.wav"]


def test_machines_are_chosen(tmp_path: Path) -> None:
    make(tmp_path, "fan/a.wav", "pump/a.wav", "fan/train/abnormal/contradiction.wav")
    assert [clip.machine for clip in layouts.scan(tmp_path, "folder", ["pump"])] == ["pump"]
    with pytest.raises(AsdRayError, match=r"data.machines: valve not found in .*; there: fan, pump"):
        layouts.scan(tmp_path, "folder", ["valve"])


def test_a_list_says_it_all(tmp_path: Path) -> None:
    make(tmp_path, "x/1.wav", "2.flac", "x/3.wav", "not listed.wav")
    (tmp_path / "clips.csv").write_text(
        "path,machine,id,split,label,domain,part,attributes\n"
        "x/1.wav,saw,,,,,,\n"
        '2.flac,saw,7,test,anomaly,target,eval,"oak, wet"\n'
        "x/3.wav,saw,7,test,,,dev,\n"
    )
    clips = scan(tmp_path)
    assert list(clips) == ["2.flac", "x/1.wav", "x/3.wav"]
    assert clips["x/1.wav"] == Clip("x/1.wav", "saw", "00", "train", "normal", "none", "none", "", 8000, 50, 1)
    assert clips["2.flac"] == Clip("2.flac", "saw", "7", "test", "anomaly", "target", "eval", "oak, wet", 8000, 50, 1)
    assert (clips["x/3.wav"].label, clips["x/3.wav"].part) == ("unknown", "dev")


def test_a_list_of_the_two_required_columns(tmp_path: Path) -> None:
    make(tmp_path, "a.wav")
    (tmp_path / "clips.csv").write_text("machine,path\nsaw,a.wav\n")
    assert scan(tmp_path)["a.wav"].machine == "saw"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\na.wav\n", "line 1: found the columns path; expected path, machine and, where wanted, id, split"),
        ("path,machine,lable\na.wav,saw,normal\n", "line 1: found the columns path, machine, lable"),
        ("path,machine\na.wav,saw\n,saw\n", "line 3: found nothing under path"),
        ("path,machine\na.wav,saw\na.wav,saw\n", "line 3: found a.wav a second time"),
        ("path,machine\na.wav,saw\n./a.wav,saw\n", "line 3: found a.wav a second time"),
        ("path,machine\n../a.wav,saw\n", r"line 2: found the path \.\./a.wav; expected one below"),
        ("path,machine\na.wav,s/aw\n", "line 2: found / in the machine or id"),
        ("path,machine\n/etc/a.wav,saw\n", r"line 2: found the path /etc/a.wav; expected one below"),
        ("path,machine,split\na.wav,saw,dev\n", "line 2: found split 'dev'; expected train or test"),
        ("path,machine,label\na.wav,saw,anomaly\n", "line 2: found label 'anomaly'; expected normal"),
        ("path,machine,split,label\na.wav,saw,test,bad\n", "line 2: found label 'bad'; expected normal or anomaly"),
        ("path,machine,domain\na.wav,saw,lab\n", "line 2: found domain 'lab'"),
        ("path,machine,part\na.wav,saw,test\n", "line 2: found part 'test'"),
    ],
)
def test_a_list_that_does_not_validate(tmp_path: Path, text: str, message: str) -> None:
    make(tmp_path, "a.wav")
    (tmp_path / "clips.csv").write_text(text)
    with pytest.raises(AsdRayError, match=f"clips.csv, {message}"):
        layouts.scan(tmp_path, "folder")


def test_a_listed_file_that_is_not_there(tmp_path: Path) -> None:
    make(tmp_path, "a.wav")
    (tmp_path / "clips.csv").write_text("path,machine\na.wav,saw\nb.wav,saw\n")
    with pytest.raises(AsdRayError, match=r"b\.wav: No such file"):
        layouts.scan(tmp_path, "folder")
    assert len(layouts.scan(tmp_path, "folder", skip_bad=True)) == 1


def test_every_recording_for_pretraining_is_found_once(tmp_path: Path) -> None:
    first = tmp_path / "a" / "deep" / "rain.wav"
    second = tmp_path / "b" / "street.flac"
    make(tmp_path, "a/deep/rain.wav", "b/street.flac")
    (tmp_path / "a" / "notes.txt").write_text("no audio")
    clips = find_extra([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "a" / "deep")])
    assert [clip.path for clip in clips] == [str(first), str(second)]
    assert {(clip.machine, clip.split, clip.label, clip.sample_rate, clip.frames) for clip in clips} == {
        ("extra", "extra", "unknown", 8000, 50)
    }


def test_a_folder_for_pretraining_that_is_missing_or_without_audio_says_so(tmp_path: Path) -> None:
    with pytest.raises(AsdRayError, match="no such folder"):
        find_extra([str(tmp_path / "nowhere")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(AsdRayError, match="no audio in it"):
        find_extra([str(tmp_path / "empty")])


def test_an_unreadable_recording_for_pretraining_ends_or_is_left_out(tmp_path: Path) -> None:
    good = tmp_path / "good.wav"
    make(tmp_path, "good.wav")
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    with pytest.raises(AsdRayError, match=r"bad\.wav.*data\.skip_bad"):
        find_extra([str(tmp_path)])
    assert [clip.path for clip in find_extra([str(tmp_path)], skip_bad=True)] == [str(good)]
