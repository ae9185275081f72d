from __future__ import annotations

import csv
from collections.abc import Iterable
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.challenge.submission import read_decisions, read_scores, write_submission
from asd_ray.errors import AsdRayError


def table(paths: Iterable[str], ids: Iterable[str], machine: str = "fan") -> pd.DataFrame:
    paths = list(paths)
    return pd.DataFrame(
        {"path": paths, "machine": machine, "id": list(ids), "score": np.arange(len(paths)) / 3, "decision": 1}
    )


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.csv"))


def test_the_files_of_2020(tmp_path: Path) -> None:
    scores = table(
        ["fan/test/normal_id_02_1.wav", "fan/test/anomaly_id_02_7.wav", "fan/test/normal_id_00_1.wav"], "220"
    )
    scores["id"] = "0" + scores["id"]
    write_submission(tmp_path, scores.drop(columns="decision"), "dcase2020")
    assert names(tmp_path) == ["anomaly_score_fan_id_00.csv", "anomaly_score_fan_id_02.csv"]
    # Sorted by file name, every digit, LF, no header.
    text = (tmp_path / "anomaly_score_fan_id_02.csv").read_bytes()
    assert text == b"anomaly_id_02_7.wav,0.3333333333333333\nnormal_id_02_1.wav,0.0\n"


def test_decisions_have_files_of_their_own(tmp_path: Path) -> None:
    scores = table(["fan/test/section_03_0001.wav", "fan/test/section_03_0000.wav"], ["03", "03"])
    scores["decision"] = [1, 0]
    write_submission(tmp_path, scores, "dcase2022")
    assert names(tmp_path) == ["anomaly_score_fan_section_03_test.csv", "decision_result_fan_section_03_test.csv"]
    text = (tmp_path / "decision_result_fan_section_03_test.csv").read_text()
    assert text == "section_03_0000.wav,0\nsection_03_0001.wav,1\n"


def test_the_files_of_2021_are_told_apart_by_domain(tmp_path: Path) -> None:
    paths = [f"fan/{domain}_test/section_03_{domain}_test_0000.wav" for domain in ("source", "target")]
    write_submission(tmp_path, table(paths, ["03", "03"]).drop(columns="decision"), "dcase2022")
    assert names(tmp_path) == [f"anomaly_score_fan_section_03_{domain}_test.csv" for domain in ("source", "target")]
    assert read_scores(tmp_path)["id"].tolist() == ["03", "03"]


def test_synthetic_sets_are_written_by_their_names(tmp_path: Path) -> None:
    write_submission(tmp_path / "a", table(["fan/test/normal_id_00_00000000.wav"], ["00"]), "synthetic")
    write_submission(tmp_path / "b", table(["fan/test/section_00_source_test_normal_0000.wav"], ["00"]), "synthetic")
    assert names(tmp_path / "a")[0] == "anomaly_score_fan_id_00.csv"
    assert names(tmp_path / "b")[0] == "anomaly_score_fan_section_00_test.csv"


def test_development_ids_do_not_lie_among_the_evaluation_ids(tmp_path: Path) -> None:
    evaluation = table(["fan/test/id_01_0.wav", "fan/test/id_03_0.wav"], ["01", "03"])
    both = pd.concat([evaluation, table(["fan/test/normal_id_00_0.wav"], ["00"])])
    write_submission(tmp_path, both, "dcase2020")
    assert names(tmp_path) == [
        "anomaly_score_fan_id_01.csv",
        "anomaly_score_fan_id_03.csv",
        "decision_result_fan_id_01.csv",
        "decision_result_fan_id_03.csv",
        "development/anomaly_score_fan_id_00.csv",
        "development/decision_result_fan_id_00.csv",
    ]
    official_scores(tmp_path, "fan", {"01": 1, "03": 1})
    # Alone, the development set is the submission; what an earlier one left is gone, other files stay.
    (tmp_path / "notes.csv").write_text("mine")
    write_submission(tmp_path, both[both["id"] == "00"].drop(columns="decision"), "dcase2020")
    assert names(tmp_path) == ["anomaly_score_fan_id_00.csv", "notes.csv"]


def official_scores(team: Path, machine: str, counts: dict[str, int]) -> dict[str, list[float]]:
    """What the official evaluator of 2020 takes from a team's folder: it ends at a count that is not the labels'."""
    found = {}
    for path in sorted(team.glob(f"anomaly_score_{machine}_id*")):
        rows = sorted(csv.reader(path.open()), key=itemgetter(0))
        machine_id = path.name.split("_id_")[1][:2]
        assert len(rows) == counts.get(machine_id, 0), "Err:anomaly_score may be missing"
        found[machine_id] = [float(row[1]) for row in rows]
    return found


def test_clips_of_one_name_are_called_by_their_paths(tmp_path: Path) -> None:
    scores = table(["fan/test/a/x.wav", "fan/test/b/x.wav", "fan/test/y.wav"], ["00", "00", "01"])
    write_submission(tmp_path, scores, "folder")
    assert read_scores(tmp_path)["file"].tolist() == ["fan/test/a/x.wav", "fan/test/b/x.wav", "y.wav"]


@settings(deadline=None, max_examples=50)
@given(
    scores=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="/"), min_size=1, max_size=12),
        st.floats(allow_nan=False, allow_infinity=False),
        min_size=1,
        max_size=6,
    )
)
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, scores: dict[str, float]) -> None:
    folder = tmp_path_factory.mktemp("submission")
    paths = [f"Toy Car/test/{name}.wav" for name in scores]
    written = pd.DataFrame({"path": paths, "machine": "Toy Car", "id": "07", "score": list(scores.values())})
    write_submission(folder, written, "dcase2020")
    read = read_scores(folder)
    assert dict(zip(read["file"], read["score"], strict=True)) == {f"{name}.wav": s for name, s in scores.items()}
    assert set(zip(read["machine"], read["id"], strict=True)) == {("Toy Car", "07")}


@pytest.mark.parametrize(
    ("name", "machine", "machine_id"),
    [
        ("anomaly_score_ToyCar_id_05.csv", "ToyCar", "05"),
        ("anomaly_score_fan_section_03_test.csv", "fan", "03"),
        ("anomaly_score_fan_section_03.csv", "fan", "03"),
        ("anomaly_score_fan_section_03_target_test.csv", "fan", "03"),
        ("anomaly_score_DCASE2023T2ToyTank_section_00_test_seed13711_id(0_)_Eval.csv", "ToyTank", "00"),
        ("anomaly_score_DCASE2024T2BrushlessMotor_section_00_test_seed1_id_0_Eval.csv", "BrushlessMotor", "00"),
        ("anomaly_score_my_fan_id_A-2.csv", "my_fan", "A-2"),
    ],
)
def test_official_file_names(tmp_path: Path, name: str, machine: str, machine_id: str) -> None:
    (tmp_path / name).write_text("x.wav,1\n")
    assert read_scores(tmp_path).iloc[0, :4].tolist() == [machine, machine_id, "x.wav", 1.0]
    assert not len(read_decisions(tmp_path))


def test_bom_carriage_returns_and_empty_lines_are_let_pass(tmp_path: Path) -> None:
    (tmp_path / "anomaly_score_fan_id_00.csv").write_bytes(b"\xef\xbb\xbfa.wav,1e-3\r\nb.wav, -2\r\n\r\n")
    (tmp_path / "decision_result_fan_id_00.csv").write_bytes(b"a.wav,0.0\rb.wav,1\r")
    read = read_scores(tmp_path)
    assert read["file"].tolist() == ["a.wav", "b.wav"]
    assert read["score"].tolist() == [0.001, -2.0]
    assert read["place"].tolist()[1].endswith("anomaly_score_fan_id_00.csv, line 2")
    assert read_decisions(tmp_path)["decision"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.wav,1\na.wav,1\n", r"id_00\.csv, line 2: found a\.wav a second time, after .*line 1"),
        ("a.wav,1\nb.wav,nan\n", r"line 2: found the score 'nan'; expected a finite number"),
        ("a.wav,inf\n", r"line 1: found the score 'inf'"),
        ("file,score\na.wav,1\n", r"line 1: found the score 'score'; .* \(and no header\)"),
        ("a.wav;1\n", r"line 1: found 'a\.wav;1'; expected a file name and a score, separated by a comma"),
        ("a.wav\t1\n", r"line 1: found 'a\.wav\\t1'"),
        ("a.wav,1,2\n", r"line 1: found 'a\.wav,1,2'"),
        (",1\n", r"line 1: found ',1'"),
        ("", r"id_00\.csv: the file is empty"),
        (b"\xff\xfe", r"id_00\.csv: this is no CSV file in UTF-8"),
    ],
)
def test_each_error_names_file_and_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    (tmp_path / "anomaly_score_fan_id_00.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AsdRayError, match=message):
        read_scores(tmp_path)


def test_decisions_are_0_or_1(tmp_path: Path) -> None:
    (tmp_path / "decision_result_fan_id_00.csv").write_text("a.wav,0.5\n")
    with pytest.raises(AsdRayError, match=r"line 1: found the decision '0\.5'; expected 0 \(normal\) or 1"):
        read_decisions(tmp_path)


def test_folders_without_scores(tmp_path: Path) -> None:
    with pytest.raises(AsdRayError, match="there is no score file; expected anomaly_score_<machine>"):
        read_scores(tmp_path)
    with pytest.raises(AsdRayError, match="there is no such folder"):
        read_scores(tmp_path / "nowhere")
    (tmp_path / "anomaly_score_fan.csv").write_text("a.wav,1\n")
    with pytest.raises(AsdRayError, match="not a file name of the challenge"):
        read_scores(tmp_path)
