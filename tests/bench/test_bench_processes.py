from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from asd_ray.bench.processes import THREADS, in_processes, wait_for_others

pytestmark = pytest.mark.integration


def about(number: int) -> tuple[int, int, int, list[str | None]]:
    wait_for_others()  # returns only if both run at the same time
    return number, os.getpid(), torch.get_num_threads(), [os.environ.get(name) for name in THREADS]


def fails_or_waits(number: int) -> None:
    if number == 1:
        raise ValueError("this one fails")
    wait_for_others()


def test_calls_run_at_once_in_processes_of_their_own_with_the_threads_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(THREADS[0], "7")
    monkeypatch.delenv(THREADS[1], raising=False)
    first, second = in_processes(about, [(10,), (20,)])
    assert (first[0], second[0]) == (10, 20)
    assert len({first[1], second[1], os.getpid()}) == 3
    assert first[2:] == second[2:] == (1, ["1"] * len(THREADS))
    assert os.environ[THREADS[0]] == "7"
    assert THREADS[1] not in os.environ


def test_a_failure_reaches_the_caller_and_leaves_nobody_waiting() -> None:
    with pytest.raises(ValueError, match="this one fails"):
        in_processes(fails_or_waits, [(0,), (1,)])


WAITS_FOR_EVER = """
import sys, threading

def wait():
    print("there", flush=True)
    threading.Event().wait()

if __name__ == "__main__":
    from asd_ray.bench.processes import in_processes
    in_processes(wait, [()])
"""


def test_processes_end_with_a_benchmark_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "waits.py"
    script.write_text(WAITS_FOR_EVER)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "there\n"
        parent.kill()
        parent.communicate(timeout=60)  # the end of the output that both processes hold
