"""Encoders from timm, with one input channel.

Legend: B batch, F mel bands, T frames, D features.
"""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import Tensor, nn

from asd_ray.errors import ConfigError
from asd_ray.methods.base import resolve_precision


class Encoder(nn.Module):
    """A timm network without its classifier: spectrogram in, pooled features out.

    Untrained (no download), in channels_last, and under autocast where ``precision`` and the device say so.

    Args:
        name: timm's name of the architecture, for example ``resnet50`` (D = 2048).
        n_mels: F.
        frames: T.
        precision: ``auto``, ``fp32`` or ``bf16`` (:func:`asd_ray.methods.base.resolve_precision`).
        compile: whether ``torch.compile`` translates the network at its first pass, which takes half a minute or more.

    Attributes:
        num_features: D.

    Raises:
        ConfigError: timm has no such architecture, or it does not take (F, T) inputs.
    """

    def __init__(self, name: str, n_mels: int, frames: int, precision: str = "auto", compile: bool = False) -> None:
        super().__init__()
        self.name, self.precision, self.compiled = name, precision, compile
        check_name(name)
        import timm  # takes seconds, and only the processes that train need it

        network = timm.create_model(name, pretrained=False, in_chans=1, num_classes=0)
        self.network = network.to(memory_format=torch.channels_last)
        self.num_features = self._probe(n_mels, frames)
        if compile:
            self.network.compile()  # in place: the keys of its state stay the same

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, T) fp32 to (B, D) fp32."""
        dtype = resolve_precision(self.precision, x.device)
        with torch.autocast(x.device.type, dtype=dtype, enabled=dtype is not None):
            features = self.network(x.unsqueeze(1))
        return features.float()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy (the key encoder) is compiled too: torch leaves that out of a module's state."""
        super().__setstate__(state)
        if self.compiled:
            self.network.compile()

    @torch.no_grad()
    def _probe(self, n_mels: int, frames: int) -> int:
        """D as the network gives it (timm's ``num_features`` is not always its output's size)."""
        training = self.training
        try:
            output = self.eval()(torch.zeros(1, n_mels, frames))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"method.pretrain.encoder: {self.name} does not take spectrograms of {n_mels} mel bands and {frames} "
                f"frames ({str(error).partition(chr(10))[0]}); choose a convolutional network."
            ) from None
        finally:
            self.train(training)
        if output.ndim != 2:
            raise ConfigError(
                f"method.pretrain.encoder: {self.name} gives an output of shape {tuple(output.shape)} instead of one "
                "vector per clip; choose another network."
            )
        return int(output.shape[1])

    def extra_repr(self) -> str:
        return f"name={self.name}, num_features={self.num_features}, precision={self.precision}"


def check_name(name: str) -> None:
    """Whether timm has an architecture of that name.

    Raises:
        ConfigError: it has not; with names that are close.
    """
    import timm

    # timm would look names with a colon up on the Hugging Face hub or in a local folder
    if ":" not in name and timm.is_model(name):
        return
    close = difflib.get_close_matches(name, timm.list_models(), n=3)
    hint = f"; close are {', '.join(close)}" if close else "; timm.list_models() names them all"
    raise ConfigError(f"method.pretrain.encoder: timm has no architecture {name!r}{hint}.")
