from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from asd_ray.bench import memory


def test_a_peak_in_between_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = threading.Event()
    looks = iter([1.0, 3.0])

    def look() -> float:
        value = next(looks, 2.0)
        if value == 2.0:
            seen.set()  # the look before was the watcher's highest
        return value

    monkeypatch.setattr(memory, "unique_memory", look)
    assert memory.peak_memory(lambda: seen.wait(30), seconds=0.001) == (1.0, 3.0)
    assert seen.is_set()


def test_the_watcher_ends_with_work_that_fails() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        memory.peak_memory(lambda: 1 / 0)
    assert threading.active_count() == before


OF_A_CHILD = """
import subprocess, sys
from asd_ray.bench import memory

size = 64 * 2**20
before = memory.unique_memory()
block = b"x" * size
print(memory.unique_memory() - before)
code = f"block = b'x' * {size}; print('there', flush=True); input()"
with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
    child.stdout.readline()
    print(memory.unique_memory() - before)
    child.communicate(b"\\n")
"""


def test_memory_of_this_process_and_of_its_children_counts() -> None:
    """In a process of its own: memory that earlier tests left may be given back at any time."""
    pytest.importorskip("psutil")
    found = subprocess.run([sys.executable, "-c", OF_A_CHILD], check=True, capture_output=True, text=True).stdout
    own, with_child = (float(line) * 2**30 / (64 * 2**20) for line in found.split())
    assert 0.9 < own < 1.1
    assert 1.9 < with_child < 2.8  # the child is an interpreter besides
