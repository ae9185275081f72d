"""Contrastive pre-training with spectrum-information augmentation, then a classifier of machine and ID.

Legend: B batch of one worker, N global batch, F mel bands, T frames, D features, C classes, K queue.

Method A: Meng et al., "Contrastive learning with spectrum information augmentation in abnormal sound detection",
arXiv 2509.15570. Known of it: the two augmentations, a ResNet-50, InfoNCE, m = 0.99, Adam with 0.0009. What the paper
leaves open is a setting (:class:`asd_ray.config.SiaMocoConfig`), and the contrast is MoCo's.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from asd_ray.augment import LogMixupExp, PreNorm, RandomResizeCrop, TwoViews
from asd_ray.config import FinetuneConfig, PretrainConfig, SiaMocoConfig
from asd_ray.losses import alignment, info_nce, uniformity
from asd_ray.methods.base import DataInfo, Method, Stage
from asd_ray.moco import KeyQueue, forward_keys, gather, momentum_at, momentum_update, rank
from asd_ray.models.encoders import Encoder
from asd_ray.models.heads import ArcFaceHead, LinearHead, projection


class PretrainStage(Stage):
    """Momentum contrast of two augmented views of each clip.

    Args:
        config: settings of the stage.
        info: of the data.
        pre_norm: the method's.
        encoder: the method's, trained here as the query encoder.
    """

    name = "pretrain"
    worker_local = ("views.mix.bank.",)

    def __init__(self, config: PretrainConfig, info: DataInfo, pre_norm: PreNorm, encoder: Encoder) -> None:
        super().__init__()
        self.optimiser = config
        # Beyond twice the clips (each enters with both views) a larger bank holds only more copies of the same.
        bank_size = min(config.bank_size, 2 * info.clips)
        self.views = TwoViews(
            pre_norm,
            LogMixupExp(config.alpha, bank_size, info.n_mels, info.frames),
            RandomResizeCrop(config.crop_scale, config.canvas),
        )
        self.query = nn.Sequential(encoder, projection(config.projection, encoder.num_features, config.dim))
        self.key = deepcopy(self.query).requires_grad_(False)
        self.queue = KeyQueue(config.queue_size, config.dim) if config.queue_size else None
        self.temperature, self.momentum, self.shuffle_bn = config.temperature, config.momentum, config.shuffle_bn
        self.momentum_schedule = config.momentum_schedule

    def forward(self, features: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE of (B, F, T) raw features; labels are not looked at. Keys of all workers enter the queue."""
        query_view, key_view = self.views(features)
        q = nnf.normalize(self.query(query_view), dim=1)  # (B, D)
        keys = forward_keys(lambda x: nnf.normalize(self.key(x), dim=1), key_view, self.shuffle_bn)  # (N, D)
        own = rank() * len(q) + torch.arange(len(q), device=q.device)
        positive = (q * keys[own]).sum(dim=1)  # (B,)
        if self.queue is None:
            others = (own[:, None] + torch.arange(1, len(keys), device=q.device)) % len(keys)
            negative = (q @ keys.T).gather(1, others)  # (B, N - 1)
        else:
            # A copy: the gradient needs what the queue held before the keys enter it.
            negative = q @ self.queue.items.clone().T  # (B, K)
            self.queue.push(keys)
        loss = info_nce(positive, negative, self.temperature)
        return loss, self._metrics(q.detach(), keys[own], positive.detach(), negative.detach())

    def end_step(self, progress: float = 0.0) -> None:
        """Moves the key encoder after the query encoder, once per optimiser step.

        That is before the next key pass, as in MoCo, and right with accumulated gradients too.

        Args:
            progress: share of the stage's steps that are done, for the schedule of m.
        """
        momentum_update(self.key, self.query, momentum_at(self.momentum, progress, self.momentum_schedule))

    @torch.no_grad()
    def _metrics(self, q: Tensor, k: Tensor, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
        """What shows whether it is learning. ``embedding_std`` is 1/√D at most, and 0 when the encoder collapsed."""
        queries = gather(q)
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


class FinetuneStage(Stage):
    """Classification of the training clips by machine and ID, encoder and head together.

    Args:
        config: settings of the stage.
        pre_norm: the method's.
        encoder: the method's.
        head: the method's.
    """

    name = "finetune"

    def __init__(
        self, config: FinetuneConfig, pre_norm: PreNorm, encoder: Encoder, head: LinearHead | ArcFaceHead
    ) -> None:
        super().__init__()
        self.optimiser = config
        self.pre_norm, self.encoder, self.head = pre_norm, encoder, head

    def forward(self, features: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of (B, F, T) raw features; the accuracy is that of the logits without margin."""
        x = self.encoder(self.pre_norm(features))
        loss = nnf.cross_entropy(self.head(x, labels), labels)
        with torch.no_grad():
            accuracy = (self.head(x).argmax(dim=1) == labels).float().mean()
        return loss, {"accuracy": accuracy}


class SiaMoco(Method):
    """The encoder with its pre-norm and classifier: all that a trained detector needs.

    Args:
        config: settings of the method.
        info: of the data.

    Raises:
        ConfigError: the encoder is not one of timm's, or a crop's range is not one.
    """

    def __init__(self, config: SiaMocoConfig, info: DataInfo) -> None:
        super().__init__()
        self.config, self.info = config, info
        self.pre_norm = PreNorm(info.mean, info.std)
        self.encoder = Encoder(config.pretrain.encoder, info.n_mels, info.frames, config.precision)
        self.head = _head(config.finetune, self.encoder.num_features, len(info.classes))

    def stages(self) -> Sequence[Stage]:
        """Pre-training and fine-tuning, built anew on the method's device; a stage of no epochs is left out.

        The key encoder starts as a copy of what the encoder is now.
        """
        stages: list[Stage] = []
        if self.config.pretrain.epochs:
            stages.append(PretrainStage(self.config.pretrain, self.info, self.pre_norm, self.encoder))
        if self.config.finetune.epochs:
            stages.append(FinetuneStage(self.config.finetune, self.pre_norm, self.encoder, self.head))
        device = next(self.parameters()).device
        return [stage.to(device) for stage in stages]

    def embed(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features (B, D) of the encoder and logits (B, C) without margin, of raw features (B, F, T)."""
        embedding = self.encoder(self.pre_norm(features))
        return embedding, self.head(embedding)


def _head(config: FinetuneConfig, features: int, classes: int) -> LinearHead | ArcFaceHead:
    if config.head == "linear":
        return LinearHead(features, classes)
    return ArcFaceHead(features, classes, config.scale, config.margin)
