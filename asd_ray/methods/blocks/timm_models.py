"""Register this project's networks with timm. Its import takes seconds: import this module only where it is needed."""

from __future__ import annotations

from typing import Any

from timm.models import register_model

from asd_ray.methods.blocks.mobilefacenet import MobileFaceNet


@register_model
def mobilefacenet(
    pretrained: bool = False, in_chans: int = 1, img_size: tuple[int, int] = (128, 313), **others: Any
) -> MobileFaceNet:
    """MobileFaceNet without classifier, by timm's names: I ``in_chans``, (F, T) ``img_size``; never pre-trained."""
    return MobileFaceNet(in_chans, *img_size)
