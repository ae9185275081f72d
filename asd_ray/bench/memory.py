"""How much memory a piece of work takes at its peak, over all processes that take part."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from typing import Any

MISSING = "psutil is not installed; pip install 'asd-ray[bench]'"


def peak_memory(work: Callable[[], Any], seconds: float = 0.2) -> tuple[float, float]:
    """Runs ``work`` and watches this process and all its descendants, among them a local Ray's.

    What is counted is unique memory (USS): pages that no other process has. So a library or a block of Ray's object
    store that several processes share counts nowhere, and no page counts twice.

    Args:
        work: does it.
        seconds: between two looks; a shorter peak may be missed.

    Returns:
        GiB before, and at the highest look.

    Raises:
        ModuleNotFoundError: there is no psutil.
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
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it ended meanwhile
            total += process.memory_full_info().uss
    return total / 2**30


def available_memory() -> float:
    """GiB that new processes can take without swapping; infinite where psutil is not there to tell."""
    try:
        import psutil
    except ModuleNotFoundError:
        return math.inf
    return psutil.virtual_memory().available / 2**30
