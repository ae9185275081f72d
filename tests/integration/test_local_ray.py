"""The Ray that a command starts for itself."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from asd_ray.allocator import ONE_ARENA
from tests.integration.conftest import environment

pytestmark = pytest.mark.ray

PROGRAM = """
import gc, json, os, sys
from asd_ray.study.cluster import local_tasks

def found(chunk):
    return gc.get_threshold(), dict(os.environ), "torch" in sys.modules

if __name__ == "__main__":
    with local_tasks(500) as run:
        [answer] = run(found, [0])
    print(json.dumps(answer))
"""


def test_its_processes_start_with_one_arena_and_a_calm_collector() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment(), timeout=120
    )
    thresholds, variables, heavy = json.loads(done.stdout.splitlines()[-1])
    assert thresholds[0] >= 50_000, "asd_ray.ray_process was not imported"
    assert variables.items() >= ONE_ARENA.items()
    assert not heavy, "nor is anything imported that only some processes need"
