"""The training loop: stages and epochs, and where a run goes on. It knows no method by name and nothing of Ray.

Legend: N clips of this worker, D embedding, C classes.

With several workers (an initialised process group) every worker calls :func:`train` with its own clips and the same
other arguments. A run that resumes at an epoch's start needs no random state to continue bit for bit: all randomness
of an epoch is derived from (seed, stage, epoch, worker).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from asd_ray.features.batches import Batches
from asd_ray.methods.base import Method, Stage
from asd_ray.methods.workers import Workers
from asd_ray.training.stage_run import EVAL_BATCH, StageRun, seed_everything


class Checkpoints(Protocol):
    """Where a run's state is kept. One implementation writes files, another reports to Ray Train."""

    def load(self) -> dict[str, Any] | None:
        """The newest complete state of this worker, or None at the start of a run."""

    def save(self, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        """Keeps the state of this worker at the end of an epoch. Every worker calls it equally often."""


def train(
    method: Method,
    clips: Callable[[tuple[str, ...]], Batches],
    seed: int,
    checkpoints: Checkpoints,
    report: Callable[[dict[str, Any]], None] = lambda metrics: None,
    probe: Callable[[], dict[str, float]] = dict,
    recall: Callable[[Stage], list[dict[str, Any]] | None] = lambda stage: None,
    after: Callable[[Stage, list[dict[str, Any]]], None] = lambda stage, history: None,
) -> list[dict[str, Any]]:
    """Trains all stages of a method, or what a checkpoint leaves of them.

    Args:
        method: on the device that trains.
        clips: gives this worker's clips of some splits of the feature store.
        seed: of this run.
        checkpoints: where state is kept after every epoch.
        report: called at the end of every epoch with its metrics, on every worker.
        probe: what else to measure every ``probe_every`` epochs and after a stage's last, on every worker.
        recall: called before each stage that starts, on every worker: takes over what an equal stage of another run has
            left, and returns the metrics of its epochs, or None where there is none.
        after: called after each stage with the metrics of its epochs, on every worker.

    Returns:
        The metrics of every epoch so far, those before a resume included.

    Raises:
        TrainingFailed: the loss is not finite, or the encoder collapsed.
    """
    workers = Workers.of_process_group()
    history: list[dict[str, Any]] = []
    state = checkpoints.load()
    seed_everything(seed, "stages")  # what a stage adds starts alike whatever the method has beside it
    stages = method.stages()
    total = sum(stage.optimiser.epochs for stage in stages)
    for number, stage in enumerate(stages):
        if state is not None and state["stage"] > number:
            continue
        if state is None and (recalled := recall(stage)) is not None:
            history += recalled
            for row in recalled:
                report(row)
            after(stage, recalled)
            continue
        run = StageRun(stage, clips(stage.corpus), seed, workers)
        epoch = 0
        if state is not None and state["stage"] == number:
            method.load_state_dict(state["method"], strict=False)
            run.load(state)
            epoch, history = state["epoch"], state["history"]
            state = None
        while not run.finished(epoch):
            metrics: dict[str, Any] = {
                "stage": stage.name,
                "epoch": len(history) + 1,
                "epochs": total,
                **run.epoch(epoch),
            }
            epoch += 1
            every = stage.optimiser.probe_every
            if every and (epoch % every == 0 or epoch == stage.optimiser.epochs):
                metrics.update(probe())
            run.remember_best(epoch, metrics)
            history.append(metrics)
            checkpoints.save(
                {
                    "stage": number,
                    "epoch": epoch,
                    "history": history,
                    "method": method.state_dict() if workers.rank == 0 else {},
                    **run.state(),
                },
                metrics,
            )
            report(metrics)
        run.restore_best()
        after(stage, [metrics for metrics in history if metrics["stage"] == stage.name])
    return history


@torch.inference_mode()
def embed(method: Method, clips: Batches, batch_size: int = EVAL_BATCH) -> tuple[Tensor, Tensor]:
    """Embeddings (N, D) and logits (N, C) of clips in order, fp32 on the CPU, by the method in eval mode."""
    method.eval()
    device = next(method.parameters()).device
    outputs = [method.embed(batch.to(device).inputs) for batch in clips.in_order(batch_size)]
    if not outputs:
        return torch.empty(0, 0), torch.empty(0, 0)
    embeddings, logits = zip(*outputs, strict=True)
    return torch.cat(embeddings).float().cpu(), torch.cat(logits).float().cpu()


@torch.inference_mode()
def finish(method: Method, clips: Batches) -> None:
    """Lets the trained method take what statistics it needs of this worker's training clips."""
    method.eval()
    method.finish(clips)
