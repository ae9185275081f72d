"""Base classes of methods and of their training stages. The training loop knows no method by name.

Legend: B batch, F mel bands, T frames, S samples, D embedding, C classes.

A method is a network with one or more stages, which are trained one after the other. A stage is a module whose
``forward`` returns the loss of a whole training step, so that ``DistributedDataParallel`` can wrap it. Its parameters
and buffers hold all that a resumed run needs (queue, key encoder, memory bank). After the last stage the method embeds
clips.

A method gets columns of the feature store, by name, on the training device and as they are stored:
``log_mel`` (B, F, T) fp16 raw Log-Mel features, ``waveform`` (B, S) int16 samples at full scale 32768.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asd_ray.config.optimiser import OptimiserConfig
from asd_ray.data.clips import groups_of
from asd_ray.features.batches import Batches

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class DataInfo:
    """Facts about the data that a method is built with.

    Attributes:
        n_mels: F.
        frames: T.
        classes: names of the C classes of the training clips (:func:`asd_ray.data.clips.class_names`), in label order.
        mean: mean of all training features, the pre-norm's μ.
        std: their standard deviation, the pre-norm's σ.
        clips: number of training clips of all workers together.
        workers: number of workers that train together.
        extra_clips: number of clips for pre-training alone (``data.extra_pretraining``).
        features: the settings that decide what the features are (:attr:`asd_ray.features.store.Manifest.settings`).
        restored: True when a saved detector's weights will be loaded; a method then reads no other weights.
    """

    n_mels: int
    frames: int
    classes: tuple[str, ...]
    mean: float
    std: float
    clips: int
    workers: int = 1
    extra_clips: int = 0
    features: Mapping[str, Any] = field(default_factory=dict)
    restored: bool = False

    @property
    def groups(self) -> list[str]:
        """Groups ``machine/id`` of the training clips. A class is a group, or a part of one."""
        return groups_of(self.classes)


class Stage(nn.Module, ABC):
    """One phase of training, with its own optimiser and schedule."""

    name: str
    optimiser: OptimiserConfig
    corpus: tuple[str, ...] = ("train",)
    """Splits of the feature store that it trains on: ``train``, ``extra`` (``data.extra_pretraining``), or both."""
    validation: float = 0.0
    """Share of the training clips that is held out and measured after every epoch, by a hash of their paths."""
    patience: int = 0
    """Epochs without a better validation loss after which the stage ends; 0 trains them all."""
    keep: str = "last"
    """Weights that the stage leaves behind: those of the ``last`` epoch, or of the ``best``."""
    settings: tuple[str, ...] = ("method",)
    """Keys of the study that decide the stage's result. Trials with the same values of them may share it."""
    worker_local: tuple[str, ...] = ()
    """Prefixes of ``state_dict`` keys that differ between workers (a memory bank of each worker's own clips)."""

    @abstractmethod
    def forward(self, inputs: Inputs, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """One step on this worker's part of the global batch.

        Args:
            inputs: the method's columns.
            labels: (B,) class numbers.

        Returns:
            The scalar loss, and detached scalars that are averaged over the epoch and reported.
        """

    def validation_loss(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """Sum over held-out clips of the loss that epochs are compared by. Called in eval mode, without gradients."""
        raise NotImplementedError(f"{type(self).__name__} holds no clips out.")

    @property
    def trained(self) -> nn.Module | None:
        """The part of the method that holds all that this stage leaves behind, or None for the whole method."""
        return None

    def publish(self, folder: Path, study: Mapping[str, Any], info: DataInfo) -> None:
        """Save what others may start from, after this stage and before the next one changes it. Default: nothing.

        Args:
            folder: of the run, in which a stage makes a folder of its own.
            study: resolved, with the trial's values, as ``StudyConfig.model_dump(mode="json")`` gives it.
            info: of the data.
        """

    def end_step(self, progress: float) -> None:
        """Called after every optimiser step.

        Args:
            progress: share of the stage's steps that are done, above 0 to 1.
        """


class Method(nn.Module, ABC):
    """A network, its stages, and the embedding that they leave behind.

    Args:
        config: settings of the method, the class that :func:`asd_ray.registry.register_method` names.
        info: of the data.
    """

    has_own_score: bool = False
    """Whether the method has an anomaly score of its own (:meth:`own_score`)."""

    @classmethod
    def check(cls, config: Any) -> None:
        """Check settings of the method that only libraries know, such as the names of networks.

        Raises:
            ConfigError: a setting names what does not exist.
        """

    @classmethod
    def fingerprints(cls, config: Any) -> tuple[str, ...]:
        """Hashes of the files that the settings name (``config.paths``) and that training starts from.

        Raises:
            ConfigError: a file is not there.
        """
        return ()

    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """The stages in training order. Stages share the method's modules; a stage may add its own."""

    @abstractmethod
    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Embeddings (B, D) and class logits (B, C), fp32, of clips. Called in eval mode, no grad."""

    def finish(self, clips: Batches) -> None:
        """Compute statistics of the trained network. What a detector needs of them goes into buffers.

        Called once after the last stage, in eval mode and without gradients, on every worker with its own training
        clips.
        """

    def own_score(self, embedding: Tensor, groups: Sequence[str]) -> Tensor:
        """The method's own score (``evaluation.score: own``), if :attr:`has_own_score` is set.

        Args:
            embedding: (B, D), fp32, on the method's device.
            groups: B names ``machine/id``, also of IDs that were never trained.

        Returns:
            (B,), higher for more anomalous clips.

        Raises:
            AsdRayError: it has no score for clips of such a machine.
        """
        raise NotImplementedError(f"{type(self).__name__} has no score of its own.")


@torch.inference_mode()
def own_scores(method: Method, embedding: Tensor, groups: Sequence[str]) -> Tensor:
    """The method's own scores (N,) of clips by their embeddings (N, D) and ``machine/id``, fp32 on the CPU; none (0,)
    if it has no score of its own."""
    if not method.has_own_score or not len(embedding):
        return torch.empty(0)
    device = next(method.parameters()).device
    return method.own_score(embedding.to(device), groups).float().cpu()


def resolve_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast dtype for ``auto | fp32 | bf16`` on a device, or None for plain fp32."""
    if precision == "bf16":
        return torch.bfloat16
    if precision == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
        flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        if flags.get("avx512_bf16") or flags.get("amx_bf16"):
            return torch.bfloat16
    return None
