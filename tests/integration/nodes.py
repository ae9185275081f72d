"""Several Ray nodes on one machine, each a ``ray start`` of its own, that tests add and kill."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import psutil

from tests.integration.conftest import environment, free_port
from tests.integration.killing import SECONDS

# A raylet whose port refuses to answer is dead after 5 s instead of Ray's 15; a machine that is busy may take its time.
PATIENCE = {"RAY_health_check_period_ms": "1000", "RAY_raylet_start_wait_time_s": "120"}
OWN = ["--block", "--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0"]
OWN += [f"--object-store-memory={100 * 2**20}"]


class Nodes:
    """A Ray of its own: a head without cores, and the nodes that are added.

    Args:
        folder: short; Ray's sockets lie in there.
        variables: of every node's environment.
    """

    def __init__(self, folder: str, variables: dict[str, str]) -> None:
        self.variables = {**environment(), **PATIENCE, **variables}
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.nodes: list[subprocess.Popen[str]] = []
        self.folders = (f"{folder}/{number}" for number in itertools.count())
        dashboard_port = free_port()
        self.dashboard = f"http://127.0.0.1:{dashboard_port}"
        dashboard = ["--include-dashboard=true", f"--dashboard-port={dashboard_port}"]
        self.head = self._start(
            "--head",
            f"--port={port}",
            "--num-cpus=0",
            *dashboard,
        )

    def add(self, *cpus: int) -> None:
        """Starts a node for each number of cores."""
        for number in cpus:
            self.nodes.append(self._start(f"--address={self.address}", f"--num-cpus={number}"))

    def kill(self, node: subprocess.Popen[str]) -> None:
        """SIGKILL of a node's raylet (and, on the head, of the GCS): its other processes notice, and end."""
        services = [child for child in psutil.Process(node.pid).children() if child.name() in ("raylet", "gcs_server")]
        assert services
        for service in services:
            service.kill()
        node.wait(SECONDS)
        if node in self.nodes:
            self.nodes.remove(node)

    def stop(self) -> None:
        left = []
        for node in [*self.nodes, self.head]:
            with contextlib.suppress(psutil.NoSuchProcess):
                left += psutil.Process(node.pid).children(recursive=True)
            node.kill()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=SECONDS)

    def _apart(self) -> list[str]:
        """What several nodes on one machine must not share: the port that takes jobs, and the folder that a job's code
        is unpacked in."""
        return [f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={next(self.folders)}"]

    def _start(self, *options: str) -> subprocess.Popen[str]:
        """Starts a node and waits until it runs. One after the other: they would choose the same names for sockets."""
        node = subprocess.Popen(
            ["ray", "start", *OWN, *self._apart(), *options],
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert node.stdout is not None
        lines = []
        for line in node.stdout:
            lines.append(line)
            if "Ray runtime started" in line:
                threading.Thread(target=node.stdout.read, daemon=True).start()  # a full pipe would stop it
                return node
        raise AssertionError("".join(lines))


@contextlib.contextmanager
def nodes(*cpus: int, **variables: str) -> Iterator[Nodes]:
    """A head, and a node for each number of cores; stopped at the end of the block."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    started = Nodes(folder, variables)
    try:
        started.add(*cpus)
        yield started
    finally:
        started.stop()
        shutil.rmtree(folder, ignore_errors=True)


ACTORS = """
import json, sys
from ray.util.state import list_actors
actors = list_actors(address=sys.argv[1], detail=True, limit=1000)
print(json.dumps([[a.repr_name or a.class_name, a.node_id, a.state, a.class_name] for a in actors]))
"""


def actors_of(address: str) -> list[tuple[str, str, str, str]]:
    """Name, node, state and class of every actor that a Ray has had."""
    done = subprocess.run(
        [sys.executable, "-c", ACTORS, address], env=environment(), capture_output=True, text=True, check=True
    )
    rows: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return [(name, node, state, kind) for name, node, state, kind in rows]
