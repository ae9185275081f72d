"""The training loop: train the stages of any method, epoch by epoch, or resume from a checkpoint. No Ray here.

Legend: N clips of this worker, D embedding, C classes.

With several workers (an initialised process group) every worker calls :func:`train` with its own clips and otherwise
the same arguments. All randomness of an epoch comes from (seed, stage, epoch, worker), so a resumed run continues bit
for bit without a stored random state.
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
    """Storage of a run's state. One implementation writes files, another reports to Ray Train."""

    def load(self) -> dict[str, Any] | None:
        """The newest complete state of this worker, or None for a new run.

        The first worker's state, with this worker's own ``stage_state`` entries over it.
        """

    def save(self, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        """Store the state of this worker at the end of an epoch. Every worker calls it equally often."""


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
    """Train all stages of a method, or resume from the last checkpoint.

    Args:
        method: on the device that trains.
        clips: takes splits of the feature store and returns this worker's clips of them.
        seed: of this run.
        checkpoints: where state is stored after every epoch.
        report: called at the end of every epoch with its metrics, on every worker.
        probe: returns further metrics; called every ``probe_every`` epochs and after a stage's last, on every worker.
        recall: called before a stage starts, on every worker. It loads the weights of an equal stage of another run and
            returns the metrics of its epochs, or returns None to have the stage trained.
        after: called after each stage with the metrics of its epochs, on every worker.

    Returns:
        The metrics of every epoch, including those before a resume.

    Raises:
        TrainingFailed: the loss is not finite, or the encoder collapsed.
    """
    workers = Workers.of_process_group()
    history: list[dict[str, Any]] = []
    state = checkpoints.load()
    seed_everything(seed, "stages")  # a stage's own parts start alike, whatever else the method has
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
            method.load_state_dict(state["method"])
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
            state_now = {"stage": number, "epoch": epoch, "history": history, **run.state()}
            if workers.rank == 0:  # the same on every worker
                state_now["method"] = method.state_dict()
            checkpoints.save(state_now, metrics)
            report(metrics)
        run.restore_best()
        after(stage, [metrics for metrics in history if metrics["stage"] == stage.name])
    return history


@torch.inference_mode()
def embed(method: Method, clips: Batches, batch_size: int = EVAL_BATCH) -> tuple[Tensor, Tensor]:
    """Embeddings (N, D) and logits (N, C) of clips in their order, fp32 on the CPU, in eval mode."""
    method.eval()
    device = next(method.parameters()).device
    outputs = [method.embed(batch.to(device).inputs) for batch in clips.in_order(batch_size)]
    if not outputs:
        return torch.empty(0, 0), torch.empty(0, 0)
    embeddings, logits = zip(*outputs, strict=True)
    return torch.cat(embeddings).float().cpu(), torch.cat(logits).float().cpu()


@torch.inference_mode()
def finish(method: Method, clips: Batches) -> None:
    """Let the trained method compute the statistics it needs from this worker's training clips."""
    method.eval()
    method.finish(clips)
