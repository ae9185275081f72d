"""Pre-training by momentum contrast on two augmented views (method A's first stage; MoCo's contrast).

Legend: B batch of one worker, N global batch, F mel bands, T frames, D embedding, K queue.
"""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from asd_ray.augment import LogMixupExp, PreNorm, RandomResizeCrop, TwoViews
from asd_ray.config import PretrainConfig
from asd_ray.losses import alignment, info_nce, uniformity
from asd_ray.methods.base import DataInfo, Inputs, Stage
from asd_ray.moco import KeyQueue, forward_keys, gather, momentum_at, momentum_update, rank
from asd_ray.models.encoders import Encoder
from asd_ray.models.heads import projection


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

    def forward(self, inputs: Inputs, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE of clips (B, F, T); labels are not looked at. Keys of all workers enter the queue."""
        query_view, key_view = self.views(inputs["log_mel"])
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
