"""Studies sent to a Ray that asks for a token: followed, sent twice, failing, shown, and watched by a Prometheus."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml

from tests.integration.conftest import SECONDS, environment, free_port

pytestmark = pytest.mark.integration

STUDY: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "layout": "synthetic",
        "synthetic": {"machines": 1, "ids": 2, "train": 4, "test_normal": 4, "test_anomaly": 4},
    },
    "features": {"n_mels": 32, "seconds": 1},
    "method": {
        "pretrain": {"encoder": "test_resnet", "epochs": 1, "batch_size": 8, "dim": 16, "queue_size": 32},
        "finetune": {"epochs": 1, "batch_size": 8},
    },
    "search": {"num_trials": 1},
}
DASHBOARD = Path(__file__).parents[2] / "cluster" / "metrics" / "grafana" / "dashboards" / "asd_ray.json"


@dataclass(frozen=True)
class Guarded:
    """A Ray with token authentication, and who knows its token."""

    dashboard: str
    token: Path
    nodes: Path  # Ray's list of them for Prometheus

    def call(self, *arguments: object, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs ``asd-ray`` with the token, on this Ray, unless ``env`` says otherwise."""
        command = [sys.executable, "-m", "asd_ray", *map(str, arguments), "--address", self.dashboard]
        variables = environment() | {"RAY_AUTH_TOKEN_PATH": str(self.token)} | env
        variables.pop("RAY_AUTH_MODE", None)  # a user with a token needs nothing else
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # a socket's path must stay short
    token = folder / "token"
    token.write_text("0123456789abcdef" * 4)
    dashboard = free_port()
    command = ["ray", "start", "--head", "--block", f"--port={free_port()}", "--num-cpus=2", f"--temp-dir={folder}/ray"]
    command += [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={free_port()}"]
    command += [f"--metrics-export-port={free_port()}", "--disable-usage-stats"]
    variables = environment() | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    log = folder / "head.log"
    with log.open("w") as sink, subprocess.Popen(command, env=variables, stdout=sink, stderr=sink) as process:
        deadline = time.monotonic() + SECONDS
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        nodes = folder / "ray" / "prom_metrics_service_discovery.json"
        yield Guarded(f"http://127.0.0.1:{dashboard}", token, nodes)
        processes = psutil.Process(process.pid).children(recursive=True)
        process.kill()  # ended by its own rules, it would wait half a minute for actors that stay
    for left in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def prometheus(guarded: Guarded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any] | None]:
    """Asks a Prometheus that scrapes the Ray; None where there is no Prometheus."""
    if shutil.which("prometheus") is None:
        yield None
        return
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((DASHBOARD.parents[2] / "prometheus.yml").read_text())
    config["global"]["scrape_interval"] = "1s"
    config["scrape_configs"][0]["file_sd_configs"][0] |= {"files": [str(guarded.nodes)], "refresh_interval": "1s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]

    def ask(query: str) -> Any:
        answer = requests.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, timeout=60).json()
        assert answer["status"] == "success", answer
        return [series["metric"] for series in answer["data"]["result"]]

    with subprocess.Popen(command) as process:
        yield ask
        process.terminate()


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}))
    return path


@pytest.fixture(scope="module")
def sent(
    guarded: Guarded, prometheus: object, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """A study that was sent and followed to its end: its file, its folder, what the command printed."""
    folder = tmp_path_factory.mktemp("sent")
    study = write(folder)
    printed = guarded.call("study", "submit", study, "--out", folder / "out", "--env", "SECRET", SECRET="hunter2")
    return study, folder / "out", printed


def test_a_study_is_sent_and_followed_to_its_end(
    sent: tuple[Path, Path, subprocess.CompletedProcess[str]], guarded: Guarded
) -> None:
    _, out, printed = sent
    assert re.search(r"^job tiny-[0-9a-f]{10} submitted$", printed.stdout, re.MULTILINE)
    assert f"dashboard:    {guarded.dashboard}/#/jobs/tiny-" in printed.stdout
    assert "trial 0 complete: objective" in printed.stdout
    assert "\x1b" not in printed.stdout  # lines to read, not a picture that is redrawn
    assert printed.stdout.rstrip().endswith("succeeded")
    assert (out / "report.html").exists()
    assert json.loads((out / "env.json").read_text())["git_revision"] != ""
    assert "hunter2" not in printed.stdout + printed.stderr


def test_a_study_that_succeeded_is_not_run_again(
    sent: tuple[Path, Path, subprocess.CompletedProcess[str]], guarded: Guarded
) -> None:
    study, out, _ = sent
    before = (out / "report.html").stat().st_mtime_ns
    printed = json.loads(guarded.call("study", "submit", study, "--out", out, "--json").stdout)
    assert (printed["status"], printed["submitted"], printed["out"]) == ("SUCCEEDED", False, str(out))
    [job] = json.loads(guarded.call("study", "status", "tiny", "--json").stdout)
    assert (job["job"], job["status"]) == (printed["job"], "SUCCEEDED")
    assert (out / "report.html").stat().st_mtime_ns == before


def test_a_study_that_fails_on_the_cluster_fails_here_and_status_shows_it(guarded: Guarded, tmp_path: Path) -> None:
    study = write(tmp_path, name="broken", data={"layout": "dcase2020", "root": "/nowhere/at/all"})
    waiting = guarded.call("study", "submit", study, "--out", tmp_path / "out", "--no-wait")
    assert "/nowhere/at/all: there is no such folder" not in waiting.stdout
    followed = guarded.call("study", "submit", study, "--out", tmp_path / "out", code=1)
    assert re.search(r"^error: job broken-[0-9a-f]{10}(-2)? failed: .*/nowhere/at/all", followed.stderr, re.MULTILINE)
    jobs = json.loads(guarded.call("study", "status", "broken", "--json").stdout)
    assert {job["status"] for job in jobs} == {"FAILED"}
    assert "/nowhere/at/all: there is no such folder" in jobs[0]["log"][-1]
    assert re.search(r"^broken +FAILED ", guarded.call("study", "status").stdout, re.MULTILINE)


def test_a_wrong_or_missing_token_is_one_sentence(guarded: Guarded, tmp_path: Path) -> None:
    study, nobody = write(tmp_path), tmp_path / "home"
    nobody.mkdir()
    wrong = guarded.call("study", "submit", study, code=1, RAY_AUTH_TOKEN="f" * 64)
    missing = guarded.call("study", "submit", study, code=1, RAY_AUTH_TOKEN_PATH="", HOME=os.fspath(nobody))
    for failed, what in ((wrong, "refused the one that was sent"), (missing, "none was sent")):
        [line] = failed.stderr.strip().splitlines()
        assert line.startswith(f"error: {guarded.dashboard}: this Ray asks for a token and {what};")


def test_every_panel_shows_the_trial(
    sent: tuple[Path, Path, subprocess.CompletedProcess[str]], prometheus: Callable[[str], Any] | None
) -> None:
    if prometheus is None:
        pytest.skip("no prometheus on this machine")
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            if "validation_loss" in target["expr"] or "knn_auc" in target["expr"]:
                continue  # not measured in a study this short
            query = target["expr"].replace("$study", "tiny").replace("$__range", "10m")
            series = prometheus(f"last_over_time(({re.sub(r'[$][a-zA-Z]+', '.*', query)})[10m:1s])")
            assert {labels["study"] for labels in series} == {"tiny"}, panel["title"]
            if "trial" in target["legendFormat"]:
                assert {(labels["trial"], labels["repeat"]) for labels in series} == {("0", "0")}, panel["title"]
