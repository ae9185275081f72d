"""The Ray that a study runs on: a local one of its own, or the cluster at an address."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import ray

from asd_ray.config import ResourceConfig
from asd_ray.errors import AsdRayError
from asd_ray.memory import ONE_ARENA

log = logging.getLogger("asd_ray")


@contextlib.contextmanager
def ray_session(address: str | None, name: str, resources: ResourceConfig) -> Iterator[str]:
    """Connects to the Ray at ``address``, or starts a local one; shuts down what it started. Yields what it is.

    Args:
        address: ``HOST:PORT``, ``auto`` for the one that ``ray start --head`` started here, or None for a local Ray of
            this process's own (its dashboard on the loopback interface, token authentication as Ray has it on).
        name: of the study; names the job in the Ray dashboard, and a namespace of its own.

    Raises:
        AsdRayError: there is no Ray at the address, or it has no room for one trial.
    """
    # Ours is the handler for Ctrl-C: Ray Tune's would wait for a trial's next report first. Epochs report no objective.
    for switch in (
        "TUNE_DISABLE_SIGINT_HANDLER",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS",
    ):
        os.environ.setdefault(switch, "1")
    # What its loggers and its own memory would keep of a trial is in the trial's folder; we restore nothing from it.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)  # it misses those loggers' files
    if address is None:
        for variable, value in ONE_ARENA.items():
            os.environ.setdefault(variable, value)  # of Ray's processes, which this one starts
    missing = {variable: value for variable, value in ONE_ARENA.items() if variable not in os.environ}
    job = ray.job_config.JobConfig(
        metadata={"job_name": name, "study": name}, runtime_env={"env_vars": missing} if missing else None
    )
    needed = resources.workers * resources.cpus_per_worker
    options: dict[str, object] = {
        "namespace": f"asd_ray-{name}",
        "job_config": job,
        "logging_level": logging.INFO,
        "log_to_driver": True,
    }
    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unless the user asks for it
        # A trial's workers must fit: on a machine with fewer cores they share them, slower but right.
        options |= {"num_cpus": max(os.cpu_count() or 1, round(needed)), "include_dashboard": True}
    try:
        context = ray.init(address=address or "local", **options)
    except ConnectionError:
        raise AsdRayError(
            f"no Ray is running at {address!r}: start one with `ray start --head`, or leave --address out to have a "
            f"local one."
        ) from None
    try:
        total = ray.cluster_resources()
        if total.get("CPU", 0) < needed or total.get("GPU", 0) < resources.workers * resources.gpus_per_worker:
            raise AsdRayError(
                f"a trial needs {needed:g} CPUs and {resources.workers * resources.gpus_per_worker:g} GPUs "
                f"(resources.workers x cpus_per_worker, gpus_per_worker), but this Ray has {total.get('CPU', 0):g} and "
                f"{total.get('GPU', 0):g}."
            )
        dashboard = f"http://{context.dashboard_url}" if context.dashboard_url else "no dashboard"
        yield f"Ray {ray.__version__} {'at ' + address if address else 'started here'}, dashboard {dashboard}"
    finally:
        ray.shutdown()


def concurrency(resources: ResourceConfig, growing: bool = False) -> int:
    """How many trials run at the same time: as many as there is room for, or the study's own limit.

    Args:
        resources: of the study.
        growing: Ray may be a cluster that an autoscaler enlarges while trials wait: then the study's own limit says how
            far, and room that is not there yet does not count against it.
    """
    limit = resources.max_concurrent_trials
    room = resources.room(ray.cluster_resources())
    return limit if limit and growing else min(room, limit or room)


def parallel(function: Any, chunks: Iterable[Any]) -> Iterator[Any]:
    """Runs ``function`` on every chunk as Ray tasks, one core each, yielding results as they end."""
    task = ray.remote(num_cpus=1)(_call)
    pending = [task.remote(function, chunk) for chunk in chunks]
    while pending:
        done, pending = ray.wait(pending)
        yield ray.get(done[0])


def _call(function: Any, chunk: Any) -> Any:
    return function(chunk)


@contextlib.contextmanager
def local_tasks(items: int) -> Iterator[Callable[[Any, Iterable[Any]], Iterator[Any]] | None]:
    """A :func:`parallel` on a local Ray of its own, or None where starting one would take longer than the work."""
    if items < 500 or (os.cpu_count() or 1) == 1:
        yield None
        return
    with (
        tempfile.TemporaryDirectory(prefix="asd_ray-") as folder,
        quiet_terminal(Path(folder) / "ray.log"),
        ray_session(None, "tasks", ResourceConfig()),
    ):
        yield parallel


@contextlib.contextmanager
def quiet_terminal(log_file: Path, stdout: bool = True) -> Iterator[IO[str]]:
    """Sends all that this process and Ray's write to the terminal to a file; yields a stream that still reaches it:
    standard output, or standard error where standard output is kept for a script.

    Redirects the file descriptors, not only Python's streams, because much of Ray's output is written by its C++ core.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    terminal = os.fdopen(
        os.dup(saved[0 if stdout else 1]), "w", buffering=1, encoding=sys.stdout.encoding or "utf-8", errors="replace"
    )
    try:
        with log_file.open("ab", buffering=0) as sink:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
        yield terminal
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        terminal.close()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        os.close(saved[0])
        os.close(saved[1])
