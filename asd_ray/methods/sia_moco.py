"""Contrastive pre-training with spectrum-information augmentation, then a classifier of machine and ID.

Legend: B batch of one worker, N global batch, F mel bands, T frames, D features, C classes, K queue.

Method A: Meng et al., "Contrastive learning with spectrum information augmentation in abnormal sound detection",
arXiv 2509.15570. Known of it: the two augmentations, a ResNet-50, InfoNCE, m = 0.99, Adam with 0.0009. What the paper
leaves open is a setting (:class:`asd_ray.config.SiaMocoConfig`), and the contrast is MoCo's.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from asd_ray.augment import PreNorm
from asd_ray.config import FinetuneConfig, SiaMocoConfig
from asd_ray.methods.base import DataInfo, Inputs, Method, Stage
from asd_ray.methods.finetune import FinetuneStage
from asd_ray.methods.pretrain import PretrainStage
from asd_ray.models.encoders import Encoder
from asd_ray.models.heads import ArcFaceHead, LinearHead


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

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Pooled features (B, D) of the encoder and logits (B, C) without margin, of clips (B, F, T)."""
        embedding = self.encoder(self.pre_norm(inputs["log_mel"]))
        return embedding, self.head(embedding)


def _head(config: FinetuneConfig, features: int, classes: int) -> LinearHead | ArcFaceHead:
    if config.head == "linear":
        return LinearHead(features, classes)
    return ArcFaceHead(features, classes, config.scale, config.margin)
