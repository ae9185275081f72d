"""Reference of the ``augment`` benchmark: BYOL-A's augmentations, clip by clip, as its data loaders run them.

Written from the description of the method (Niizumi et al., IJCNN 2021, arXiv 2103.06695): pre-norm, log-mixup-exp with
a bank of past clips, Random Resize Crop with torch's bicubic interpolation, both twice for each clip; then post-norm
over both views of the batch.

Legend: B batch, F mel bands, T frames.
"""

from __future__ import annotations

import random
from collections import deque

import torch
import torch.nn.functional as nnf
from torch import Tensor


class ClipByClip:
    """Two views of every clip of a batch.

    Args:
        mean, std: mean and standard deviation of the pre-norm.
        alpha: mixing ratio, λ ~ U(0, alpha).
        bank_size: number of past clips in the bank.
        scale: range of the crop's height and width, as multiples of F and T.
        canvas: height and width of the canvas, as multiples of F and T.
    """

    def __init__(
        self,
        mean: float,
        std: float,
        alpha: float = 0.4,
        bank_size: int = 2048,
        scale: tuple[float, float] = (0.6, 1.5),
        canvas: tuple[float, float] = (1.0, 1.5),
    ) -> None:
        self.mean, self.std, self.alpha, self.scale, self.canvas = mean, std, alpha, scale, canvas
        self.bank: deque[Tensor] = deque(maxlen=bank_size)

    def __call__(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Two views (B, F, T) fp32 of raw features (B, F, T)."""
        pairs = []
        for clip in features:
            x = (clip.float() - self.mean) / self.std
            pairs.append((self._crop(self._mix(x)), self._crop(self._mix(x))))
        first, second = zip(*pairs, strict=True)
        both = torch.stack([*first, *second])
        both = (both - both.mean()) / both.std(correction=0)
        return both[: len(features)], both[len(features) :]

    def _mix(self, x: Tensor) -> Tensor:
        ratio = self.alpha * random.random()
        mixed = x
        if self.bank:
            other = random.choice(self.bank)
            mixed = torch.log((1 - ratio) * x.exp() + ratio * other.exp() + torch.finfo(x.dtype).eps)
        self.bank.append(x)
        return mixed

    def _crop(self, x: Tensor) -> Tensor:
        sizes, starts, lengths = [], [], []
        for size, multiple in zip(x.shape, self.canvas, strict=True):
            whole = int(multiple * size)
            length = min(max(int(random.uniform(*self.scale) * size), 1), whole)
            sizes.append(whole)
            lengths.append(length)
            starts.append(random.randint(0, whole - length))
        top, left = ((whole - size) // 2 for whole, size in zip(sizes, x.shape, strict=True))
        canvas = x.new_zeros(sizes)
        canvas[top : top + x.shape[0], left : left + x.shape[1]] = x
        cut = canvas[starts[0] : starts[0] + lengths[0], starts[1] : starts[1] + lengths[1]]
        return nnf.interpolate(cut[None, None], x.shape, mode="bicubic", align_corners=True)[0, 0]
