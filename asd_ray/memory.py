"""Memory settings of a process: glibc keeps freed blocks, and garbage collection runs less often."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
"""Environment variables that a process needs at its start so that :func:`keep_freed_memory` also works in threads. Ray
runs trials and Train's workers in threads. By default glibc gives a thread memory of its own, and returns each piece of
64 MiB to the system when all of it is free, which made a training step in a thread 1.5 times as long."""


def keep_freed_memory() -> bool:
    """Keep the memory that this process frees, and reuse it for later allocations.

    By default glibc asks the system for every large block and gives it back when it is freed. A training step on a CPU
    allocates and frees gigabytes of activations, and each time the system must clear them page by page: in fp32 that
    was almost half of a three-input os_scl step. The price is memory: a process keeps its peak until it ends, and
    over such steps the peak was 10 to 25 % higher. A second call changes nothing. For threads see :data:`ONE_ARENA`.

    Returns:
        True if the C library accepted the setting; False if it is not glibc, and nothing changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))


def give_back_memory() -> None:
    """Return the memory that :func:`keep_freed_memory` and torch have kept. For use between two trials of a process."""
    import torch  # the command line imports this module

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def collect_rarely() -> None:
    """Run Python's garbage collector less often.

    Importing torch, Ray and timm creates hundreds of thousands of objects that are never freed. Collecting among them
    during the import, and again at the end of the process, costs one second of five.
    """
    gc.set_threshold(50_000, 20, 100)
    atexit.register(gc.freeze)
