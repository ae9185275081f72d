"""The training loop: stages, epochs, steps. Pure torch; it knows no method by name and nothing of Ray.

Legend: N clips of this worker, B its part of the global batch, F mel bands, T frames, D embedding, C classes.

With several workers (an initialised process group) every worker calls :func:`train` with its own clips and the same
arguments; gradients are averaged by ``DistributedDataParallel``. All randomness of an epoch is derived from
(seed, stage, epoch, worker), so a run that resumes at an epoch's start needs no random state to continue bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from asd_ray.clips import stable_hash
from asd_ray.config import OptimiserConfig
from asd_ray.methods.base import Method, Stage

COLLAPSED = 1e-4  # standard deviation per dimension of unit vectors; 1/sqrt(D) when they fill the sphere


class TrainingFailed(Exception):
    """A trial that cannot give a result, with the value that showed it (loss not finite, collapsed encoder)."""


class Checkpoints(Protocol):
    """Where a run's state is kept. One implementation writes files, another reports to Ray Train."""

    def load(self) -> dict[str, Any] | None:
        """The newest complete state of this worker, or None at the start of a run."""

    def save(self, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        """Keeps the state of this worker at the end of an epoch. Every worker calls it equally often."""


@dataclass(frozen=True)
class Workers:
    """This worker's place among those that train together."""

    rank: int = 0
    size: int = 1

    @staticmethod
    def of_process_group() -> Workers:
        return Workers(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Workers()


def train(
    method: Method,
    features: Tensor,
    labels: Tensor,
    seed: int,
    checkpoints: Checkpoints,
    fewest: int | None = None,
    report: Callable[[dict[str, Any]], None] = lambda metrics: None,
) -> list[dict[str, Any]]:
    """Trains all stages of a method, or what a checkpoint leaves of them.

    Args:
        method: on the device that trains.
        features: (N, F, T) this worker's clips, fp16; on the device, or on the CPU if they do not fit there.
        labels: (N,) class numbers.
        seed: of this run.
        checkpoints: where state is kept after every epoch.
        fewest: smallest N of any worker: every worker takes as many steps (N by default).
        report: called at the end of every epoch with its metrics, on every worker.

    Returns:
        The metrics of every epoch so far, those before a resume included.

    Raises:
        TrainingFailed: the loss is not finite, or the encoder collapsed.
    """
    workers = Workers.of_process_group()
    fewest = len(features) if fewest is None else fewest
    history: list[dict[str, Any]] = []
    state = checkpoints.load()
    stages = method.stages()
    total = sum(stage.optimiser.epochs for stage in stages)
    for number, stage in enumerate(stages):
        if state is not None and state["stage"] > number:
            continue
        run = StageRun(stage, features, labels, fewest, seed, workers)
        start = 0
        if state is not None and state["stage"] == number:
            method.load_state_dict(state["method"], strict=False)
            run.load(state)
            start, history = state["epoch"], state["history"]
            state = None
        for epoch in range(start, stage.optimiser.epochs):
            metrics = {
                "stage": stage.name,
                "epoch": len(history) + 1,
                "epochs": total,
                **run.epoch(epoch),
            }
            history.append(metrics)
            checkpoints.save(
                {
                    "stage": number,
                    "epoch": epoch + 1,
                    "history": history,
                    "method": method.state_dict() if workers.rank == 0 else {},
                    **run.state(),
                },
                metrics,
            )
            report(metrics)
    return history


class StageRun:
    """One stage in training: its optimiser, schedule, and the walk through this worker's clips."""

    def __init__(
        self, stage: Stage, features: Tensor, labels: Tensor, fewest: int, seed: int, workers: Workers
    ) -> None:
        self.stage, self.features, self.labels, self.seed, self.workers = stage, features, labels, seed, workers
        config = stage.optimiser
        # Never more than there are clips: a small set is one full batch per step.
        self.batch_size = min(max(config.batch_size // workers.size, 1), fewest)
        if self.batch_size < 2:
            raise TrainingFailed(
                f"{fewest} training clips for each of {workers.size} workers make a batch of {self.batch_size}; batch "
                f"normalisation needs at least 2: take fewer workers or a larger batch_size"
            )
        self.steps = fewest // self.batch_size
        parameters = [parameter for parameter in stage.parameters() if parameter.requires_grad]
        self.device = parameters[0].device
        self.optimiser = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, learning_rate_factor(config, self.steps))
        # The queue is the same on every worker and the memory bank belongs to each: buffers are never broadcast.
        self.step_loss: nn.Module = (
            DistributedDataParallel(stage, broadcast_buffers=False, gradient_as_bucket_view=True)
            if workers.size > 1
            else stage
        )

    def epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the clips. Returns the means of the step metrics over steps and workers, and the rate."""
        self.stage.train()
        seed_everything(self.seed, self.stage.name, epoch, self.workers.rank)
        sums: dict[str, Tensor] = {}
        started = time.perf_counter()
        for indices in self.batches(epoch):
            features = self.features[indices].to(self.device, non_blocking=True)
            loss, metrics = self.step_loss(features, self.labels[indices].to(self.device, non_blocking=True))
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            self.schedule.step()
            done = self.schedule.last_epoch  # steps of the whole stage, kept over a resume
            self.stage.end_step(done / (self.stage.optimiser.epochs * self.steps))
            for name, value in {"loss": loss.detach(), **metrics}.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value.float()
        if self.workers.size > 1:
            average_batch_norm(self.stage)
        means = self._means(sums)
        seconds = time.perf_counter() - started
        means["seconds"] = seconds
        means["samples_per_s"] = self.steps * self.batch_size * self.workers.size / seconds
        means["lr"] = float(self.schedule.get_last_lr()[0])
        check_health(self.stage.name, means)
        return means

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Indices (B,) of every step: a permutation that depends only on seed, stage, epoch and worker."""
        generator = torch.Generator().manual_seed(
            stable_hash(self.seed, "order", self.stage.name, epoch, self.workers.rank) >> 1
        )
        order = torch.randperm(len(self.features), generator=generator)
        for step in range(self.steps):
            yield order[step * self.batch_size : (step + 1) * self.batch_size]

    def _means(self, sums: dict[str, Tensor]) -> dict[str, float]:
        values = torch.stack([sums[name] for name in sums]) / self.steps
        if self.workers.size > 1:
            dist.all_reduce(values)
            values /= self.workers.size
        return dict(zip(sums, values.tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        """What this worker must keep. What all workers share is kept by the first."""
        stage = self.stage.state_dict()
        if self.workers.rank > 0:
            stage = {key: value for key, value in stage.items() if key.startswith(self.stage.worker_local)}
            return {"stage_state": stage}
        return {
            "stage_state": stage,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.stage.load_state_dict(state["stage_state"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])


def seed_everything(*parts: object) -> None:
    """Seeds torch's generators on all devices from the parts."""
    torch.manual_seed(stable_hash(*parts) >> 1)


def learning_rate_factor(config: OptimiserConfig, steps: int) -> Callable[[int], float]:
    """The learning rate of a step, as a factor of ``lr``: linear warm-up, then constant or a half cosine to zero."""
    warmup = round(config.warmup_epochs * steps)
    total = max(config.epochs * steps, 1)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if config.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))

    return factor


def average_batch_norm(module: nn.Module) -> None:
    """Averages running statistics over workers: each has seen other clips, and all must embed with the same network."""
    buffers = [
        buffer
        for child in module.modules()
        if isinstance(child, nn.modules.batchnorm._BatchNorm)
        for buffer in (child.running_mean, child.running_var)
        if buffer is not None
    ]
    if buffers:
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for buffer, mean in zip(buffers, flat.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))


def check_health(stage: str, metrics: dict[str, float]) -> None:
    """Ends a trial whose numbers say that no result can come of it.

    Raises:
        TrainingFailed: naming the value.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise TrainingFailed(f"{stage}: {name} is {value}")
    if metrics.get("embedding_std", 1.0) < COLLAPSED:
        raise TrainingFailed(
            f"{stage}: the encoder collapsed to one output: the embeddings' standard deviation per dimension is "
            f"{metrics['embedding_std']:.1e}, below {COLLAPSED:.0e}"
        )


@torch.inference_mode()
def embed(method: Method, features: Tensor, batch_size: int = 64) -> tuple[Tensor, Tensor]:
    """Embeddings (N, D) and logits (N, C) of clips (N, F, T), fp32 on the CPU, by the method in eval mode."""
    if not len(features):
        return torch.empty(0, 0), torch.empty(0, 0)
    method.eval()
    device = next(method.parameters()).device
    embeddings, logits = [], []
    for start in range(0, len(features), batch_size):
        embedding, logit = method.embed(features[start : start + batch_size].to(device))
        embeddings.append(embedding.float().cpu())
        logits.append(logit.float().cpu())
    return torch.cat(embeddings), torch.cat(logits)
