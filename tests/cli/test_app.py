from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from asd_ray.cli import app as cli
from tests.cli.conftest import Call

COMMANDS = [
    ["quickstart"],
    ["data"],
    ["data", "synth"],
    ["data", "calibrate"],
    ["data", "check"],
    ["data", "download"],
    ["features"],
    ["features", "build"],
    ["features", "show"],
    ["train"],
    ["score"],
    ["evaluate"],
    ["bench"],
    ["study"],
    ["study", "validate"],
    ["study", "run"],
    ["study", "submit"],
    ["study", "status"],
    ["study", "compare"],
    ["study", "report"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(call: Call, command: list[str]) -> None:
    code, out, _ = call(*command, "--help")
    assert code == 0
    assert "Usage: " in out
    assert re.search(r"[A-Z][a-z].*\.", out)


def test_no_line_of_help_is_cut(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in ([], ["data"], ["features"], ["study"]):
        _, out, _ = call(*command, "--help")
        assert "..." not in out.partition("Commands:")[2]
        assert max(map(len, out.splitlines())) <= 80


def test_commands_are_in_the_order_in_which_a_user_needs_them(call: Call) -> None:
    _, out, _ = call("--help")
    names = [line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line.strip()]
    assert names == ["quickstart", "data", "features", "study", "train", "score", "evaluate", "bench"]


def test_help_does_not_load_what_it_does_not_need() -> None:
    heavy = "import sys, asd_ray.cli.app; print({'torch', 'ray', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_module_and_version() -> None:
    done = subprocess.run([sys.executable, "-m", "asd_ray", "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"asd-ray \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize("arguments", [["study", "run"], ["study", "fly"], ["quickstart", "--speed", "9"]])
def test_wrong_usage_exits_with_2(call: Call, arguments: list[str]) -> None:
    assert call(*arguments)[0] == 2


def test_validate_prints_the_resolved_study_its_space_and_its_budget(call: Call) -> None:
    study = Path(__file__).parents[2] / "studies" / "quickstart.yaml"
    code, out, _ = call("study", "validate", study, "--set", "search.num_trials=3")
    assert code == 0
    assert "temperature: 0.2" in out
    assert re.search(r"method.pretrain.alpha +0.1 to 0.6", out)
    assert "# budget: 3 trials" in out
    code, out, _ = call("study", "validate", study, "--json")
    assert json.loads(out)["study"]["name"] == "quickstart"


def test_an_invalid_study_file_exits_with_2_and_one_sentence(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: x\nmethod: {pretrain: {momentum: 1.5}}\n")
    code, out, err = call("study", "run", path, "--out", tmp_path / "out")
    assert code == 2
    assert err == f"error: {path}: method.pretrain.momentum: should be less than or equal to 1, but got 1.5.\n"
    assert not out
    assert not (tmp_path / "out").exists()


def test_a_misspelt_encoder_exits_with_2_before_anything_starts(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: x\nmethod: {pretrain: {encoder: resnet5O}}\n")
    for command in (["validate", path], ["run", path, "--out", tmp_path / "out"]):
        code, _, err = call("study", *command)
        assert code == 2
        assert "method.pretrain.encoder: timm has no architecture 'resnet5O'; close are resnet50" in err
    assert not (tmp_path / "out").exists()


def test_a_missing_data_folder_is_found_before_anything_starts(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(f"name: x\ndata: {{layout: dcase2020, root: {tmp_path}/nowhere}}\n")
    code, _, err = call("study", "run", path, "--out", tmp_path / "out")
    assert code == 1
    assert f"{tmp_path}/nowhere" in err
    assert "Traceback" not in err


def test_a_data_set_without_labels_says_where_they_may_be(call: Call, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "set" / "fan" / split).mkdir(parents=True)
        soundfile.write(tmp_path / "set" / "fan" / split / "normal_id_00_00000000.wav", [0.0] * 16_000, 16_000)
    path = tmp_path / "study.yaml"
    path.write_text(f"name: x\ndata: {{layout: folder, root: {tmp_path}/set}}\n")
    code, _, err = call("study", "run", path, "--out", tmp_path / "out")
    assert code == 1
    assert err == (
        f"error: {tmp_path}/set: read as data.layout folder, none of its 1 test clips has a known label; a study needs "
        "normal and anomalous ones; choose the layout that tells them, or add such clips.\n"
    )


def test_status_of_a_folder_without_a_study_exits_with_2(call: Call, tmp_path: Path) -> None:
    code, _, err = call("study", "status", tmp_path)
    assert code == 2
    assert "holds no study" in err


def test_synth_and_check(call: Call, tmp_path: Path) -> None:
    sizes = ["--machines", 1, "--ids", 2, "--train", 2, "--test-normal", 1, "--test-anomaly", 1, "--seed", 3]
    code, out, _ = call("data", "synth", "--out", tmp_path / "set", *sizes, "--json")
    assert code == 0
    assert json.loads(out)["clips"] == 8
    wavs = sorted((tmp_path / "set").rglob("*.wav"))
    assert len(wavs) == 8
    assert soundfile.info(wavs[0]).duration == 10
    assert (tmp_path / "set" / "faults.csv").exists()
    code, out, _ = call("data", "check", tmp_path / "set")
    assert code == 0
    assert "fan" in out
    wavs[0].write_bytes(wavs[0].read_bytes()[:500])
    code, out, _ = call("data", "check", tmp_path / "set", "--json")
    assert code == 1
    assert wavs[0].name in out


def test_synth_refuses_what_it_cannot_make(call: Call, tmp_path: Path) -> None:
    code, _, err = call("data", "synth", "--out", tmp_path, "--machines", 99)
    assert code == 2
    assert "--machines" in err


def test_check_of_a_folder_that_is_not_there(call: Call, tmp_path: Path) -> None:
    code, _, err = call("data", "check", tmp_path / "nowhere")
    assert code == 1
    assert "nowhere" in err


def test_an_unexpected_error_is_one_line_unless_debug(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("asd_ray.config.study_file.load_study", broken)
    code, _, err = call("study", "validate", "x.yaml")
    assert code == 1
    assert err.startswith("internal error: ZeroDivisionError: division by zero")
    monkeypatch.setattr(sys, "argv", ["asd-ray", "--debug", "study", "validate", "x.yaml"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


@pytest.mark.parametrize("disguise", [KeyboardInterrupt, SystemError])
def test_an_interruption_exits_with_130_whatever_it_comes_out_as(
    call: Call, monkeypatch: pytest.MonkeyPatch, disguise: type[BaseException]
) -> None:
    def interrupted(*arguments: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise disguise from None

    monkeypatch.setattr(cli.Commands, "interrupted", False)
    monkeypatch.setattr("asd_ray.config.study_file.load_study", interrupted)
    code, _, err = call("study", "validate", "x.yaml")
    assert code == 130
    assert err == "interrupted; what is finished is kept: the same command goes on from there.\n"
