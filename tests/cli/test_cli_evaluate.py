from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from asd_ray.errors import AsdRayError, ConfigError
from tests.cli.call import call


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
