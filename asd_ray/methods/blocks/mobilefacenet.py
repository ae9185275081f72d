"""MobileFaceNet, in the variant of anomalous sound detection.

Legend: B batch, I input channels, F mel bands, T frames; after s strides of 2 a side of n is ⌈n / 2^s⌉.

======================== ================== =====================================
layer                    channels           128 × 313
======================== ================== =====================================
``stem``                 I -> 64            64 × 157    3 × 3, stride 2
``depthwise``            64                 64 × 157    3 × 3, each channel alone
``blocks`` 0, 1          64 -> 128, t = 2   32 × 79
``blocks`` 2, 3          128, t = 4         16 × 40
``blocks`` 4, 5          128, t = 4         8 × 20
``expand``               128 -> 512         8 × 20      1 × 1
``global_depthwise``     512                1 × 1       8 × 20, linear
``embedding``            512 -> 128         1 × 1       1 × 1, linear
======================== ================== =====================================

Chen et al., "MobileFaceNets", CCBR 2018, arXiv 1804.07573, with the shorter list of bottlenecks of a DCASE 2022
report (Liu et al.), as in the code of STgram-MFN and of arXiv 2509.13853 (OS-SCL).
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from asd_ray.methods.blocks.cpu_layers import PReLU, StridedDepthwise

BOTTLENECKS = ((2, 128, 2, 2), (4, 128, 2, 2), (4, 128, 2, 2))
"""Expansion t, channels c, blocks n, stride s of the first block; the paper's table 1 has the same columns."""


class MobileFaceNet(nn.Module):
    """Spectrograms (B, I, F, T) to embeddings (B, 128). F and T set the size of the global depthwise kernel.

    No convolution has a bias. Batch norm follows each of them, and PReLU with a slope per channel all but the linear
    ones. With I = 1 and 128 × 313 it has 869,760 parameters. The published code has 5,289 more (for 41 classes), in a
    linear layer ``fc_out`` whose output is not used; published parameter counts include it.

    Args:
        channels: I.
        n_mels: F.
        frames: T.

    Attributes:
        num_features: D = 128.
    """

    num_features = 128

    def __init__(self, channels: int, n_mels: int, frames: int) -> None:
        super().__init__()
        self.stem = _convolution(channels, 64, 3, stride=2, padding=1)
        self.depthwise = _convolution(64, 64, 3, padding=1, groups=64)
        blocks: list[nn.Module] = []
        width = 64
        for t, c, n, s in BOTTLENECKS:
            for number in range(n):
                blocks.append(Bottleneck(width, c, s if number == 0 else 1, t))
                width = c
        stride = 2 * math.prod(s for *_, s in BOTTLENECKS)
        side = (math.ceil(n_mels / stride), math.ceil(frames / stride))
        self.blocks = nn.Sequential(*blocks)
        self.expand = _convolution(width, 512, 1)
        self.global_depthwise = _convolution(512, 512, side, groups=512, linear=True)
        self.embedding = _convolution(512, self.num_features, 1, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, F, T) to (B, 128)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, I, F, T) to the last bottleneck's feature map (B, 128, ⌈F / 16⌉, ⌈T / 16⌉); the name is timm's."""
        return self.blocks(self.depthwise(self.stem(x)))

    def forward_head(self, x: Tensor) -> Tensor:
        """The feature map to (B, 128); the name is timm's."""
        return self.embedding(self.global_depthwise(self.expand(x))).flatten(1)


class Bottleneck(nn.Module):
    """Inverted residual: 1 × 1 to t times the channels, 3 × 3 depthwise, linear 1 × 1; plus x if the shapes agree.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: of the depthwise convolution.
        expansion: t.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = expansion * inputs
        self.residual = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            _convolution(inputs, hidden, 1),
            _convolution(hidden, hidden, 3, stride, padding=1, groups=hidden),
            _convolution(hidden, outputs, 1, linear=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, ⌈h / stride⌉, ⌈w / stride⌉)."""
        return x + self.layers(x) if self.residual else self.layers(x)


def _convolution(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    linear: bool = False,
) -> nn.Sequential:
    strided_depthwise = groups > 1 and stride > 1
    kind = StridedDepthwise if strided_depthwise else nn.Conv2d
    convolution = kind(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    norm = nn.BatchNorm2d(outputs)
    assert norm.running_var is not None
    # The variance that these weights give for inputs of mean square 1. From torch's initial value 1 the running average
    # needs some 100 steps to reach that of a depthwise convolution, 1/256; until then eval mode is useless.
    norm.running_var.fill_(2 * inputs / (groups * outputs))
    return nn.Sequential(convolution, norm, *([] if linear else [PReLU(outputs)]))
