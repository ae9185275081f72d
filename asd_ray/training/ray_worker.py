"""One training worker of a trial, alone in the trial's process or one of several that Ray Train starts."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.tune.integration.ray_train import TuneReportCallback

from asd_ray.config import ResourceConfig
from asd_ray.errors import AsdRayError
from asd_ray.features.batches import Batches
from asd_ray.features.read import Features
from asd_ray.files import write_text
from asd_ray.memory import collect_rarely
from asd_ray.methods.workers import Workers
from asd_ray.parquet import write_table
from asd_ray.training.checkpoints import load_rank, save_rank
from asd_ray.training.loop import Checkpoints
from asd_ray.training.stage_run import TrainingFailed
from asd_ray.training.train_and_score import ClipSource, RunInputs, train_and_score

OUTCOME, SCORES = "outcome.json", "scores.parquet"


@dataclass(frozen=True)
class Outcome:
    """The end of a run.

    Attributes:
        history: metrics of every epoch.
        score: the kind of score that counts; the labelled test clips with all scores are in ``scores.parquet``.
        reason: why there is no result; empty if there is one.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    score: str = ""
    reason: str = ""


def run_worker(
    inputs: RunInputs,
    clips: ClipSource,
    device: torch.device,
    checkpoints: Checkpoints,
    report: Callable[[dict[str, Any]], None],
) -> None:
    """Train and score on one worker. The first worker writes the outcome into the folder ``inputs.out``."""
    try:
        found = train_and_score(inputs, clips, device, checkpoints, report=report)
    except TrainingFailed as failure:  # written, not raised: Ray Train would start the workers again
        outcome = Outcome(reason=str(failure))
    else:
        if found is None:
            return
        scored, outcome = found["scored"], Outcome(found["history"], found["score"])
        write_table(inputs.out / SCORES, scored.assign(score=scored[outcome.score]))
    if Workers.of_process_group().rank == 0:
        write_text(inputs.out / OUTCOME, json.dumps(asdict(outcome)))


def take_outcome(folder: Path) -> Outcome:
    """Read a run's outcome from its folder and remove the file: a later run must not find it.

    Raises:
        AsdRayError: there is none.
    """
    path = folder / OUTCOME
    if not path.exists():
        raise AsdRayError(
            f"{folder}: the workers left no {OUTCOME} here; expected a study folder that all nodes share; put --out on "
            f"storage that every node mounts at the same path."
        )
    outcome = Outcome(**json.loads(path.read_text(encoding="utf-8")))
    path.unlink()
    return outcome


class EpochReports(TuneReportCallback):
    """Tell Ray Tune of a trial's epochs, and of lost workers (``lost``)."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        lost = ", ".join(f"worker {rank} ({first_line(error)})" for rank, error in sorted(worker_exceptions.items()))
        self.after_report(run_context, [{"lost": lost}], None)


def first_line(error: object) -> str:
    """An error in one line of at most 300 characters: where and how a process died, without Ray's names for it and
    its guesses at the cause."""
    died = getattr(error, "health_check_failure", error)  # Ray Train wraps it in a description of the worker
    text = re.split("There are some potential root causes|Some common causes include", str(died))[0]
    text = re.sub(r"^\t(class_name|actor_id|name|namespace): .*\n", "", text, flags=re.MULTILINE)
    return " ".join(text.split())[:300].rstrip(".")


class TrainCheckpoints:
    """Checkpoints that Ray Train keeps: every worker reports its part, the last two are stored."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def load(self) -> dict[str, Any] | None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            return load_rank(Path(folder), self.rank)

    def save(self, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory(prefix="asd_ray-") as folder:
            save_rank(Path(folder), self.rank, state)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def clip_source(
    features: Features, classes: Sequence[str], rank: int, workers: int, device: torch.device
) -> ClipSource:
    """One worker's clips, read once for every combination of splits."""
    taken: dict[tuple[str, ...], Batches] = {}

    def clips(splits: tuple[str, ...]) -> Batches:
        if splits not in taken:
            taken[splits] = features.batches(splits, classes, rank, workers, device)
        return taken[splits]

    return clips


def train_worker(config: dict[str, Any]) -> None:
    """Training function of a Ray Train worker: read its clips, then train and score."""
    collect_rarely()
    inputs: RunInputs = ray.get(config["inputs"])
    torch.set_num_threads(config["threads"])
    context = ray.train.get_context()
    rank, device = context.get_world_rank(), get_device()
    clips = clip_source(ray.get(config["features"]), inputs.classes, rank, context.get_world_size(), device)
    run_worker(inputs, clips, device, TrainCheckpoints(rank), _report_recalled)


def _report_recalled(metrics: dict[str, Any]) -> None:
    """Report an epoch of a stage that another trial trained. The metrics of all others go with their checkpoints."""
    if metrics.get("recalled"):
        ray.train.report(metrics)


def train_with_ray(inputs: RunInputs, features: Features, resources: ResourceConfig, name: str, storage: str) -> None:
    """Run one trial on ``resources.workers`` workers, which leave its outcome in ``inputs.out``.

    A run of the same ``name`` and ``storage`` that was cut off continues from its last checkpoint.

    Args:
        inputs: for every worker.
        features: where every worker finds its clips.
        resources: of the study.
        name: of the run, in folders and in the Ray dashboard.
        storage: folder or URI that all workers reach.
    """
    # Every report of an epoch waits for the controller's next look at the workers; Ray's default is two seconds.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
    TorchTrainer(
        train_worker,
        train_loop_config={
            # By reference: Ray Train's controller looks into this mapping, and would import what is in it.
            "inputs": ray.put(inputs),
            "features": ray.put(features),
            "threads": max(1, int(resources.cpus_per_worker)),
        },
        torch_config=TorchConfig(backend="nccl" if resources.gpus_per_worker else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker={
                "CPU": resources.cpus_per_worker,
                **({"GPU": resources.gpus_per_worker} if resources.gpus_per_worker else {}),
            },
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=storage,
            callbacks=[EpochReports()],
            worker_runtime_env={"env_vars": {"ASD_RAY_RUN": name}},  # names the workers on their dashboard pages
            failure_config=ray.train.FailureConfig(max_failures=resources.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    ).fit()
