"""New processes with a given number of threads, and a new local Ray, for benchmarks."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.synchronize import Barrier
from threading import BrokenBarrierError
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

_others: Barrier | None = None


def in_processes(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], threads: int = 1) -> list[Any]:
    """Call a function in several new processes at the same time.

    A new process has no imports, memory or caches yet, and its libraries start with the given number of threads.

    Args:
        function: function of a module; it may call :func:`wait_for_others` before it measures.
        arguments: arguments of each call; one process per entry.
        threads: threads of torch, BLAS and numba in each process.

    Returns:
        The results, in the order of ``arguments``.
    """
    spawn = get_context("spawn")
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    try:
        count = len(arguments)
        with ProcessPoolExecutor(count, spawn, _begin, (spawn.Barrier(count), threads)) as pool:
            futures = [pool.submit(_call, function, one) for one in arguments]
            errors = [error for future in futures if (error := future.exception()) is not None]
            for error in sorted(errors, key=lambda error: isinstance(error, BrokenBarrierError)):
                raise error  # a cause rather than a broken barrier
            return [future.result() for future in futures]
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def in_new_process(function: Callable[..., Any], *arguments: Any, threads: int = 1) -> Any:
    """Call a function in one new process; see :func:`in_processes`."""
    return in_processes(function, [arguments], threads)[0]


def wait_for_others() -> None:
    """Wait until all processes of :func:`in_processes` have called this."""
    assert _others is not None
    _others.wait()


def _begin(others: Barrier, threads: int) -> None:
    import torch

    global _others
    _others = others
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the benchmark is killed, so that it does not keep the cores busy."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return function(*arguments)
    except BaseException:
        assert _others is not None
        _others.abort()  # else the others would wait for ever
        raise


@contextlib.contextmanager
def local_ray() -> Iterator[None]:
    """A new local Ray whose workers have started; its output is hidden."""
    import ray

    from asd_ray.cluster.session import ray_session
    from asd_ray.config import ResourceConfig

    with ray_session(None, "bench", ResourceConfig()):
        ray.get([ray.remote(_nothing).remote() for _ in range(os.cpu_count() or 1)])
        yield


def _nothing() -> None:
    """An empty task: when it returns, a worker has started."""
