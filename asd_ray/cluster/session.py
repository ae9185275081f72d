"""Start a local Ray or connect to one, and leave the process as it was afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ray

from asd_ray.config import ResourceConfig
from asd_ray.errors import AsdRayError
from asd_ray.memory import ONE_ARENA

# Set while a session lasts, unless the user has set them.
ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's other output prints a table of the experiment even with verbose=0
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's handler of Ctrl-C would wait for a trial's next report
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # epochs report no objective
    # The trial's folder and the study's have what these would keep, and nothing is restored from them.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
}
LOCAL_ENVIRONMENT = {
    **ONE_ARENA,
    "RAY_USAGE_STATS_ENABLED": "0",
}  # nothing is sent anywhere unless the user asks for it
QUIET_ENVIRONMENT = {"RAY_DATA_LOG_LEVEL": "CRITICAL"}  # Ray Data sets its logger's level when it is imported
TUNE_ANALYSIS = "ray.tune.analysis.experiment_analysis"  # warns that the files of Tune's loggers are missing
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # those that Ray or Tune handles


@contextlib.contextmanager
def ray_session(
    address: str | None, name: str, resources: ResourceConfig, show_ray_output: bool = False
) -> Iterator[str]:
    """Connect to Ray, or start a local one, until the block ends. Yields a line that says which Ray it is.

    This process's signal handlers, environment variables and loggers are its own again afterwards; its handlers of
    Ctrl-C and SIGTERM also meanwhile.

    Args:
        address: ``HOST:PORT``, ``auto`` for the Ray that ``ray start --head`` started here, or None for a local Ray
            (its dashboard on the loopback interface, token authentication as Ray has it on).
        name: of the study; names the job in the Ray dashboard, and a namespace of its own.
        resources: of one trial; Ray must have room for them.
        show_ray_output: let Ray and its workers print to standard output and error.

    Raises:
        AsdRayError: Ray already runs in this process; there is no Ray at the address, or no room for one trial.
    """
    if ray.is_initialized():
        raise AsdRayError(
            "this process is connected to a Ray already; call ray.shutdown() first, and give its address to run on it."
        )
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment(ENVIRONMENT))
        stack.enter_context(_environment({} if address else LOCAL_ENVIRONMENT))
        stack.enter_context(_environment({} if show_ray_output else QUIET_ENVIRONMENT))
        restore_signals = stack.enter_context(keep_signal_handlers())
        level = logging.INFO if show_ray_output else logging.CRITICAL
        loggers = {"ray": level, "ray.data": level, TUNE_ANALYSIS: max(level, logging.ERROR)}
        stack.enter_context(_logger_levels(loggers))
        stack.callback(ray.shutdown)
        line = _connect(address, name, resources, level)
        restore_signals()  # ray.init replaces the handler of SIGTERM
        yield line


def _connect(address: str | None, name: str, resources: ResourceConfig, level: int) -> str:
    missing = {variable: value for variable, value in ONE_ARENA.items() if variable not in os.environ}
    job = ray.job_config.JobConfig(
        metadata={"job_name": name, "study": name}, runtime_env={"env_vars": missing} if missing else None
    )
    needed = resources.workers * resources.cpus_per_worker
    options: dict[str, object] = {
        "namespace": f"asd_ray-{name}",
        "job_config": job,
        "logging_level": level,
        "log_to_driver": level == logging.INFO,
    }
    if address is None:
        # A trial's workers must fit: on a machine with fewer cores they share them, slower but right.
        options |= {"num_cpus": max(os.cpu_count() or 1, round(needed)), "include_dashboard": True}
    try:
        context = ray.init(address=address or "local", **options)
    except ConnectionError:
        raise AsdRayError(
            f"no Ray is running at {address!r}: start one with `ray start --head`, or leave --address out to have a "
            f"local one."
        ) from None
    total = ray.cluster_resources()
    if total.get("CPU", 0) < needed or total.get("GPU", 0) < resources.workers * resources.gpus_per_worker:
        raise AsdRayError(
            f"a trial needs {needed:g} CPUs and {resources.workers * resources.gpus_per_worker:g} GPUs "
            f"(resources.workers x cpus_per_worker, gpus_per_worker), but this Ray has {total.get('CPU', 0):g} and "
            f"{total.get('GPU', 0):g}."
        )
    dashboard = f"http://{context.dashboard_url}" if context.dashboard_url else "no dashboard"
    return f"Ray {ray.__version__} {'at ' + address if address else 'started here'}, dashboard {dashboard}"


@contextlib.contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that are not set, until the block ends."""
    missing = {variable: value for variable, value in defaults.items() if variable not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for variable in missing:
            os.environ.pop(variable, None)


@contextlib.contextmanager
def keep_signal_handlers() -> Iterator[Callable[[], None]]:
    """Restore this process's signal handlers when the block ends. Yields a function that does so at once."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}

    def restore() -> None:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python, and so Ray, sets no handler
            for signum, handler in before.items():
                if signal.getsignal(signum) is not handler:
                    signal.signal(signum, handler)

    try:
        yield restore
    finally:
        restore()


@contextlib.contextmanager
def _logger_levels(levels: Mapping[str, int]) -> Iterator[None]:
    """Set the levels of loggers until the block ends."""
    before = {name: logging.getLogger(name).level for name in levels}
    try:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def concurrency(resources: ResourceConfig, growing: bool = False) -> int:
    """Number of trials at the same time: as many as there is room for, or the study's own limit.

    Args:
        resources: of the study.
        growing: Ray may be a cluster that an autoscaler enlarges while trials wait. Then the study's own limit holds,
            if it has one, whatever room there is now.
    """
    limit = resources.max_concurrent_trials
    room = resources.room(ray.cluster_resources())
    return limit if limit and growing else min(room, limit or room)


def parallel(function: Any, chunks: Iterable[Any]) -> Iterator[Any]:
    """Run ``function`` on every chunk as Ray tasks of one core each. Yields results as they end."""
    task = ray.remote(num_cpus=1)(_call)
    pending = [task.remote(function, chunk) for chunk in chunks]
    while pending:
        done, pending = ray.wait(pending)
        yield ray.get(done[0])


def _call(function: Any, chunk: Any) -> Any:
    return function(chunk)


@contextlib.contextmanager
def local_tasks(items: int) -> Iterator[Callable[[Any, Iterable[Any]], Iterator[Any]] | None]:
    """Start a local Ray for small tasks. Yields :func:`parallel`, or None where Ray starts longer than they take."""
    if items < 500 or (os.cpu_count() or 1) == 1:
        yield None
        return
    with ray_session(None, "tasks", ResourceConfig()):
        yield parallel
