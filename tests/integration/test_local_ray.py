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
import gc, json, os, sys
from asd_ray.cluster.session import local_tasks

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


AHEAD = """
import json, os, sys, tempfile, time
import psutil, ray
from pathlib import Path
from ray.tune.execution.class_cache import _ActorClassCache
from asd_ray.config import ResourceConfig
from asd_ray.cluster.session import quiet_terminal, ray_session
from asd_ray.study.spares import start_processes

class Trial:
    def found(self):
        heavy = [name for name in ("torch._dynamo", "timm", "asd_ray.study.trial") if name in sys.modules]
        return os.getpid(), psutil.Process().create_time(), heavy, os.environ.get("OMP_NUM_THREADS")

def workers():
    titles = {p.pid: " ".join(p.cmdline()) for p in psutil.Process().children(recursive=True)}
    return {pid for pid, title in titles.items() if title.startswith("ray::IDLE")}

def found():
    with ray_session(None, "test", ResourceConfig(cpus_per_worker=2)):
        cold = workers()
        start_processes(1)
        while not workers() - cold:
            time.sleep(0.05)
        asked = time.time()
        trial = _ActorClassCache().get(Trial).options(num_cpus=1).remote()
        pid, born, heavy, threads = ray.get(trial.found.remote())
        return {"spare": born < asked, "heavy": heavy, "threads": threads}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, quiet_terminal(Path(folder) / "ray.log"):
        answer = found()
    print(json.dumps(answer))
"""


def test_a_trial_gets_the_process_that_was_started_ahead() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AHEAD], capture_output=True, text=True, check=True, env=environment(), timeout=120
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["spare"], "Tune's runtime environment is not what asd_ray.study.spares makes of it"
    assert answer["heavy"] == ["torch._dynamo", "timm", "asd_ray.study.trial"]
    assert answer["threads"] == "2"
