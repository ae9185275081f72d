"""Peak memory of a piece of work, summed over all its processes."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from typing import Any

MISSING = "psutil is not installed; pip install 'asd-ray[bench]'"


def peak_memory(work: Callable[[], Any], seconds: float = 0.2) -> tuple[float, float]:
    """Run ``work`` and sample the memory of this process and all its descendants, those of a local Ray included.

    Unique memory (USS) counts: pages that no other process has. A library or a block of Ray's object store that
    several processes share does not count, and no page counts twice.

    Args:
        work: function to run.
        seconds: time between two samples; a shorter peak may be missed.

    Returns:
        GiB before the work, and the highest sample.

    Raises:
        ModuleNotFoundError: psutil is not installed.
    """
    before = unique_memory()
    peaks = [before]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(seconds):
            peaks.append(unique_memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        work()
        peaks.append(unique_memory())
    finally:
        ended.set()
        watcher.join()
    return before, max(peaks)


def unique_memory() -> float:
    """Unique memory of this process and its descendants in GiB."""
    import psutil

    total = 0
    this = psutil.Process()
    for process in [this, *this.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # the process has ended
            total += process.memory_full_info().uss
    return total / 2**30


def available_memory() -> float:
    """Memory in GiB that new processes can use without swapping; infinite without psutil."""
    try:
        import psutil
    except ModuleNotFoundError:
        return math.inf
    return psutil.virtual_memory().available / 2**30
