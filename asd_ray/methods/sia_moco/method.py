"""Method A, put together: encoder, pre-training, fine-tuning, embedding.

Legend: B batch of one worker, F mel bands, T frames, D features, C classes.

Meng et al., "Contrastive learning with spectrum information augmentation in abnormal sound detection", arXiv
2509.15570. Known are the two augmentations, a ResNet-50, InfoNCE, m = 0.99, and Adam with 0.0009. Everything else is a
setting (:class:`asd_ray.config.SiaMocoConfig`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from asd_ray.config.sia_moco import FinetuneConfig, SiaMocoConfig
from asd_ray.methods.base import DataInfo, Inputs, Method, Stage
from asd_ray.methods.blocks.heads import ArcFaceHead, LinearHead
from asd_ray.methods.blocks.networks import Network, check_name
from asd_ray.methods.sia_moco.augment import PreNorm
from asd_ray.methods.sia_moco.finetune import FinetuneStage, Trunk, build_trunk
from asd_ray.methods.sia_moco.pretrain import PretrainStage
from asd_ray.methods.sia_moco.published import fingerprint, load_encoder
from asd_ray.registry import register_method


@register_method("sia_moco", config=SiaMocoConfig)
class SiaMoco(Method):
    """Pre-norm, encoder, trunk and head: everything that a detector needs.

    Args:
        config: settings of the method.
        info: of the data.

    Attributes:
        encoder: the pre-trained network; None with ``coupling: none``.
        trunk: the network below the head; None if it is the encoder itself (a module is registered once).

    Raises:
        ConfigError: a network does not exist or does not fit the data, or the folder of ``init_from`` does not contain
            such an encoder.
    """

    def __init__(self, config: SiaMocoConfig, info: DataInfo) -> None:
        super().__init__()
        self.config, self.info = config, info
        self.pre_norm = PreNorm(info.mean, info.std)
        self.encoder = None if config.finetune.coupling == "none" else self._encoder()
        trunk = build_trunk(config.finetune, self.encoder, info.n_mels, info.frames, config.precision, config.compile)
        self.trunk = None if trunk is self.encoder else trunk
        self.head = _head(config.finetune, trunk.num_features, len(info.classes))

    @classmethod
    def check(cls, config: SiaMocoConfig) -> None:
        coupling = config.finetune.coupling
        if coupling != "none":
            check_name(config.pretrain.encoder, "method.pretrain.encoder")
        if coupling in ("channel", "none"):
            check_name(config.finetune.network, "method.finetune.network")

    @classmethod
    def fingerprints(cls, config: SiaMocoConfig) -> tuple[str, ...]:
        return () if config.pretrain.init_from is None else (fingerprint(Path(config.pretrain.init_from)),)

    def stages(self) -> Sequence[Stage]:
        """Build pre-training and fine-tuning on the method's device; a stage of 0 epochs is left out.

        The key encoder starts as a copy of the encoder. Without an encoder there is no pre-training.
        """
        stages: list[Stage] = []
        if self.encoder is not None and self.config.pretrain.epochs:
            stages.append(PretrainStage(self.config.pretrain, self.info, self.pre_norm, self.encoder))
        if self.config.finetune.epochs:
            stages.append(FinetuneStage(self.config.finetune, self.pre_norm, self._trunk, self.head))
        device = next(self.parameters()).device
        return [stage.to(device) for stage in stages]

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Features (B, D) below the head, and logits (B, C) without margin, of clips ``log_mel`` (B, F, T).

        The features are of the encoder (``coupling: encoder`` and ``frozen``) or of the light network (``channel`` and
        ``none``).
        """
        embedding = self._trunk(self.pre_norm(inputs["log_mel"]))
        return embedding, self.head(embedding)

    @property
    def _trunk(self) -> Trunk:
        trunk = self.encoder if self.trunk is None else self.trunk
        assert trunk is not None
        return trunk

    def _encoder(self) -> Network:
        config, info, precision, compiled = self.config.pretrain, self.info, self.config.precision, self.config.compile
        key = "method.pretrain.encoder"
        encoder = Network(config.encoder, info.n_mels, info.frames, 1, precision, compiled, key)
        if config.init_from is not None and not info.restored:
            load_encoder(Path(config.init_from), encoder, info)
        return encoder


def _head(config: FinetuneConfig, features: int, classes: int) -> LinearHead | ArcFaceHead:
    if config.head == "linear":
        return LinearHead(features, classes)
    return ArcFaceHead(features, classes, config.scale, config.margin)
