"""Augmented views of clips, step by step: the augmentations of pre-training with their random draws.

Legend: N clips, M background clips, B batch, F mel bands, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asd_ray.config import FeatureConfig, PretrainConfig
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.features.store import Manifest, Place, read_tables
from asd_ray.methods.sia_moco.augment import PreNorm, RandomResizeCrop, first_band_from, log_mix, power_scale

Image = NDArray[np.float32]
Box = tuple[int, int, int, int]
"""First band, first frame, number of bands, of frames; in the clip's coordinates, so first ones may be negative."""


@dataclass(frozen=True)
class View:
    """One view of one clip. Images are (F, T), pre-normed; post-norm (a shift and a scale) is left out.

    Attributes:
        title: of the clip.
        number: 1 or 2.
        original: the clip.
        other_title: of the background clip.
        other: the background clip mixed in.
        ratio: λ, the weight of the background clip.
        mixed: after log-mixup-exp.
        canvas: the whole canvas.
        crop: the part cut out.
        cropped: after Random Resize Crop.
    """

    title: str
    number: int
    original: Image
    other_title: str
    other: Image
    ratio: float
    mixed: Image
    canvas: Box
    crop: Box
    cropped: Image


class _Recorded(RandomResizeCrop):
    """Keeps canvas and crop of the last draw, for bands and then for frames."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__(config.crop_scale, config.canvas)
        self.drawn: list[tuple[int, int, int, int]] = []

    def crops(self, batch: int, size: int, canvas: int, device: torch.device) -> tuple[Tensor, Tensor]:
        start, length = super().crops(batch, size, canvas, device)
        first = -((canvas - size) // 2)  # of the canvas; the clip starts at 0
        self.drawn = [*self.drawn[-1:], (first, canvas, first + int(start[0]), int(length[0]))]
        return start, length


@torch.no_grad()
def two_views(
    clips: Sequence[tuple[str, Image]],
    background: Sequence[tuple[str, Image]],
    mean: float,
    std: float,
    config: PretrainConfig,
    features: FeatureConfig,
    seed: int,
) -> list[View]:
    """Draw two views of every clip with a study's pre-training settings.

    Args:
        clips: N titles and raw Log-Mel features (F, T).
        background: M titles and features to mix in; a clip is not mixed with itself.
        mean, std: μ and σ of the pre-norm.
        config: ``method.pretrain``.
        features: settings of the features.
        seed: of all draws.

    Raises:
        ConfigError: no other clip to mix with, or contradicting settings.
    """
    pre_norm, crop = PreNorm(mean, std), _Recorded(config)
    scale = power_scale(features.log, std, features.power) if config.mix_domain == "power" else 1.0
    first = first_band_from(features.model_dump(), config.band_from_hz) if config.band == "high" else 0
    views = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for title, image in clips:
            # The tolerance covers a store's fp16.
            others = [other for other in background if not np.allclose(other[1], image, atol=0.05)]
            if not others:
                raise ConfigError(
                    f"{title}: there is no other clip to mix in; give a second recording, or a study's feature store "
                    "(--store DIR)."
                )
            x = pre_norm(torch.from_numpy(image)[None])
            for number in (1, 2):
                other_title, other_image = others[int(torch.randint(len(others), ()))]
                other = pre_norm(torch.from_numpy(other_image)[None])
                ratio = config.alpha * torch.rand(1, 1, 1)
                mixed = x.clone()
                mixed[:, first:] = log_mix(x[:, first:], other[:, first:], ratio, scale)
                cropped = crop(mixed)
                bands, frames = crop.drawn
                views.append(
                    View(
                        title=title,
                        number=number,
                        original=x[0].numpy(),
                        other_title=other_title,
                        other=other[0].numpy(),
                        ratio=float(ratio),
                        mixed=mixed[0].numpy(),
                        canvas=(bands[0], frames[0], bands[1], frames[1]),
                        crop=(bands[2], frames[2], bands[3], frames[3]),
                        cropped=cropped[0].numpy(),
                    )
                )
    return views


def background_from_store(store: Place, manifest: Manifest) -> list[tuple[str, Image]]:
    """Read titles and features of a store's first training shard: about 100 clips, selected by a hash of their paths.

    Raises:
        AsdRayError: the shard is damaged or missing.
    """
    for table in read_tables(store, manifest, "train"):
        titles = [f"{clip.machine} {clip.id}, {clip.label}\n{PurePosixPath(clip.path).name}" for clip in table.clips]
        return list(zip(titles, table.log_mel.astype(np.float32), strict=True))
    raise AsdRayError(f"{store}: the store has no training clips; build it from a set that has some.")
