from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
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


def test_memory_of_this_process_and_of_its_children_counts() -> None:
    pytest.importorskip("psutil")
    size = 64 * 2**20
    before = memory.unique_memory()
    block = np.ones(size, np.uint8)
    assert memory.unique_memory() - before > 0.9 * size / 2**30
    code = f"block = b'x' * {size}; print('there', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"there\n"
        assert memory.unique_memory() - before > 0.9 * 2 * size / 2**30
        child.communicate(b"\n")
    assert len(block) == size
