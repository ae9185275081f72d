"""Several training workers through Ray Train: a trial's :class:`TorchTrainer`, and what each worker does."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from asd_ray.config import ResourceConfig
from asd_ray.features.read import take
from asd_ray.training.checkpoints import load_rank, save_rank
from asd_ray.training.loop import TrainingFailed
from asd_ray.training.run import RunInputs, run


@dataclass(frozen=True)
class Failure:
    """A run that ended by itself without a result. Returned, not raised: Ray Train would start the workers again."""

    reason: str


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


def train_worker(config: dict[str, Any]) -> dict[str, Any] | Failure | None:
    """What one Ray Train worker does: takes its shard as one tensor, and runs."""
    inputs: RunInputs = config["inputs"]
    torch.set_num_threads(config["threads"])
    rank = ray.train.get_context().get_world_rank()
    shards = [take(_shard(config, split, rank), inputs.manifest.shape) for split in ("train", "test")]
    try:
        return run(inputs, shards[0], shards[1], get_device(), TrainCheckpoints(rank))
    except TrainingFailed as failure:
        return Failure(str(failure))


def _shard(config: dict[str, Any], split: str, rank: int) -> Any:
    name = f"{split}-{rank}"
    return ray.train.get_dataset_shard(name) if name in config["shards"] else None


def train_with_ray(
    inputs: RunInputs,
    train_shards: Sequence[Any],
    test_shards: Sequence[Any],
    resources: ResourceConfig,
    name: str,
    storage: str,
    callbacks: Sequence[Any] = (),
) -> dict[str, Any] | Failure:
    """Runs one trial on ``resources.workers`` workers and returns what the first of them does.

    A run of the same ``name`` and ``storage`` that was cut off continues from its last checkpoint.

    Args:
        inputs: for every worker.
        train_shards, test_shards: one materialised Ray dataset for each worker.
        resources: of the study.
        name: of the run, in folders and in the Ray dashboard.
        storage: folder or URI that all workers reach.
        callbacks: of Ray Train (a Tune trial passes its own, so that epochs reach Tune).
    """
    # Every report of an epoch waits for the controller's next look at the workers; Ray's default is two seconds.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
    shards = {
        f"{split}-{rank}": shard
        for split, of_workers in (("train", train_shards), ("test", test_shards))
        for rank, shard in enumerate(of_workers)
        if shard is not None
    }
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "inputs": inputs,
            "threads": max(1, int(resources.cpus_per_worker)),
            "shards": frozenset(shards),
        },
        # Each worker reads the shard of its rank, whole: Ray's own split would hand out equal parts and drop the rest.
        datasets=shards,
        dataset_config=ray.train.DataConfig(datasets_to_split=[]),
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
