from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from asd_ray.training.epoch_reports import EpochReports, first_line

CAUSE = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file"
)


@pytest.mark.parametrize("guess", ["There are some potential root causes. (1) T", "Some common causes include: (1) t"])
def test_a_lost_worker_is_where_and_how_it_died(guess: str) -> None:
    """As Ray Train tells of a process that was killed, where Ray's names of the worker would fill the line."""
    worker = "Worker(actor=Actor(RayTrainWorker, 0101), metadata=ActorMetadata(hostname='h', node_id='n'))" * 5
    died = ActorDiedErrorContext(
        class_name="RayTrainWorker",
        actor_id=b"\x01" * 16,
        pid=4711,
        name="a",
        ray_namespace="b",
        node_ip_address="10.0.0.7",
        error_message=f"{CAUSE}. {guess}",
    )
    error = WorkerHealthCheckFailedError(f"A worker health check failed.\nWorker info: {worker}", ActorDiedError(died))
    found = first_line(error)
    assert found == f"The actor died unexpectedly before finishing this task. pid: 4711 ip: 10.0.0.7 {CAUSE}"


def test_any_other_error_is_its_first_300_characters() -> None:
    assert first_line(ValueError("one\n\ttwo. ")) == "one two"
    assert first_line("x" * 400) == "x" * 300


def test_all_workers_that_were_lost_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = EpochReports.__new__(EpochReports)  # which wants a Tune session
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(reports, "after_report", lambda context, metrics, checkpoint: said.extend(metrics))
    reports.after_exception(SimpleNamespace(), {1: ValueError("b"), 0: ValueError("a")})
    assert said == [{"lost": "worker 0 (a), worker 1 (b)"}]
