"""Fine-tuning: a classifier of machine and ID on the pre-trained encoder (method A's second stage).

Legend: B batch, F mel bands, T frames, D features, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor

from asd_ray.augment import PreNorm
from asd_ray.config import FinetuneConfig
from asd_ray.methods.base import Inputs, Stage
from asd_ray.models.encoders import Encoder
from asd_ray.models.heads import ArcFaceHead, LinearHead


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

    def forward(self, inputs: Inputs, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of clips (B, F, T); the accuracy is that of the logits without margin."""
        x = self.encoder(self.pre_norm(inputs["log_mel"]))
        loss = nnf.cross_entropy(self.head(x, labels), labels)
        with torch.no_grad():
            accuracy = (self.head(x).argmax(dim=1) == labels).float().mean()
        return loss, {"accuracy": accuracy}
