"""Where a benchmark measures: in new processes with one thread each, or on a Ray of its own."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

_others: Barrier | None = None


def in_processes(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], threads: int = 1) -> list[Any]:
    """Calls a function in as many new processes as there are arguments, at the same time.

    A new process has imported, allocated and cached nothing yet, and its libraries start with as many threads as asked.

    Args:
        function: found by its name in a module; may call :func:`wait_for_others` before what it measures.
        arguments: of each call.
        threads: that torch, BLAS and numba may use in each process.

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
                raise error  # the first that is no consequence of another
            return [future.result() for future in futures]
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def in_new_process(function: Callable[..., Any], *arguments: Any, threads: int = 1) -> Any:
    """Calls a function in one new process; see :func:`in_processes`."""
    return in_processes(function, [arguments], threads)[0]


def wait_for_others() -> None:
    """Returns when all processes of an :func:`in_processes` have called it."""
    assert _others is not None
    _others.wait()


def _begin(others: Barrier, threads: int) -> None:
    import torch

    global _others
    _others = others
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A benchmark that is killed must not go on measuring, unseen, on all cores."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return function(*arguments)
    except BaseException:
        assert _others is not None
        _others.abort()  # or the others would wait for ever
        raise


@contextlib.contextmanager
def local_ray() -> Iterator[None]:
    """A Ray of its own whose workers have started; what it prints is not shown."""
    import ray

    from asd_ray.cluster.session import quiet_terminal, ray_session
    from asd_ray.config import ResourceConfig

    with (
        tempfile.TemporaryDirectory(prefix="asd_ray-") as folder,
        quiet_terminal(Path(folder) / "ray.log", stdout=False),
        ray_session(None, "bench", ResourceConfig()),
    ):
        ray.get([ray.remote(_nothing).remote() for _ in range(os.cpu_count() or 1)])
        yield


def _nothing() -> None:
    """A task that shows that a worker is there."""
