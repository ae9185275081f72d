"""Pre-training by momentum contrast on two augmented views (method A's first stage; MoCo's contrast).

Legend: B batch of one worker, N global batch, F mel bands, T frames, D embedding, K queue.
"""

from __future__ import annotations

from copy import deepcopy

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
from asd_ray.methods.workers import begin_gather, rank

CORPORA = {"own": ("train",), "extra": ("extra",), "both": ("train", "extra")}


class PretrainStage(Stage):
    """Momentum contrast of two augmented views of each clip.

    A step may be one batch or several parts of one (``accumulate``), each a :meth:`forward` and a backward pass. In all
    of them the negatives are the keys that the queue held when the step began; the step's own keys enter it, and the
    key encoder moves, in :meth:`end_step`. So the parts of a batch give the gradients, queue and key encoder of the
    whole, but for what sees one part at a time: batch norm and post-norm, the mixing bank, which takes up the clips of
    every part, and the negatives where there is no queue.

    Args:
        config: settings of the stage.
        info: of the data.
        pre_norm: the method's.
        encoder: the method's, trained here as the query encoder.

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
        self.new_keys: list[Tensor] = []  # of this step; empty between steps, so that no checkpoint needs them
        self.temperature, self.momentum, self.shuffle_bn = config.temperature, config.momentum, config.shuffle_bn
        self.momentum_schedule = config.momentum_schedule

    def forward(self, inputs: Inputs, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE of clips (B, F, T); labels are not looked at. Keys of all workers will enter the queue."""
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
    def pretrained(self) -> Network:
        encoder = self.query[0]
        assert isinstance(encoder, Network)
        return encoder

    def end_step(self, progress: float = 0.0) -> None:
        """Pushes the step's keys, and moves the key encoder after the query encoder, once per optimiser step.

        That is before the next key pass, as in MoCo.

        Args:
            progress: share of the stage's steps that are done, for the schedule of m.
        """
        momentum_update(self.key, self.query, momentum_at(self.momentum, progress, self.momentum_schedule))
        if self.queue is not None and self.new_keys:
            self.queue.push(torch.cat(self.new_keys))
            self.new_keys.clear()

    @torch.no_grad()
    def _metrics(self, q: Tensor, queries: Tensor, k: Tensor, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
        """What shows whether it is learning.

        Means over this worker's clips, but for the two that need pairs, over all workers': ``uniformity``, and
        ``embedding_std``, which is 1/√D at most, and 0 when the encoder collapsed. ``queue_filled`` is the share of the
        negatives that were keys, not the random vectors that a queue starts with.
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
    """Clips that are pre-trained on, of all workers together."""
    if config.corpus != "own" and not info.extra_clips:
        raise ConfigError(
            f"method.pretrain.corpus: is {config.corpus}, but there are no clips for pre-training alone; name folders "
            "with audio in data.extra_pretraining, or take own."
        )
    return sum({"train": info.clips, "extra": info.extra_clips}[split] for split in CORPORA[config.corpus])


def _mixing(config: PretrainConfig, info: DataInfo, pre_norm: PreNorm, clips: int) -> LogMixupExp:
    bank_size = min(config.bank_size, 2 * clips)  # each clip enters with both views: more would only be more copies
    features = info.features
    scale = 1.0
    if config.mix_domain == "power":
        scale = power_scale(features["log"], float(pre_norm.std), features["power"])
    first_band = first_band_from(features, config.band_from_hz) if config.band == "high" else 0
    return LogMixupExp(config.alpha, bank_size, info.n_mels, info.frames, scale, first_band)
