from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import soundfile

from asd_ray.detector.detector import Detector
from asd_ray.errors import AsdRayError, ConfigError
from tests.cli.call import call
from tests.detector.tiny_detector import save_tiny_detector, tiny_study, write_recordings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    write_recordings(root)
    return root


@pytest.fixture(scope="module")
def detector(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "detector"
    save_tiny_detector(folder, tiny_study(), write_recordings(data))
    return folder


def read(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), dtype={"id": str})


def test_folders_and_files_are_scored_to_standard_output(detector: Path, data: Path) -> None:
    one = data / "fan" / "train" / "normal_id_02_00000000.wav"
    code, out, _ = call("score", "--detector", detector, one, data / "pump", one)
    assert code == 0
    table = read(out)
    files = [one, *sorted((data / "pump" / "train").iterdir())]
    assert table["path"].tolist() == [str(path) for path in files]
    expected = Detector.load(detector).score(files)
    assert table["id"].tolist() == expected["id"].tolist() == ["02", *["00"] * 7]
    for column in ("score", "decision", "threshold"):
        assert table[column].tolist() == expected[column].tolist()  # every digit
    assert call("score", "--detector", detector, one, data / "pump", "--out", "-")[1] == out


def test_a_file_is_written_as_a_whole_and_counted(detector: Path, data: Path, tmp_path: Path) -> None:
    code, out, _ = call("score", "--detector", detector, data, "--out", tmp_path / "new" / "scores.csv")
    table = read((tmp_path / "new" / "scores.csv").read_bytes().decode())
    assert code == 0
    assert b"\r" not in (tmp_path / "new" / "scores.csv").read_bytes()
    assert len(table) == 21
    called = int(table["decision"].sum())
    assert f"21 recordings in {tmp_path / 'new' / 'scores.csv'}, {called} called anomalous" in out
    assert os.listdir(tmp_path / "new") == ["scores.csv"]
    with pytest.raises(ConfigError, match=r"--out .*new: this is a folder"):
        call("score", "--detector", detector, data, "--out", tmp_path / "new")


def test_json(detector: Path, data: Path, tmp_path: Path) -> None:
    document = json.loads(call("score", "--detector", detector, data / "pump", "--json")[1])
    assert [row["path"] for row in document["scores"]] == [str(p) for p in sorted((data / "pump" / "train").iterdir())]
    assert set(document["scores"][0]) == {"path", "machine", "id", "score", "decision", "threshold"}
    assert (document["scored"], document["failed"]) == (7, [])
    out = call("score", "--detector", detector, data / "pump", "--json", "--out", tmp_path / "s.csv")[1]
    assert json.loads(out) | {"anomalous": 0} == {"out": f"{tmp_path}/s.csv", "scored": 7, "anomalous": 0, "failed": []}


def test_broken_recordings_are_named_and_the_others_are_scored(detector: Path, data: Path, tmp_path: Path) -> None:
    good = data / "fan" / "train" / "normal_id_00_00000000.wav"
    folder = tmp_path / "fan" / "test"
    folder.mkdir(parents=True)
    (folder / "id_00_1.wav").write_bytes(good.read_bytes()[:60])
    (folder / "id_00_2.wav").write_bytes(good.read_bytes())
    (folder / "id_00_3.wav").write_text("not audio")
    (folder / "notes.txt").write_text("no recording")
    code, out, err = call("score", "--detector", detector, tmp_path)
    assert code == 1
    assert read(out)["path"].tolist() == [str(folder / "id_00_2.wav")]
    for name in ("id_00_1.wav", "id_00_3.wav"):
        assert f"error: {folder / name}: " in err
    assert "2 of 3 recordings could not be read" in err
    code, out, _ = call("score", "--detector", detector, folder / "id_00_3.wav", "--json")
    assert code == 1
    assert json.loads(out)["scores"] == []
    assert str(folder / "id_00_3.wav") in json.loads(out)["failed"][0]


def test_who_a_recording_is_of_is_settled_before_anything_is_scored(detector: Path, data: Path, tmp_path: Path) -> None:
    samples, rate = soundfile.read(data / "fan" / "train" / "normal_id_00_00000000.wav", dtype="int16")
    soundfile.write(tmp_path / "x.wav", samples, rate)
    with pytest.raises(ConfigError, match=r"x\.wav: cannot tell .*; this detector knows fan 00, fan 02, pump 00"):
        call("score", "--detector", detector, data / "pump", tmp_path / "x.wav")
    code, out, _ = call("score", "--detector", detector, tmp_path / "x.wav", "--machine", "fan", "--id", "02")
    assert code == 0
    assert read(out)[["machine", "id"]].to_numpy().tolist() == [["fan", "02"]]


def test_wrong_usage(detector: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(AsdRayError, match="holds no detector"):
        call("score", "--detector", tmp_path, data)
    with pytest.raises(AsdRayError, match="there is no recording in this folder"):
        call("score", "--detector", detector, tmp_path)
    with pytest.raises(ConfigError, match="--device abacus: torch cannot use it here"):
        call("score", "--detector", detector, data, "--device", "abacus")
    assert call("score", "--detector", detector)[0] == 2


@pytest.mark.integration
def test_ray_is_not_needed_and_the_bar_stays_out_of_the_scores(detector: Path, data: Path) -> None:
    """In a process of its own whose standard error is a terminal."""
    code = (
        "import sys; from asd_ray.cli.detector import score; import typer; app = typer.Typer(); app.command()(score)\n"
        f"app(['--detector', {str(detector)!r}, {str(data)!r}], standalone_mode=False)\n"
        "assert 'torch' in sys.modules and 'ray' not in sys.modules"
    )
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=terminal, env=environment)
    os.close(terminal)
    parts = []
    with contextlib.suppress(OSError):  # a terminal that nobody writes to any more ends with an error
        while part := os.read(main, 65536):
            parts.append(part)
    shown = b"".join(parts).decode()
    os.close(main)
    assert done.returncode == 0, shown
    rows = list(csv.reader(done.stdout.decode().splitlines()))
    assert len(rows) == 22
    assert all(len(row) == 6 for row in rows)
    assert "21/21" in shown
