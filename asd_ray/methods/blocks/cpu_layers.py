"""Layers with the values and gradients of torch's own, for CPUs, where the backward pass of torch's own (2.11) is slow.

Times are of whole training steps in bf16 on a core of an AMD EPYC with avx512_bf16.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PReLU(nn.PReLU):
    """max(0, x) + a · min(0, x), in operations that are vectorised.

    With torch's own a step of MobileFaceNet takes 1.5 times as long, and one of OS-SCL 1.2 times. Other devices, and
    passes without gradient, get torch's own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, …) to the same shape."""
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        a = self.weight.to(x.dtype).view(-1, *[1] * (x.ndim - 2))
        positive = x.relu()
        return positive + a * (x - positive)


class StridedDepthwise(nn.Conv2d):
    """A depthwise convolution with stride, in fp32 where its input is bf16; the output is bf16 again.

    With torch's own (oneDNN) a step of MobileFaceNet takes 1.3 times as long, and one of OS-SCL 1.1 times.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, ⌈h / stride⌉, ⌈w / stride⌉)."""
        if x.device.type != "cpu" or x.dtype != torch.bfloat16:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(x.dtype)
