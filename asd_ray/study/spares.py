"""Spare processes of a local Ray: the next trial's process starts, and imports, while other trials still train.

A process that imports Ray, torch and timm needs three seconds of a core before a trial's first step. Ray starts it when
Tune asks for the trial's actor; but its raylet also starts processes ahead if it is told to, and the next actor with
the same runtime environment gets one of these. What they import meanwhile is in :mod:`asd_ray.ray_process`. Trials with
several workers gain nothing: Ray Train's processes have an environment of their own for every trial.
"""

from __future__ import annotations

import logging
import os

import grpc
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray._private.utils import get_runtime_env_info
from ray.core.generated.common_pb2 import PYTHON
from ray.core.generated.node_manager_pb2 import PrestartWorkersRequest
from ray.core.generated.node_manager_pb2_grpc import NodeManagerServiceStub
from ray.runtime_env import RuntimeEnv
from ray.tune.execution.class_cache import DEFAULT_ENV_VARS, ENV_VARS_TO_PROPAGATE

log = logging.getLogger("asd_ray")
KEPT_SECONDS = 3600
"""That a spare process waits for a trial before Ray may end it."""
MOST = 4
"""Spare processes at a time, each of which holds half a gigabyte of its own."""


class Spares:
    """Keeps as many spare processes as trials can begin at the same time, but no more than are still to begin, and few.

    Args:
        at_once: trials at the same time.
    """

    def __init__(self, at_once: int) -> None:
        self.at_once, self.expected, self.waiting = min(at_once, MOST), 0, 0

    def expect(self, processes: int) -> None:
        """So many processes of trials are still to begin."""
        self.expected = processes
        self._prepare()

    def trial_begins(self) -> None:
        """A trial's process has begun: one that was spare, if there was one."""
        self.expected, self.waiting = max(0, self.expected - 1), max(0, self.waiting - 1)
        self._prepare()

    def _prepare(self) -> None:
        missing = min(self.at_once, self.expected) - self.waiting
        if missing > 0:
            self.waiting += missing
            start_processes(missing)


def start_processes(count: int) -> None:
    """Starts processes for Tune's trials on the driver's own node. If it cannot be, trials begin a little later, and
    that is all."""
    worker = ray._private.worker.global_worker
    propagated = {name: os.environ[name] for name in ENV_VARS_TO_PROPAGATE if name in os.environ}
    request = PrestartWorkersRequest(
        language=PYTHON,
        job_id=worker.current_job_id.binary(),
        runtime_env_info=get_runtime_env_info(RuntimeEnv(env_vars={**DEFAULT_ENV_VARS, **propagated})),
        keep_alive_duration_secs=KEPT_SECONDS,
        num_workers=count,
    )
    try:
        with init_grpc_channel(f"{worker.node.node_ip_address}:{worker.node.node_manager_port}") as channel:
            NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=5)
    except grpc.RpcError as error:
        log.info("no spare process: %s", error)
