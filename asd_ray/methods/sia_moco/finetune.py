"""Fine-tuning, the second stage of method A: a classifier of the training clips.

Legend: B batch, I input channels, F mel bands, T frames, D features, C classes, h and w sides of a feature map.

The paper (Meng et al., arXiv 2509.15570) fine-tunes "a light downstream network" on the pre-trained representation; how
this network gets the representation is unknown. The setting ``coupling`` has the possible meanings:

* ``encoder``: the head is on the encoder, and both are trained;
* ``channel``: the encoder's feature map is a second input channel of the light network, as Tgram is in STgram-MFN (Liu
  et al., ICASSP 2022);
* ``frozen``: the encoder's pooled features are the input of the head. There is no light network: a feature map of
  4 × 10 (ResNet-50 at 128 × 313) is too small for a CNN that divides both sides by 16 or 32;
* ``none``: the light network without an encoder, the ablation of the others.

In ``channel`` and ``frozen`` the encoder is not trained further: a step needs no backward pass through it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from asd_ray.config import FinetuneConfig
from asd_ray.errors import ConfigError
from asd_ray.methods.base import Inputs, Stage
from asd_ray.methods.blocks.heads import ArcFaceHead, LinearHead
from asd_ray.methods.blocks.mixup import draw_mixup, mixed_accuracy, mixed_cross_entropy
from asd_ray.methods.blocks.networks import Network
from asd_ray.methods.sia_moco.augment import PreNorm


class Frozen:
    """An encoder in eval mode and without gradient.

    This is not a module, so that its owner does not own the encoder's parameters: ``DistributedDataParallel`` does not
    wait for their gradients, workers do not average its batch norm, and a state dict contains the encoder once.

    Args:
        encoder: the method's.
    """

    def __init__(self, encoder: Network) -> None:
        self.encoder = encoder

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """(B, F, T) pre-normed to pooled features (B, D)."""
        return self.encoder.eval()(x)

    @torch.no_grad()
    def feature_map(self, x: Tensor) -> Tensor:
        """(B, F, T) pre-normed to the last feature map before pooling, fp32, (B, channels, h, w) of most networks."""
        return self.encoder.eval().feature_map(x)


class FrozenFeatures(nn.Module):
    """The coupling ``frozen``: the head is on the pooled features of the frozen encoder.

    They are computed at every step, because mixup changes the clips.

    Args:
        encoder: the method's.

    Attributes:
        num_features: D.
    """

    def __init__(self, encoder: Network) -> None:
        super().__init__()
        self.encoder, self.num_features = Frozen(encoder), encoder.num_features

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, T) pre-normed to (B, D)."""
        return self.encoder.features(x)


class ChannelNetwork(nn.Module):
    """The coupling ``channel``: the light network sees the Log-Mel and the frozen encoder's feature map.

    A 1 × 1 convolution reduces the map to one channel, batch norm gives it mean 0 and variance 1, as the Log-Mel has,
    and bilinear interpolation the size of the Log-Mel. Convolution and norm are trained with the light network.

    Args:
        encoder: the method's.
        light: the light network, with I = 2.
        n_mels: F.
        frames: T.

    Attributes:
        num_features: D of the light network.

    Raises:
        ConfigError: the encoder has no feature map.
    """

    def __init__(self, encoder: Network, light: Network, n_mels: int, frames: int) -> None:
        super().__init__()
        self.encoder, self.light, self.num_features = Frozen(encoder), light, light.num_features
        shape = self.encoder.feature_map(torch.zeros(1, n_mels, frames)).shape
        encoder.train()
        # in timm's networks with channels last, the last side is num_features
        if len(shape) != 4 or shape[1] != encoder.network.num_features:
            raise ConfigError(
                f"method.finetune.coupling: channel needs an encoder whose last feature map is (channels, height, "
                f"width), but that of {encoder.name} has the shape {tuple(shape[1:])}; choose a convolutional network "
                "or another coupling."
            )
        self.reduce = nn.Sequential(nn.Conv2d(shape[1], 1, 1, bias=False), nn.BatchNorm2d(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, T) pre-normed to (B, D)."""
        channel = self.reduce(self.encoder.feature_map(x))  # (B, 1, h, w)
        channel = nnf.interpolate(channel, size=x.shape[1:], mode="bilinear", align_corners=False)
        return self.light(torch.cat([x.unsqueeze(1), channel], dim=1))


Trunk = Network | FrozenFeatures | ChannelNetwork
"""The network below the head: pre-normed clips (B, F, T) to embeddings (B, D), where D is ``num_features``."""


def build_trunk(
    config: FinetuneConfig,
    encoder: Network | None,
    n_mels: int,
    frames: int,
    precision: str = "auto",
    compile: bool = False,
) -> Trunk:
    """Build the network below the head for ``config.coupling``.

    Args:
        config: settings of fine-tuning.
        encoder: the method's; None with ``coupling: none``.
        n_mels: F.
        frames: T.
        precision: of the light network.
        compile: whether to compile the light network.

    Raises:
        ConfigError: the light network does not exist or does not fit, or the encoder has no feature map.
    """
    if encoder is not None and config.coupling == "encoder":
        return encoder
    if encoder is not None and config.coupling == "frozen":
        return FrozenFeatures(encoder)
    channels = 1 if encoder is None else 2
    light = Network(config.network, n_mels, frames, channels, precision, compile, key="method.finetune.network")
    return light if encoder is None else ChannelNetwork(encoder, light, n_mels, frames)


class FinetuneStage(Stage):
    """Classification of the training clips by machine and ID, or more finely (``data.classes``).

    Args:
        config: settings of the stage.
        pre_norm: the method's.
        trunk: the method's network below the head.
        head: the method's.
    """

    name = "finetune"

    def __init__(self, config: FinetuneConfig, pre_norm: PreNorm, trunk: Trunk, head: LinearHead | ArcFaceHead) -> None:
        super().__init__()
        self.optimiser = config
        self.validation, self.patience, self.keep = config.validation, config.patience, config.keep
        self.mixup = config.mixup
        self.pre_norm, self.trunk, self.head = pre_norm, trunk, head

    def forward(self, inputs: Inputs, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of clips ``log_mel`` (B, F, T), and the accuracy of the logits without margin.

        With mixup, x = λ x_a + (1 − λ) x_b of pre-normed clips. This equals the pre-norm of mixed Log-Mels, because the
        weights sum to 1. The loss is λ CE(y_a) + (1 − λ) CE(y_b) of the same logits, with the margin on y_a; the
        accuracy has the same weights.
        """
        x, partners, ratio = self.pre_norm(inputs["log_mel"]), labels, 1.0
        if self.mixup:
            ratio, partner = draw_mixup(self.mixup, len(x), x.device)
            x, partners = ratio * x + (1 - ratio) * x[partner], labels[partner]
        embedding = self.trunk(x)
        logits = self.head(embedding, labels)
        with torch.no_grad():
            accuracy = mixed_accuracy(self.head(embedding), labels, partners, ratio)
        return mixed_cross_entropy(logits, labels, partners, ratio), {"accuracy": accuracy}

    def validation_loss(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """The sum over clips of the cross-entropy without mixup and without margin, fp64.

        Scores come from logits without margin, and losses without margin can be compared between margins. The code of
        OS-SCL validates with the margin.
        """
        logits = self.head(self.trunk(self.pre_norm(inputs["log_mel"])))
        # With s = 30 a logit is often 17 above the others: in fp32 its loss is 0, and epochs could not be compared.
        return nnf.cross_entropy(logits.double(), labels, reduction="sum")

    def extra_repr(self) -> str:
        return f"mixup={self.mixup}"
