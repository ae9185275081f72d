"""One local Ray for all integration tests, started as a user starts it; commands run as a user runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
BIN = Path(sys.executable).parent
SECONDS = 400


def environment() -> dict[str, str]:
    """Without what would let a test see a Ray, or settings, of the machine that it runs on."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TUNE_", "ASD_RAY_"))}
    return {**kept, "PATH": f"{BIN}{os.pathsep}{kept['PATH']}", "COLUMNS": "120", "RAY_AUTH_MODE": "disabled"}


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a Ray with two cores, its files in a folder of its own."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a socket's path must stay short
    port = "6399"
    start = ["ray", "start", "--head", f"--port={port}", "--num-cpus=2", f"--temp-dir={folder}"]
    options = ["--include-dashboard=true", "--dashboard-port=8299", "--disable-usage-stats"]
    subprocess.run([*start, *options], env=environment(), check=True, timeout=SECONDS, stdout=subprocess.DEVNULL)
    yield f"127.0.0.1:{port}"
    subprocess.run(["ray", "stop", "--force"], env=environment(), check=False, timeout=SECONDS, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def dashboard(cluster: str) -> str:
    """The dashboard's address of that Ray."""
    return "http://127.0.0.1:8299"


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs ``asd-ray`` with arguments; the test fails if the exit code is not the one expected."""

    def call(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "asd_ray", *map(str, arguments)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call
