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

import numpy as np
import pandas as pd
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from asd_ray.cli.detector import evaluate, score
from asd_ray.detector.detector import Detector
from asd_ray.errors import AsdRayError, ConfigError
from tests.detector.tiny_detector import save_tiny_detector, tiny_study, write_recordings

app = typer.Typer()
app.command()(score)
app.command()(evaluate)


def call(*arguments: object) -> tuple[int, str, str]:
    """Runs a command in this process; returns exit code, standard output and standard error. Raises what it raises."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, AsdRayError):
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stdout, result.stderr


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


def test_ray_is_not_needed_and_the_bar_stays_out_of_the_scores(detector: Path, data: Path) -> None:
    """In a process of its own whose standard error is a terminal."""
    code = (
        "import sys; from asd_ray import cli_score; import typer; app = typer.Typer(); app.command()(cli_score.score)\n"
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


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Path, Path]:
    """A small evaluation set of two machines with its labels in the names, and a submission for it."""
    from asd_ray.challenge.submission import write_submission

    rng, root, rows = np.random.default_rng(0), tmp_path / "data", []
    for machine in ("fan", "pump"):
        for machine_id in ("00", "02"):
            for label in ("normal", "anomaly"):
                for number in range(6):
                    path = root / machine / "test" / f"{label}_id_{machine_id}_{number:08d}.wav"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    soundfile.write(path, np.zeros(80), 8000)
                    value = float(rng.normal(label == "anomaly"))
                    rows.append((path.relative_to(root).as_posix(), machine, machine_id, value, int(value > 0.5)))
    scores = pd.DataFrame(rows, columns=["path", "machine", "id", "score", "decision"])
    write_submission(tmp_path / "scores", scores, "dcase2020")
    return root, tmp_path / "scores"


def test_evaluate_prints_the_official_table(labelled: tuple[Path, Path]) -> None:
    data, scores = labelled
    code, out, _ = call("evaluate", "--scores", scores, "--data", data, "--resamples", 50)
    assert code == 0
    document = json.loads(call("evaluate", "--scores", scores, "--data", data, "--resamples", 50, "--json")[1])
    assert (document["layout"], document["max_fpr"], document["clips"]) == ("dcase2020", 0.1, 48)
    assert [(row["machine"], row["id"]) for row in document["ids"]] == [
        ("fan", "00"),
        ("fan", "02"),
        ("pump", "00"),
        ("pump", "02"),
    ]
    average = document["averages"][0]
    assert average["auc"] == pytest.approx(np.mean([row["auc"] for row in document["ids"]]))
    assert average["part"] == "dev"
    lines = [line.split() for line in out.splitlines()]
    [last] = [line for line in lines if line[:2] == ["all", "mean"]]
    assert last[2] == f"{100 * average['auc']:.2f}"
    assert last[3:6] == [f"{100 * average['auc_low']:.1f}", "to", f"{100 * average['auc_high']:.1f}"]
    for name in ("mauc", "pooled_auc", "precision", "recall", "f1"):
        assert f"{100 * average[name]:.2f}" in last
    assert sum(line[1:2] == ["mean"] for line in lines) == 3
    assert "part dev" in out
    assert "arithmetic" in out


def test_evaluate_by_domains_prints_the_official_score(tmp_path: Path) -> None:
    from asd_ray.challenge.submission import write_submission

    rng, rows = np.random.default_rng(1), []
    for label in ("normal", "anomaly"):
        for domain in ("source", "target"):
            for number in range(8):
                path = f"fan/test/section_00_{domain}_test_{label}_{number:04d}.wav"
                (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(tmp_path / "data" / path, np.zeros(80), 8000)
                rows.append((path, "fan", "00", float(rng.normal(label == "anomaly"))))
    write_submission(tmp_path / "s", pd.DataFrame(rows, columns=["path", "machine", "id", "score"]), "dcase2022")
    arguments = [
        "evaluate",
        "--scores",
        tmp_path / "s",
        "--data",
        tmp_path / "data",
        "--resamples",
        0,
        "--max-fpr",
        0.2,
    ]
    document = json.loads(call(*arguments, "--json")[1])
    average = document["averages"][0]
    values = [row["auc"] for row in document["ids"] if row["domain"] != "all"]
    values += [row["pauc"] for row in document["ids"] if row["domain"] == "all"]
    assert average["auc_pauc"] == pytest.approx(len(values) / sum(1 / value for value in values))
    out = call(*arguments)[1]
    assert f"Official score {100 * average['auc_pauc']:.2f} (AUC source {100 * average['auc_source']:.2f}" in out
    assert "p = 0.2" in out
    assert "95 %" not in out


def test_evaluate_of_one_machine(labelled: tuple[Path, Path]) -> None:
    data, scores = labelled
    (scores / "anomaly_score_fan_id_02.csv").unlink()
    with pytest.raises(AsdRayError, match=r"there is no score for fan/test/.*_id_02_.*of fan 02"):
        call("evaluate", "--scores", scores, "--data", data)
    code, out, _ = call("evaluate", "--scores", scores, "--data", data, "--machine", "pump", "--resamples", 0)
    assert code == 0
    assert "fan" not in out


def test_evaluate_an_undefined_id(labelled: tuple[Path, Path]) -> None:
    """An ID without anomalies has no AUC: null in JSON, a dash in the table, left out of the means."""
    data, scores = labelled
    for path in (data / "fan" / "test").glob("anomaly_id_02_*.wav"):
        path.unlink()
    for path in scores.glob("*_fan_id_02.csv"):
        path.write_text("".join(line for line in path.open() if line.startswith("normal")))
    document = json.loads(call("evaluate", "--scores", scores, "--data", data, "--json", "--resamples", 9)[1])
    row = document["ids"][1]
    assert (row["id"], row["auc"], row["auc_low"], row["recall"]) == ("02", None, None, None)
    assert document["averages"][0]["n_defined"] == 3
    assert "left out: 1." in call("evaluate", "--scores", scores, "--data", data, "--resamples", 9)[1]


def test_evaluate_wrong_usage(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    data, scores = labelled
    with pytest.raises(ConfigError, match="--max-fpr: found 1; expected a number above 0 and below 1"):
        call("evaluate", "--scores", scores, "--data", data, "--max-fpr", 1)
    with pytest.raises(AsdRayError, match="no known layout"):
        call("evaluate", "--scores", scores, "--data", scores)
    with pytest.raises(AsdRayError, match="there is no score file"):
        call("evaluate", "--scores", data, "--data", data)
