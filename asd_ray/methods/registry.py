"""The methods by name. Adding one means adding its file, its configuration, and a line here."""

from __future__ import annotations

from asd_ray.config import SiaMocoConfig, StudyConfig
from asd_ray.methods.base import DataInfo, Method
from asd_ray.methods.sia_moco import SiaMoco
from asd_ray.models.encoders import check_name

METHODS: dict[str, type[Method]] = {"sia_moco": SiaMoco}


def check(study: StudyConfig) -> None:
    """Checks what only the libraries behind a method know, before a study starts: the names of networks.

    Raises:
        ConfigError: the study, or its search space, names what does not exist.
    """
    key = "method.pretrain.encoder"
    choices = study.search.space[key].choices if key in study.search.space else None
    for name in [study.method.pretrain.encoder, *(choices or [])]:
        check_name(str(name))


def columns(method_config: SiaMocoConfig) -> tuple[str, ...]:
    """The columns of the feature store that a method needs."""
    return METHODS[method_config.name].columns


def build(method_config: SiaMocoConfig, info: DataInfo) -> Method:
    """The untrained method that a study's ``method`` section describes, on the CPU.

    Raises:
        ConfigError: the settings do not fit the data or name what does not exist.
    """
    return METHODS[method_config.name](method_config, info)
