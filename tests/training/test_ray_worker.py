"""What a training worker tells of itself: its outcome, its checkpoints' parts, and how a lost one died."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from asd_ray.errors import AsdRayError
from asd_ray.training import ray_worker
from asd_ray.training.ray_worker import EpochReports, Outcome, first_line, run_worker, take_outcome
from asd_ray.training.stage_run import TrainingFailed

CAUSE = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file"
)
CPU = torch.device("cpu")


@pytest.mark.parametrize("guess", ["There are some potential root causes. (1) T", "Some common causes include: (1) t"])
def test_a_lost_worker_is_where_and_how_it_died(guess: str) -> None:
    """As Ray Train tells of a process that was killed, where Ray's names of the worker would fill the line."""

    class HealthCheckFailed(Exception):
        health_check_failure = Exception(
            "The actor died unexpectedly before finishing this task.\n\tclass_name: RayTrainWorker\n\tactor_id: "
            f"0101\n\tpid: 4711\n\tname: a\n\tnamespace: b\n\tip: 10.0.0.7\n{CAUSE}. {guess}"
        )

    worker = "Worker(actor=Actor(RayTrainWorker, 0101), metadata=ActorMetadata(hostname='h', node_id='n'))" * 5
    found = first_line(HealthCheckFailed(f"A worker health check failed.\nWorker info: {worker}"))
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


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, result: Any) -> None:
    """A worker whose training gives ``result``, or raises it."""

    def train(*arguments: Any, **named: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(ray_worker, "train_and_score", train)
    run_worker(SimpleNamespace(out=folder), dict, CPU, SimpleNamespace(), print)  # type: ignore[arg-type]


def test_an_outcome_is_read_as_it_was_written_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = pd.DataFrame({"path": ["a", "b"], "id": ["00", "02"], "knn": [0.1, 1 / 3], "gmm": [2.0, 3.0]})
    history = [{"stage": "finetune", "epoch": 1, "loss": 1 / 3, "recalled": True}]
    run(tmp_path, monkeypatch, {"history": history, "scored": scored, "score": "knn"})
    assert take_outcome(tmp_path) == Outcome(history, "knn")
    expected = scored.assign(score=scored["knn"])
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "scores.parquet"), expected, check_exact=True)
    with pytest.raises(AsdRayError, match="expected a study folder that all nodes share"):
        take_outcome(tmp_path)


def test_a_run_without_a_result_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, monkeypatch, TrainingFailed("pretrain: loss is nan"))
    assert take_outcome(tmp_path) == Outcome(reason="pretrain: loss is nan")


def test_workers_after_the_first_leave_no_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, monkeypatch, None)
    assert not list(tmp_path.iterdir())
