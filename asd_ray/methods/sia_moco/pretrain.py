"""Pre-training, the first stage of method A: momentum contrast (MoCo) of two augmented views.

Legend: B batch of one worker, N global batch, F mel bands, T frames, D embedding, K queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from asd_ray.config import PretrainConfig
from asd_ray.errors import ConfigError
from asd_ray.methods.base import DataInfo, Inputs, Stage
from asd_ray.methods.blocks.heads import projection
from asd_ray.methods.blocks.losses import alignment, info_nce, uniformity
from asd_ray.methods.blocks.networks import Network
from asd_ray.methods.sia_moco.augment import (
    LogMixupExp,
    PreNorm,
    RandomResizeCrop,
    TwoViews,
    first_band_from,
    power_scale,
)
from asd_ray.methods.sia_moco.moco import KeyQueue, begin_keys, momentum_at, momentum_update
from asd_ray.methods.sia_moco.published import save_encoder
from asd_ray.methods.workers import begin_gather, rank

CORPORA = {"own": ("train",), "extra": ("extra",), "both": ("train", "extra")}


class PretrainStage(Stage):
    """Momentum contrast of two augmented views of each clip.

    A step is one batch or several parts of one (``accumulate``), each with a :meth:`forward` and a backward pass. The
    negatives of all parts are the keys in the queue at the start of the step. In :meth:`end_step` the keys of the step
    enter the queue, and the key encoder moves. So the parts of a batch give the gradients, queue and key encoder of the
    whole batch, except for what depends on a single part: batch norm, post-norm, the mixing bank, and the negatives if
    there is no queue.

    Args:
        config: settings of the stage.
        info: of the data.
        pre_norm: the method's.
        encoder: the method's; this stage trains it, as the query encoder f_q.

    Raises:
        ConfigError: the corpus has no clips, or the settings of the augmentations do not fit the features.
    """

    name = "pretrain"
    settings = ("method.pretrain", "method.precision", "method.compile")
    worker_local = ("views.mix.bank.",)

    def __init__(self, config: PretrainConfig, info: DataInfo, pre_norm: PreNorm, encoder: Network) -> None:
        super().__init__()
        self.optimiser = config
        self.corpus, self.keep = CORPORA[config.corpus], config.keep
        mix = _mixing(config, info, pre_norm, _count(config, info))
        self.views = TwoViews(pre_norm, mix, RandomResizeCrop(config.crop_scale, config.canvas))
        self.query = nn.Sequential(encoder, projection(config.projection, encoder.num_features, config.dim))
        self.key = deepcopy(self.query).requires_grad_(False)
        self.queue = KeyQueue(config.queue_size, config.dim) if config.queue_size else None
        self.new_keys: list[Tensor] = []  # keys of this step; empty between steps, and therefore in no checkpoint
        self.temperature, self.momentum, self.shuffle_bn = config.temperature, config.momentum, config.shuffle_bn
        self.momentum_schedule = config.momentum_schedule

    def forward(self, inputs: Inputs, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE of clips ``log_mel`` (B, F, T). Labels are ignored. The keys of all workers will enter the queue."""
        query_view, key_view = self.views(inputs["log_mel"])
        encode_keys = begin_keys(key_view, self.shuffle_bn)
        q = nnf.normalize(self.query(query_view), dim=1)  # (B, D)
        queries = begin_gather(q)
        keys = encode_keys(lambda x: nnf.normalize(self.key(x), dim=1))  # (N, D)
        own = rank() * len(q) + torch.arange(len(q), device=q.device)
        positive = (q * keys[own]).sum(dim=1)  # (B,)
        if self.queue is None:
            others = (own[:, None] + torch.arange(1, len(keys), device=q.device)) % len(keys)
            negative = (q @ keys.T).gather(1, others)  # (B, N - 1)
        else:
            negative = q @ self.queue.items.T  # (B, K)
            self.new_keys.append(keys)
        loss = info_nce(positive, negative, self.temperature)
        return loss, self._metrics(q.detach(), queries(), keys[own], positive.detach(), negative.detach())

    @property
    def trained(self) -> Network:
        encoder = self.query[0]
        assert isinstance(encoder, Network)
        return encoder

    def publish(self, folder: Path, study: Mapping[str, Any], info: DataInfo) -> None:
        """Save the encoder in the folder ``encoder``."""
        save_encoder(folder / "encoder", self.trained, study, info)

    def end_step(self, progress: float = 0.0) -> None:
        """Push the keys of the step, and move the key encoder towards the query encoder.

        Once per optimiser step, so before the next pass of the key encoder, as in MoCo.

        Args:
            progress: completed share of the stage's steps, for the schedule of m.
        """
        momentum_update(self.key, self.query, momentum_at(self.momentum, progress, self.momentum_schedule))
        if self.queue is not None and self.new_keys:
            self.queue.push(torch.cat(self.new_keys))
            self.new_keys.clear()

    @torch.no_grad()
    def _metrics(self, q: Tensor, queries: Tensor, k: Tensor, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
        """Metrics of the training's progress.

        Means over the clips of this worker; ``uniformity`` and ``embedding_std``, over those of all workers.
        ``embedding_std`` is at most 1/√D, and 0 if the encoder collapsed. ``queue_filled`` is the share of the queue's
        initial random vectors that keys have replaced.
        """
        metrics = {
            "positive_similarity": positive.mean(),
            "negative_similarity": negative.mean(),
            "alignment": alignment(q, k),
            "uniformity": uniformity(queries),
            "embedding_std": queries.std(dim=0).mean(),
        }
        if self.queue is not None:
            metrics["queue_filled"] = self.queue.count / len(self.queue)
        return metrics

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, momentum={self.momentum}, shuffle_bn={self.shuffle_bn}"


def _count(config: PretrainConfig, info: DataInfo) -> int:
    """Number of clips to pre-train on, of all workers together."""
    if config.corpus != "own" and not info.extra_clips:
        raise ConfigError(
            f"method.pretrain.corpus: is {config.corpus}, but there are no clips for pre-training alone; name folders "
            "with audio in data.extra_pretraining, or take own."
        )
    return sum({"train": info.clips, "extra": info.extra_clips}[split] for split in CORPORA[config.corpus])


def _mixing(config: PretrainConfig, info: DataInfo, pre_norm: PreNorm, clips: int) -> LogMixupExp:
    bank_size = min(config.bank_size, 2 * clips)  # each clip enters twice; a larger bank would hold copies
    features = info.features
    scale = 1.0
    if config.mix_domain == "power":
        scale = power_scale(features["log"], float(pre_norm.std), features["power"])
    first_band = first_band_from(features, config.band_from_hz) if config.band == "high" else 0
    return LogMixupExp(config.alpha, bank_size, info.n_mels, info.frames, scale, first_band)
