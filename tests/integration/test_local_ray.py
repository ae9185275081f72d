"""The Ray that a command starts for itself."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from asd_ray.memory import ONE_ARENA
from tests.integration.conftest import environment

pytestmark = pytest.mark.integration

PROGRAM = """
import json, os, sys
from asd_ray.cluster.session import local_tasks

def found(chunk):
    return dict(os.environ), "torch" in sys.modules

if __name__ == "__main__":
    with local_tasks(500) as run:
        [answer] = run(found, [0])
    print(json.dumps(answer))
"""


def test_its_processes_start_with_one_arena_and_import_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment(), timeout=120
    )
    variables, heavy = json.loads(done.stdout.splitlines()[-1])
    assert variables.items() >= ONE_ARENA.items()
    assert not heavy, "torch was imported before a task asked for it"
