"""Networks by name, from timm, this project or ``register_encoder``: spectrograms in, one feature vector per clip out.

Legend: B batch, I input channels, F mel bands, T frames, D features, h and w sides of a feature map.
"""

from __future__ import annotations

import difflib
import inspect
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from asd_ray.errors import ConfigError
from asd_ray.methods.base import resolve_precision
from asd_ray.registry import ENCODERS


class Network(nn.Module):
    """A network of timm without its classifier, ``mobilefacenet``, or a registered encoder.

    It starts untrained (no download), in channels_last, and runs under autocast if ``precision`` and device ask for it.

    Args:
        name: of the architecture, for example timm's ``resnet50`` (D = 2048).
        n_mels: F.
        frames: T.
        channels: I.
        precision: ``auto``, ``fp32`` or ``bf16`` (:func:`asd_ray.methods.base.resolve_precision`).
        compile: whether ``torch.compile`` translates it at its first pass, which takes half a minute or more.
        key: key of the study that errors name.

    Attributes:
        num_features: D.

    Raises:
        ConfigError: there is no such architecture, or it does not take (I, F, T) inputs.
    """

    def __init__(
        self,
        name: str,
        n_mels: int,
        frames: int,
        channels: int = 1,
        precision: str = "auto",
        compile: bool = False,
        key: str = "method.encoder",
    ) -> None:
        super().__init__()
        check_name(name, key)
        self.name, self.precision, self.compiled, self.key = name, precision, compile, key
        network: Any = _created(name, channels, n_mels, frames)
        self.network = network.to(memory_format=torch.channels_last)
        self.num_features = self._probe(channels, n_mels, frames)
        if compile:
            self.network.compile()  # in place: the keys of its state stay the same

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, F, T), or (B, F, T) where I is 1, fp32, to (B, D) fp32."""
        with self._autocast(x):
            features = self.network(x.unsqueeze(1) if x.ndim == 3 else x)
        return features.float()

    def feature_map(self, x: Tensor) -> Tensor:
        """(B, F, T) to the last feature map before pooling, fp32, (B, channels, h, w) of most networks."""
        with self._autocast(x):
            return self.network.forward_features(x.unsqueeze(1)).float()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Compile a copy (the key encoder) too: torch leaves that out of a module's state."""
        super().__setstate__(state)
        if self.compiled:
            self.network.compile()

    def _autocast(self, x: Tensor) -> AbstractContextManager[Any]:
        dtype = resolve_precision(self.precision, x.device)
        return torch.autocast(x.device.type, dtype=dtype, enabled=dtype is not None)

    @torch.no_grad()
    def _probe(self, channels: int, n_mels: int, frames: int) -> int:
        """Measure D: timm's ``num_features`` is not always the size of the output."""
        inputs = f"inputs of {channels} × {n_mels} × {frames} (channels, mel bands, frames)"
        self.eval()
        try:
            shape = tuple(self(torch.zeros(1, channels, n_mels, frames)).shape)
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(
                f"{self.key}: {self.name} does not take {inputs}: {reason}; choose a convolutional network."
            ) from None
        self.train()
        if len(shape) != 2:
            raise ConfigError(
                f"{self.key}: {self.name} gives an output of shape {shape} of {inputs} instead of one vector per "
                "clip; choose another network."
            )
        return shape[1]

    def extra_repr(self) -> str:
        return f"name={self.name}, num_features={self.num_features}, precision={self.precision}"


def check_name(name: str, key: str) -> None:
    """Check that an encoder is registered under that name, or that timm has an architecture of it.

    Args:
        name: of the architecture.
        key: key of the study that the error names.

    Raises:
        ConfigError: neither; with names that are close.
    """
    if name in ENCODERS:
        return
    timm = _timm()
    # timm would look names with a colon up on the Hugging Face hub or in a local folder
    if ":" not in name and timm.is_model(name):
        return
    close = difflib.get_close_matches(name, [*ENCODERS.names(), *timm.list_models()], n=3)
    hint = f"; close are {', '.join(close)}" if close else "; timm.list_models() names them all"
    raise ConfigError(f"{key}: timm has no architecture {name!r}{hint}.")


def _created(name: str, channels: int, n_mels: int, frames: int) -> nn.Module:
    """An untrained network: a registered encoder, or timm's, built for (F, T) if its entry point names ``img_size``."""
    if name in ENCODERS:
        built: nn.Module = ENCODERS.get(name).target(channels, n_mels, frames)
        return built
    timm = _timm()
    options: dict[str, Any] = {"in_chans": channels, "num_classes": 0}
    if "img_size" in inspect.signature(timm.model_entrypoint(name)).parameters:
        options["img_size"] = (n_mels, frames)
    network: nn.Module = timm.create_model(name, pretrained=False, **options)
    return network


def _timm() -> ModuleType:
    """timm with this project's networks in its registry. The import takes seconds, and only training needs it."""
    import timm

    import asd_ray.methods.blocks.timm_models  # noqa: F401

    return timm
