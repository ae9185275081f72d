"""Tgram and TFgram: learned spectrograms of a waveform, in the shape of its Log-Mel spectrogram.

Legend: B batch, S samples, F mel bands, T frames.

======================== ================== ====================================================
layer                    160,000 samples    (F = 128, T = 313)
======================== ================== ====================================================
``Tgram``
``extract``              128 × 313          1 -> F, kernel 1024, stride 512, padding 512
``encode`` 0, 1, 2       128 × 313          layer norm over T, LeakyReLU(0.2), F -> F, kernel 3
``TFgram``
``stem``                 64 × 32,000        1 -> 64, kernel 11, stride 5
``blocks`` 0             64 × 8,000         64 -> 64 twice, maxima of 4
``blocks`` 1             128 × 626          64 -> F, F -> F, 2T maxima of adaptive length
``blocks`` 2             128 × 313          F -> F twice, T maxima of adaptive length
======================== ================== ====================================================

Tgram is STgram-MFN's (Liu et al., ICASSP 2022). TFgram is that of OS-SCL (Huang et al., ICASSP 2025, arXiv 2509.13853):
the front end of PANNs' Wavegram (Kong et al., arXiv 1912.10211) with adaptive pooling. The published module also has
the rest of PANNs and does not use it; it is left out here. No convolution has a bias.
"""

from __future__ import annotations

import torch.nn.functional as nnf
from torch import Tensor, nn

WINDOW = 1024
"""Samples of a frame of Tgram."""


class Tgram(nn.Module):
    """Waveforms (B, S) to (B, F, T), T = 1 + ⌊S / hop⌋ as in a centred Log-Mel spectrogram of that hop.

    280,406 parameters at F = 128 and T = 313.

    Args:
        n_mels: F.
        frames: T, the size of the layer norms.
        hop_length: samples between frames. Published: 512.
    """

    def __init__(self, n_mels: int, frames: int, hop_length: int = 512) -> None:
        super().__init__()
        self.extract = nn.Conv1d(1, n_mels, WINDOW, hop_length, WINDOW // 2, bias=False)
        layers = [
            (nn.LayerNorm(frames), nn.LeakyReLU(0.2), nn.Conv1d(n_mels, n_mels, 3, padding=1, bias=False))
            for _ in range(3)
        ]
        self.encode = nn.Sequential(*(layer for group in layers for layer in group))

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, S) to (B, F, T)."""
        return self.encode(self.extract(waveform.unsqueeze(1)))


class TFgram(nn.Module):
    """Waveforms (B, S) to (B, F, T); any S.

    198,720 parameters at F = 128, for any T. The convolutions over time are 2-d ones of height 1: the same arithmetic,
    but 2-d ones can run in channels_last, where a step in bf16 on a CPU took 0.6 of the time.

    Args:
        n_mels: F.
        frames: T.
    """

    def __init__(self, n_mels: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.stem = nn.Sequential(*_convolution(1, 64, 11, stride=5))
        widths = ((64, 64), (64, n_mels), (n_mels, n_mels))
        # A block's last ReLU is applied after the maxima: the same values and gradients, of far fewer elements.
        self.blocks = nn.ModuleList(
            nn.Sequential(*_convolution(inputs, outputs, 3), *_convolution(outputs, outputs, 3, dilation=2)[:-1])
            for inputs, outputs in widths
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, S) to (B, F, T)."""
        x = self.blocks[0](self.stem(waveform[:, None, None]))  # (B, 64, 1, S / 5)
        x = self.blocks[1](nnf.max_pool2d(x, (1, 4)).relu_())
        x = self.blocks[2](nnf.adaptive_max_pool2d(x, (1, 2 * self.frames)).relu_())
        return nnf.adaptive_max_pool2d(x, (1, self.frames)).squeeze(2).relu_()

    def extra_repr(self) -> str:
        return f"frames={self.frames}"


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    return [
        nn.Conv2d(inputs, outputs, (1, kernel), (1, stride), (0, padding), (1, dilation), bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]
