"""The C library's memory allocator, told to keep what training frees."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Makes this process keep the memory that it frees, for what it allocates next.

    By default glibc asks the system for every large block and gives it back when it is freed. A training step on a CPU
    allocates and frees gigabytes of activations, always the same ones, and the system must clear them page by page each
    time: in fp32 that was almost half of a three-input os_scl step. The price is memory: what a process needed at its
    peak stays with it until it ends, and that peak, measured over such steps, is a tenth to a quarter higher. Calling
    it again changes nothing.

    Returns:
        Whether the C library has taken it: False where it is not glibc, and nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
