"""Train one stage: optimiser, learning-rate schedule, epochs, validation, best epoch. Pure torch, no Ray.

Legend: N clips of this worker, B its part of the global batch.

With several workers (an initialised process group) ``DistributedDataParallel`` averages the gradients. All randomness
of an epoch comes from (seed, stage, epoch, worker).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from asd_ray.config import OptimiserConfig
from asd_ray.data.clips import Clip, stable_hash
from asd_ray.features.batches import Batches
from asd_ray.methods.base import Stage, resolve_precision
from asd_ray.methods.workers import Workers

COLLAPSED = 1e-4  # smallest standard deviation per dimension of unit vectors; uniform ones have 1/sqrt(D)
EVAL_BATCH = 64  # clips per batch without gradients


class TrainingFailed(Exception):
    """A trial cannot give a result. The message names the value that shows it (loss not finite, collapsed encoder)."""


class StageRun:
    """One stage in training, on this worker's clips.

    Args:
        stage: on the device that trains.
        clips: of this worker.
        seed: of the run.
        workers: that train together.

    Raises:
        TrainingFailed: there are too few clips for a batch.
    """

    def __init__(self, stage: Stage, clips: Batches, seed: int, workers: Workers) -> None:
        self.stage, self.seed, self.workers = stage, seed, workers
        held_out = held_out_clips(clips.clips, stage.validation)
        self.validation: Batches | None = None
        if workers.sum(float(held_out.sum())):
            self.validation, clips = clips.where(held_out), clips.where(~held_out)
        self.clips = clips
        config = stage.optimiser
        fewest = int(-workers.largest(-len(clips.clips)))  # all workers take the same number of steps
        self.accumulate = config.accumulate
        # At most the number of clips: a small set is one full batch per step.
        self.batch_size = min(max(config.batch_size // workers.size // self.accumulate, 1), fewest // self.accumulate)
        if self.batch_size < 2:
            raise TrainingFailed(
                f"{stage.name}: {fewest} training clips for each of {workers.size} workers, and a batch_size of "
                f"{config.batch_size} in {self.accumulate} parts, make batches of {self.batch_size}; batch "
                "normalisation needs at least 2: take fewer workers or parts, or a larger batch_size"
            )
        self.steps = fewest // (self.batch_size * self.accumulate)
        parameters = [parameter for parameter in stage.parameters() if parameter.requires_grad]
        self.device = parameters[0].device
        self.optimiser = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, learning_rate_factor(config, self.steps))
        self.best: dict[str, Any] | None = None
        self.step_loss: nn.Module = distributed(stage, self.device) if workers.size > 1 else stage

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train for one pass over the clips.

        Returns:
            The step metrics' means over steps and workers, ``seconds``, ``samples_per_s``, ``lr``, and with held-out
            clips ``validation_loss``.
        """
        self.stage.train()
        seed_everything(self.seed, self.stage.name, epoch, self.workers.rank)
        sums: dict[str, Tensor] = {}
        started = time.perf_counter()
        batches = self.clips.shuffled(self.batch_size, self.seed, "order", self.stage.name, epoch)
        for _ in range(self.steps):
            self.optimiser.zero_grad(set_to_none=True)
            for part in range(self.accumulate):
                batch = next(batches).to(self.device)
                with self._synchronised(part == self.accumulate - 1):
                    loss, metrics = self.step_loss(batch.inputs, batch.labels)
                    (loss / self.accumulate).backward()
                for name, value in {"loss": loss.detach(), **metrics}.items():
                    sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value.float()
            self.optimiser.step()
            self.schedule.step()
            done = self.schedule.last_epoch  # steps of the whole stage, also after a resume
            self.stage.end_step(done / (self.stage.optimiser.epochs * self.steps))
        if self.workers.size > 1:
            average_batch_norm(self.stage)
        means = self._means(sums)
        seconds = time.perf_counter() - started
        means["seconds"] = seconds
        means["samples_per_s"] = self.steps * self.accumulate * self.batch_size * self.workers.size / seconds
        means["lr"] = float(self.schedule.get_last_lr()[0])
        if self.validation is not None:
            means["validation_loss"] = self._validate(self.validation)
        check_health(self.stage.name, means)
        return means

    def _synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Average gradients over workers only in the last part of a step."""
        if last or not isinstance(self.step_loss, DistributedDataParallel):
            return nullcontext()
        return self.step_loss.no_sync()

    def _means(self, sums: dict[str, Tensor]) -> dict[str, float]:
        values = torch.stack([sums[name] for name in sums]) / (self.steps * self.accumulate)
        if self.workers.size > 1:
            dist.all_reduce(values)
            values /= self.workers.size
        return dict(zip(sums, values.tolist(), strict=True))

    @torch.inference_mode()
    def _validate(self, clips: Batches) -> float:
        self.stage.eval()
        total = 0.0
        for batch in clips.in_order(max(self.batch_size, EVAL_BATCH)):
            batch = batch.to(self.device)
            total += float(self.stage.validation_loss(batch.inputs, batch.labels))
        return self.workers.sum(total) / self.workers.sum(len(clips.clips))

    def remember_best(self, epoch: int, metrics: dict[str, Any]) -> None:
        """Keep a copy of the stage's state if this is its best epoch so far; every checkpoint holds the copy.

        The best epoch has the lowest ``validation_loss``. Without held-out clips it has the highest ``knn_auc`` (k-NN
        on the select split) of the epochs that were probed.

        Args:
            epoch: number of epochs of the stage that are done.
            metrics: of the epoch.
        """
        value = metrics.get("validation_loss", -metrics["knn_auc"] if "knn_auc" in metrics else None)
        value = self.workers.largest(math.inf if value is None else value)
        if math.isfinite(value) and (self.best is None or value < self.best["value"]):
            state = {key: tensor.detach().cpu().clone() for key, tensor in self.stage.state_dict().items()}
            self.best = {"value": value, "epoch": epoch, "state": state}

    def restore_best(self) -> None:
        """Load the best epoch's state, if the stage is to leave that behind."""
        if self.best is not None and self.stage.keep == "best":
            self.stage.load_state_dict(self.best["state"])

    def finished(self, epoch: int) -> bool:
        """True if all epochs are done, or the last ``patience`` of them were no better than the best."""
        patience = self.stage.patience
        stale = patience > 0 and self.best is not None and epoch - self.best["epoch"] >= patience
        return epoch >= self.stage.optimiser.epochs or stale

    def state(self) -> dict[str, Any]:
        """This worker's part of a checkpoint: on the first worker all state, on the others only their own buffers."""
        stage = self.stage.state_dict()
        if self.workers.rank > 0:
            stage = {key: value for key, value in stage.items() if key.startswith(self.stage.worker_local)}
            return {"stage_state": stage}
        return {
            "stage_state": stage,
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Load a checkpoint: the first worker's state, with this worker's own buffers over it."""
        self.stage.load_state_dict(state["stage_state"])
        self.best = state["best"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])


def distributed(stage: Stage, device: torch.device) -> DistributedDataParallel:
    """Wrap a stage so that gradients are averaged over all workers.

    If its networks compute in bf16, gradients travel as bf16 too: most are bf16 numbers anyway, in half the bytes.
    """
    # Never broadcast buffers: the queue is equal on all workers, and each has its own memory bank.
    parallel = DistributedDataParallel(stage, broadcast_buffers=False, gradient_as_bucket_view=True)
    precisions = {getattr(module, "precision", "fp32") for module in stage.modules()}
    if any(resolve_precision(precision, device) == torch.bfloat16 for precision in precisions):
        parallel.register_comm_hook(None, bf16_compress_hook)
    return parallel


def held_out_clips(clips: Sequence[Clip], share: float) -> np.ndarray:
    """Mask (N,) of the clips held out for validation, chosen by a hash of their paths: the same for every run."""
    return np.array([stable_hash("validation", clip.path) < share * 2**64 for clip in clips], dtype=bool)


def seed_everything(*parts: object) -> None:
    """Seed torch's random generators on all devices with a hash of the parts."""
    torch.manual_seed(stable_hash(*parts) >> 1)


def learning_rate_factor(config: OptimiserConfig, steps: int) -> Callable[[int], float]:
    """The learning rate of a step, as a factor of ``lr``: linear warm-up, then constant or half a cosine to ``lr_min``.

    Args:
        config: of the stage.
        steps: per epoch.

    Returns:
        A function of the step's number, from 0.
    """
    warmup = round(config.warmup_epochs * steps)
    total = max(config.epochs * steps, 1)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if config.schedule == "constant":
            return 1.0
        if config.schedule == "cosine_epochs":
            step = max(step - step % steps, warmup)
        least = config.lr_min / config.lr
        return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))

    return factor


def average_batch_norm(module: nn.Module) -> None:
    """Average batch normalisation's running statistics over workers, so that all have the same network."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    layers = [child for child in module.modules() if isinstance(child, kinds)]
    buffers = [buffer for layer in layers for buffer in (layer.running_mean, layer.running_var) if buffer is not None]
    if buffers:
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for buffer, mean in zip(buffers, flat.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))


def check_health(stage: str, metrics: dict[str, float]) -> None:
    """Stop a trial whose metrics show that training has failed.

    Raises:
        TrainingFailed: a metric is not finite, or the embeddings have collapsed. Names the value.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise TrainingFailed(f"{stage}: {name} is {value}")
    if metrics.get("embedding_std", 1.0) < COLLAPSED:
        raise TrainingFailed(
            f"{stage}: the encoder collapsed to one output: the embeddings' standard deviation per dimension is "
            f"{metrics['embedding_std']:.1e}, below {COLLAPSED:.0e}"
        )
