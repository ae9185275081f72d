"""The methods by name. Adding one means adding its file, its configuration, and a line here."""

from __future__ import annotations

from typing import Any

from asd_ray.config import SiaMocoConfig, StudyConfig
from asd_ray.methods.base import DataInfo, Method
from asd_ray.methods.sia_moco import SiaMoco
from asd_ray.study_file import with_values

METHODS: dict[str, Any] = {"sia_moco": SiaMoco}


def check(study: StudyConfig) -> None:
    """Checks what only the libraries behind a method know, before a study starts: the names of networks.

    Raises:
        ConfigError: the study, or a choice of its search space, names what does not exist.
    """
    configs = [study.method]
    for key, distribution in study.search.space.items():
        if key.startswith("method.") and distribution.type == "choice":
            configs += [with_values(study, {key: choice}).method for choice in distribution.choices or []]
    for config in configs:
        METHODS[config.name].check(config)


def columns(method_config: SiaMocoConfig) -> tuple[str, ...]:
    """The columns of the feature store that a method needs."""
    return method_config.columns


def build(method_config: SiaMocoConfig, info: DataInfo) -> Method:
    """The untrained method that a study's ``method`` section describes, on the CPU.

    Raises:
        ConfigError: the settings do not fit the data or name what does not exist.
    """
    return METHODS[method_config.name](method_config, info)
