"""One local Ray for all integration tests, started as a user starts it; commands run as a user runs them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
BIN = Path(sys.executable).parent
SECONDS = 400


def environment() -> dict[str, str]:
    """Without what would let a test see a Ray, or settings, of the machine that it runs on."""
    others = ("RAY_", "TUNE_", "ASD_RAY_", "OMP_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(others)}
    return {**kept, "PATH": f"{BIN}{os.pathsep}{kept['PATH']}", "COLUMNS": "120", "RAY_AUTH_MODE": "disabled"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Head:
    """A running Ray: its address for drivers, and its dashboard's."""

    address: str
    dashboard: str


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """A Ray with two cores of its own, beside any other on this machine and without touching it."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a socket's path must stay short
    port, dashboard = free_port(), free_port()
    command = ["ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=2", f"--temp-dir={folder}"]
    command += ["--include-dashboard=true", f"--dashboard-port={dashboard}", "--disable-usage-stats"]
    command += [f"--dashboard-agent-listen-port={free_port()}"]  # two Rays on one machine must not share it
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ray runtime started" in line:
                break
        assert process.poll() is None, "".join(lines)
        threading.Thread(target=process.stdout.read, daemon=True).start()  # a full pipe would stop it
        yield Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}")
        processes = psutil.Process(process.pid).children(recursive=True)
        process.kill()  # ended by its own rules, it would wait half a minute for actors that stay
    for left in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
    psutil.wait_procs(processes, timeout=SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster(head: Head) -> str:
    return head.address


@pytest.fixture(scope="session")
def dashboard(head: Head) -> str:
    return head.dashboard


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs ``asd-ray`` with arguments; the test fails if the exit code is not the one expected."""

    def call(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "asd_ray", *map(str, arguments)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call
