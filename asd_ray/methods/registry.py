"""The methods by name. Adding one means adding its file, its configuration, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asd_ray.config import SiaMocoConfig
from asd_ray.methods.base import DataInfo, Method
from asd_ray.methods.sia_moco import SiaMoco

METHODS: dict[str, Callable[[Any, DataInfo], Method]] = {"sia_moco": SiaMoco}


def build(method_config: SiaMocoConfig, info: DataInfo) -> Method:
    """The untrained method that a study's ``method`` section describes, on the CPU.

    Raises:
        ConfigError: the settings do not fit the data or name what does not exist.
    """
    return METHODS[method_config.name](method_config, info)
