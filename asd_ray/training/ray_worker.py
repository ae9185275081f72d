"""Several training workers through Ray Train: a trial's :class:`TorchTrainer`, and what each worker does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2._internal.callbacks import DatasetsCallback

from asd_ray.config import ResourceConfig
from asd_ray.features.batches import Batches
from asd_ray.features.read import Features
from asd_ray.memory import collect_rarely
from asd_ray.training.checkpoints import load_rank, save_rank
from asd_ray.training.stage_run import TrainingFailed
from asd_ray.training.train_and_score import ClipSource, RunInputs, run


@dataclass(frozen=True)
class Failure:
    """A run that ended by itself without a result. Returned, not raised: Ray Train would start the workers again."""

    reason: str


class LeanTrainer(TorchTrainer):
    """Ray Train without the processes that it starts for every run and we have no use for. To start, each takes more
    than a second of a core, and then it wakes a hundred times in a second."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # It would warn of nodes that are about to go: they cost an epoch at most.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # Every report of an epoch waits for the controller's next look at the workers; Ray's default is two seconds.
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
        super().__init__(*args, **kwargs)

    def _create_default_callbacks(self) -> list[Any]:
        """Without the manager of Ray Data's datasets: clips come with the worker's arguments."""
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, DatasetsCallback)]


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
        def upload(_: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
            storage = ray.train.get_context().get_storage()
            storage._check_validation_file()  # raises where this worker's node does not share the folder
            folder = storage.build_checkpoint_path_from_name(name)
            save_rank(storage.storage_filesystem, folder, self.rank, state)
            return ray.train.Checkpoint(folder, storage.storage_filesystem)

        # Straight to where it stays: from a folder, Ray Train would copy what has just been written.
        nowhere = ray.train.Checkpoint("/nowhere")
        ray.train.report(metrics, nowhere, checkpoint_upload_fn=upload)


def clip_source(
    features: Features, classes: Sequence[str], rank: int, workers: int, device: torch.device
) -> ClipSource:
    """One worker's clips, taken once for every combination of splits that is asked for."""
    taken: dict[tuple[str, ...], Batches] = {}

    def clips(splits: tuple[str, ...]) -> Batches:
        if splits not in taken:
            taken[splits] = features.batches(splits, classes, rank, workers, device)
        return taken[splits]

    return clips


def train_worker(config: dict[str, Any]) -> dict[str, Any] | Failure | None:
    """What one Ray Train worker does: takes its clips, and runs."""
    collect_rarely()
    inputs: RunInputs = ray.get(config["inputs"])
    torch.set_num_threads(config["threads"])
    context = ray.train.get_context()
    rank, device = context.get_world_rank(), get_device()
    clips = clip_source(ray.get(config["features"]), inputs.classes, rank, context.get_world_size(), device)
    try:
        return run(inputs, clips, device, TrainCheckpoints(rank), report=_report_recalled)
    except TrainingFailed as failure:
        return Failure(str(failure))


def _report_recalled(metrics: dict[str, Any]) -> None:
    """An epoch's metrics go with its checkpoint; those of a stage that was taken over have none."""
    if metrics.get("recalled"):
        ray.train.report(metrics)


def train_with_ray(
    inputs: RunInputs,
    features: Features,
    resources: ResourceConfig,
    name: str,
    storage: str,
    callbacks: Sequence[Any] = (),
) -> dict[str, Any] | Failure:
    """Runs one trial on ``resources.workers`` workers and returns what the first of them does.

    A run of the same ``name`` and ``storage`` that was cut off continues from its last checkpoint.

    Args:
        inputs: for every worker.
        features: where every worker finds its clips.
        resources: of the study.
        name: of the run, in folders and in the Ray dashboard.
        storage: folder or URI that all workers reach.
        callbacks: of Ray Train (a Tune trial passes its own, so that epochs reach Tune).
    """
    trainer = LeanTrainer(
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
            callbacks=list(callbacks),
            worker_runtime_env={"env_vars": {"ASD_RAY_RUN": name}},  # names the workers on their dashboard pages
            failure_config=ray.train.FailureConfig(max_failures=resources.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    return trainer.fit().return_value
