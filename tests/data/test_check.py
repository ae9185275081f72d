from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from asd_ray.data import audio
from asd_ray.data.check import Report, check
from asd_ray.errors import AsdRayError

REAL = Path(__file__).parents[3] / "shared" / "data" / "real-mini"
ODD = REAL.parent / "real-odd"


def noise(seed: str, frames: int = 1000, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(list(seed.encode())).uniform(-0.5, 0.5, (frames, channels))


def write(root: Path, path: str, samples: np.ndarray | None = None, rate: int = 16000, subtype: str = "PCM_16") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(root / path, noise(path) if samples is None else samples, rate, subtype=subtype)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A flawless small set of two IDs of a machine that no public set has."""
    for machine_id in ("00", "01"):
        for number in range(4):
            write(tmp_path, f"saw/train/normal_id_{machine_id}_{number:08d}.wav")
            write(tmp_path, f"saw/test/normal_id_{machine_id}_{number:08d}.wav")
            write(tmp_path, f"saw/test/anomaly_id_{machine_id}_{number:08d}.wav")
    return tmp_path


def found(report: Report) -> list[tuple[str, str, str]]:
    return [(problem.severity, problem.kind, problem.path) for problem in report.problems]


@pytest.mark.parametrize("deep", [False, True])
def test_a_flawless_set_has_no_problems(root: Path, deep: bool) -> None:
    report = check(root, deep=deep)
    assert (report.layout, report.problems, report.ok, len(report.clips)) == ("dcase2020", [], True, 24)
    expected = pd.DataFrame(
        [("saw", i, s, "none", 4, a, 0) for i in ("00", "01") for s, a in (("train", 0), ("test", 4))],
        columns=["machine", "id", "split", "domain", "normal", "anomaly", "unknown"],
    )
    pd.testing.assert_frame_equal(report.table, expected)


def test_json_is_for_scripts(root: Path) -> None:
    write(root, "saw/train/normal_id_00_00000009.wav", noise("x", 8000), rate=8000)
    content = json.loads(check(root, deep=True).to_json())
    assert content["machines"] == ["saw"]
    assert (content["ok"], content["clips"], content["layout"]) == (True, 25, "dcase2020")
    assert content["sample_rates"] == {"16000": 24, "8000": 1}
    assert content["channels"] == {"1": 25}
    assert content["seconds"] == {"total": pytest.approx(2.5), "min": 0.0625, "median": 0.0625, "max": 1.0}
    assert content["table"][0] == {
        "machine": "saw",
        "id": "00",
        "split": "train",
        "domain": "none",
        "normal": 5,
        "anomaly": 0,
        "unknown": 0,
    }
    assert [problem["kind"] for problem in content["problems"]] == ["length", "rate"]
    assert set(content["problems"][0]) == {"severity", "kind", "path", "what", "expected"}


def test_unreadable_and_truncated_clips_are_errors(root: Path) -> None:
    (root / "saw/train/normal_id_00_00000000.wav").write_bytes(b"no recording at all")
    path = root / "saw/train/normal_id_00_00000001.wav"
    path.write_bytes(path.read_bytes()[:-500])
    (root / "saw/train/normal_id_00_00000002.wav").write_bytes(b"")
    report = check(root)
    assert found(report) == [
        ("error", "empty", "saw/train/normal_id_00_00000002.wav"),
        ("error", "truncated", "saw/train/normal_id_00_00000001.wav"),
        ("error", "unreadable", "saw/train/normal_id_00_00000000.wav"),
    ]
    assert not report.ok
    assert len(report.clips) == 21


def test_nothing_readable_is_a_report_and_no_crash(root: Path) -> None:
    for path in root.rglob("*.wav"):
        path.write_bytes(b"RIFF")
    report = check(root, deep=True)
    assert not report.ok
    assert report.table.empty
    assert json.loads(report.to_json())["seconds"] is None
    assert len(report.problems) == 25


def test_headers_that_differ_from_the_others(root: Path) -> None:
    write(root, "saw/train/normal_id_00_00000010.wav", noise("a", 2756), rate=44100)
    write(root, "saw/train/normal_id_00_00000011.wav", noise("b", channels=2))
    write(root, "saw/train/normal_id_00_00000012.wav", noise("c", 1101))
    write(root, "saw/train/normal_id_00_00000013.wav", noise("d", 899))
    write(root, "saw/train/normal_id_00_00000014.wav", noise("e", 1100))
    report = check(root)
    assert found(report) == [
        ("warning", "channels", "saw/train/normal_id_00_00000011.wav"),
        ("warning", "length", "saw/train/normal_id_00_00000012.wav"),
        ("warning", "length", "saw/train/normal_id_00_00000013.wav"),
        ("warning", "rate", "saw/train/normal_id_00_00000010.wav"),
    ]
    assert report.ok


def test_a_set_of_several_channels_throughout_is_one_note(tmp_path: Path) -> None:
    for split, label, n in (("train", "normal", 0), ("test", "normal", 1), ("test", "anomaly", 2)):
        write(tmp_path, f"saw/{split}/{label}_id_00_0000000{n}.wav", noise(str(n), channels=8))
    assert found(check(tmp_path)) == [("note", "channels", ".")]


def test_eleven_second_toy_cars_are_no_more_than_a_note(root: Path) -> None:
    for number in range(3):
        write(root, f"ToyCar/train/normal_id_01_{number:08d}.wav", noise(str(number), 1100))
        write(root, f"ToyCar/test/normal_id_01_{number:08d}.wav", noise(f"n{number}", 1000 if number else 1100))
        write(root, f"ToyCar/test/anomaly_id_01_{number:08d}.wav", noise(f"a{number}", 1100))
    lengths = [problem for problem in check(root).problems if problem.kind == "length"]
    assert [(problem.severity, problem.path) for problem in lengths] == [("note", "ToyCar")]


def test_ids_that_cannot_be_trained_on_or_evaluated(root: Path) -> None:
    for kind in ("train/normal", "test/normal"):
        write(root, f"saw/{kind}_id_02_00000000.wav")
    for kind in ("test/normal", "test/anomaly"):
        write(root, f"saw/{kind}_id_03_00000000.wav")
    for kind in ("train/normal", "test/anomaly"):
        write(root, f"saw/{kind}_id_04_00000000.wav")
    write(root, "saw/train/normal_id_05_00000000.wav")
    write(root, "saw/train/normal_id_06_00000000.wav")
    write(root, "saw/test/id_06_00000000.wav")
    report = check(root)
    assert found(report) == [
        ("error", "no training clips", "saw 03"),
        ("warning", "labels", "saw 06"),
        ("warning", "no anomaly test clips", "saw 02"),
        ("warning", "no normal test clips", "saw 04"),
        ("note", "no test clips", "saw 05"),
    ]


def test_a_set_in_which_no_id_can_be_evaluated(tmp_path: Path) -> None:
    write(tmp_path, "saw/train/normal_id_00_00000000.wav")
    write(tmp_path, "saw/test/id_00_00000000.wav")
    report = check(tmp_path)
    assert ("error", "nothing to evaluate", ".") in found(report)
    (tmp_path / "saw/test_labels.csv").write_text("file,label\nid_00_00000000.wav,anomaly\n")
    write(tmp_path, "saw/test/normal_id_00_00000001.wav")
    assert check(tmp_path).problems == []


def test_names_and_folders_that_are_not_understood(root: Path) -> None:
    write(root, "saw/train/strange.wav")
    write(root, "saw/train/anomaly_id_00_00000009.wav")
    write(root, "saw/old/normal_id_00_00000000.wav")
    write(root, "papers/figure.wav")
    assert found(check(root)) == [
        ("error", "name", "saw/train/anomaly_id_00_00000009.wav"),
        ("warning", "name", "saw/train/strange.wav"),
        ("note", "folder", "papers"),
        ("note", "folder", "saw/old"),
    ]


@pytest.mark.parametrize("deep", [False, True])
def test_silence(root: Path, deep: bool) -> None:
    late = np.concatenate([np.zeros((5000, 1)), noise("late")])
    write(root, "saw/train/normal_id_00_00000000.wav", np.zeros(6000))
    write(root, "saw/train/normal_id_00_00000001.wav", late)
    for number in (2, 3):
        write(root, f"saw/train/normal_id_00_0000000{number}.wav", np.full(6000, 1e-5 * number), subtype="FLOAT")
    silent = [problem for problem in check(root, deep=deep).problems if problem.kind == "silent"]
    numbers = [0, 2, 3] if deep else [0]  # without decoding, only digital silence can be seen
    assert [problem.path for problem in silent] == [f"saw/train/normal_id_00_0000000{n}.wav" for n in numbers]
    assert {(problem.severity, problem.what) for problem in silent} == {("warning", "silent")}


def test_deep_finds_a_constant_and_a_dead_microphone(root: Path) -> None:
    write(root, "saw/train/normal_id_00_00000000.wav", np.full(1000, 0.25))
    dead = noise("dead", channels=4)
    dead[:, [1, 3]] = 0
    write(root, "saw/train/normal_id_00_00000001.wav", dead)
    what = [problem.what for problem in check(root, deep=True).problems if problem.kind == "silent"]
    assert what == ["constant", "silent in channel 1, 3"]


def test_a_peak_below_80_db_is_silence(root: Path) -> None:
    for number, peak in enumerate((0.9e-4, 1.1e-4)):
        faint = peak * np.sign(noise("faint"))
        write(root, f"saw/train/normal_id_00_0000000{number}.wav", faint, subtype="FLOAT")
    assert found(check(root, deep=True)) == [("warning", "silent", "saw/train/normal_id_00_00000000.wav")]


def test_deep_finds_nan_and_clipping(root: Path) -> None:
    broken = noise("nan").astype(np.float32)
    broken[3], broken[999] = np.nan, np.inf
    write(root, "saw/train/normal_id_00_00000000.wav", broken, subtype="FLOAT")
    write(root, "saw/train/normal_id_00_00000001.wav", np.clip(4 * noise("loud"), -1, 1))
    write(root, "saw/train/normal_id_00_00000002.wav", np.append(noise("peak", 1999), 1.0)[:1000])
    assert check(root).problems == []
    nan, clipped = check(root, deep=True).problems
    assert (nan.severity, nan.kind, nan.path) == ("error", "not finite", "saw/train/normal_id_00_00000000.wav")
    assert nan.what.startswith("2 NaN")
    assert (clipped.severity, clipped.kind) == ("warning", "clipping")
    share = float(clipped.what.split("%")[0]) / 100
    assert share == pytest.approx(np.mean(np.abs(4 * noise("loud")) >= 1), abs=0.01)


def test_deep_finds_clips_with_the_same_samples(root: Path) -> None:
    same = noise("same")
    twice = np.round(noise("twice") * 32767).astype(np.int16)  # integers, so that flac and wav hold the same
    write(root, "saw/train/normal_id_00_00000000.wav", same)
    write(root, "saw/test/normal_id_01_00000000.wav", same, subtype="PCM_16")
    write(root, "saw/train/normal_id_00_00000001.flac", twice)
    write(root, "saw/train/normal_id_01_00000003.wav", twice)
    write(root, "saw/test/normal_id_00_00000002.wav", noise("both"))
    write(root, "saw/test/anomaly_id_00_00000002.wav", noise("both"))
    write(root, "saw/train/normal_id_01_00000000.wav", np.zeros(1000))
    write(root, "saw/test/normal_id_01_00000001.wav", np.zeros(1000))
    assert not any(kind in ("leakage", "duplicate", "contradiction") for _, kind, _ in found(check(root)))
    (root / "saw/train/normal_id_00_00000001.wav").unlink()
    report = check(root, deep=True)
    assert [entry for entry in found(report) if entry[1] != "silent"] == [
        ("error", "contradiction", "saw/test/normal_id_00_00000002.wav"),
        ("error", "leakage", "saw/test/normal_id_01_00000000.wav"),
        ("warning", "duplicate", "saw/train/normal_id_01_00000003.wav"),
    ]
    leak = next(problem for problem in report.problems if problem.kind == "leakage")
    assert leak.what == "the same samples as saw/train/normal_id_00_00000000.wav"


def test_the_same_numbers_at_another_rate_or_in_other_channels_are_no_duplicates(root: Path) -> None:
    same = noise("same", 2000)
    write(root, "saw/train/normal_id_00_00000000.wav", same)
    write(root, "saw/test/normal_id_00_00000000.wav", same, rate=32000)
    write(root, "saw/test/normal_id_00_00000001.wav", same.reshape(1000, 2))
    assert not {"leakage", "duplicate"} & {kind for _, kind, _ in found(check(root, deep=True))}


def test_deep_finds_what_no_header_shows(root: Path) -> None:
    (root / "saw/train/normal_id_00_00000000.wav").unlink()
    path = root / "saw/train/normal_id_00_00000000.flac"
    soundfile.write(path, noise("flac", 60000), 16000)
    path.write_bytes(path.read_bytes()[:-20000])
    assert not any(severity == "error" for severity, _, _ in found(check(root)))
    assert found(check(root, deep=True))[0][::2] == ("error", "saw/train/normal_id_00_00000000.flac")


def test_public_sets_are_compared_with_their_published_counts(tmp_path: Path) -> None:
    for kind in ("train/normal_id_00", "test/normal_id_00", "test/anomaly_id_00", "train/normal_id_01"):
        write(tmp_path, f"fan/{kind}_00000000.wav")
    counts = [problem for problem in check(tmp_path).problems if problem.kind == "count"]
    assert [(problem.severity, problem.path, problem.what, problem.expected.split()[0]) for problem in counts] == [
        ("warning", "fan, additional training", "1 clips", "2,846"),
        ("warning", "fan, development test", "2 clips", "1,875"),
        ("warning", "fan, development train", "1 clips", "3,675"),
        ("note", "fan, evaluation test", "0 clips", "1,342"),
    ]
    (tmp_path / "synthetic.json").write_text("{}")
    assert not any(problem.kind == "count" for problem in check(tmp_path).problems)


def test_a_whole_published_section_has_no_count_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 training and 200 test clips; the headers are not what is tested here."""
    monkeypatch.setattr(audio, "read_header", lambda path: audio.Header(16000, 160000, 1))
    monkeypatch.setattr(audio, "decode", lambda path, frames=-1: (np.ones((1, 1), np.float32), 16000))
    (tmp_path / "bearing/train").mkdir(parents=True)
    (tmp_path / "bearing/test").mkdir()
    for domain, train in (("source", 990), ("target", 10)):
        for number in range(train):
            (tmp_path / f"bearing/train/section_00_{domain}_train_normal_{number:04d}_a.wav").touch()
        for label in ("normal", "anomaly"):
            for number in range(50):
                (tmp_path / f"bearing/test/section_00_{domain}_test_{label}_{number:04d}_a.wav").touch()
    report = check(tmp_path)
    assert (report.layout, report.problems) == ("dcase2022", [])
    assert list(report.table["normal"]) == [990, 10, 50, 50]
    (tmp_path / "bearing/test/section_00_source_test_normal_0000_a.wav").unlink()
    assert [problem.what for problem in check(tmp_path).problems] == ["199 clips"]


def test_2021_is_not_measured_by_2022(tmp_path: Path) -> None:
    write(tmp_path, "fan/train/section_00_source_train_normal_0000_a.wav")
    for label in ("normal", "anomaly"):
        write(tmp_path, f"fan/source_test/section_00_source_test_{label}_0000.wav")
    assert check(tmp_path).problems == []


def test_the_summary_groups_by_severity_and_kind(root: Path) -> None:
    for number in range(3):
        write(root, f"saw/train/strange{number}.wav")
    (root / "saw/train/normal_id_00_00000000.wav").write_bytes(b"")
    summary = check(root).summary
    assert list(summary[["severity", "kind", "count", "path"]].itertuples(index=False, name=None)) == [
        ("error", "empty", 1, "saw/train/normal_id_00_00000000.wav"),
        ("warning", "name", 3, "saw/train/strange0.wav"),
    ]


@pytest.mark.parametrize("deep", [False, True])
def test_progress_ends_at_its_total(root: Path, deep: bool) -> None:
    steps: list[tuple[int, int]] = []
    check(root, deep=deep, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 48) for done in range(1, 49)]


def test_machines_and_layout_can_be_given(root: Path) -> None:
    write(root, "drill/train/normal_id_00_00000000.wav")
    assert {clip.machine for clip in check(root, machines=["saw"]).clips} == {"saw"}
    assert check(root, "folder").layout == "folder"
    with pytest.raises(AsdRayError, match=r"no recording of the layout dcase2022.*It looks like data.layout dcase2020"):
        check(root, "dcase2022")


def test_where_there_is_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(AsdRayError, match="nowhere: there is no such folder"):
        check(tmp_path / "nowhere")
    with pytest.raises(AsdRayError, match="found no wav, flac or ogg file"):
        check(tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real recordings are not here")
def test_the_real_recordings() -> None:
    report = check(REAL, deep=True)
    assert (report.layout, report.ok, len(report.clips)) == ("dcase2020", True, 215)
    assert {problem.kind for problem in report.problems} == {"count"}
    assert report.table[["normal", "anomaly", "unknown"]].sum().tolist() == [148, 67, 0]


@pytest.mark.skipif(not ODD.is_dir(), reason="the real recordings are not here")
def test_the_real_recording_of_eight_channels() -> None:
    report = check(ODD)
    assert ("note", "channels", ".") in found(report)
    assert (report.layout, report.clips[0].machine, report.clips[0].channels) == ("folder", "real-odd", 8)
