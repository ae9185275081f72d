"""What a process does about memory: the C library's allocator keeps what training frees, and Python looks for rings of
dead objects less often."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
"""What the environment of a process must hold when it starts so that :func:`keep_freed_memory` reaches its threads, in
which Ray runs trials and Train's workers: by default glibc gives a thread memory of its own, and returns pieces of
64 MiB of that to the system whenever all of one is free. A step of a network in a thread took half as long again."""


def keep_freed_memory() -> bool:
    """Makes this process keep the memory that it frees, for what it allocates next.

    By default glibc asks the system for every large block and gives it back when it is freed. A training step on a CPU
    allocates and frees gigabytes of activations, always the same ones, and the system must clear them page by page each
    time: in fp32 that was almost half of a three-input os_scl step. The price is memory: what a process needed at its
    peak stays with it until it ends, and that peak, measured over such steps, is a tenth to a quarter higher. Calling
    it again changes nothing. For threads see :data:`ONE_ARENA`.

    Returns:
        Whether the C library has taken it: False where it is not glibc, and nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))


def give_back_memory() -> None:
    """Gives back what :func:`keep_freed_memory` and torch have kept: between two trials in the same process."""
    import torch  # the command line imports this module

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def collect_rarely() -> None:
    """Makes Python's collector look less often.

    Hundreds of thousands of objects come with torch, Ray and timm, and none of them ever goes: to look through them
    again and again while they are imported, and once more when the process ends, costs one second of five.
    """
    gc.set_threshold(50_000, 20, 100)
    atexit.register(gc.freeze)
