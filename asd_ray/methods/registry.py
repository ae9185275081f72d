"""The methods by name. Adding one means adding its file, its configuration, and a line here."""

from __future__ import annotations

from typing import Any

from asd_ray.config import MethodConfig, StudyConfig
from asd_ray.config.study_file import with_values
from asd_ray.errors import ConfigError
from asd_ray.methods.autoencoder.method import AutoencoderMethod
from asd_ray.methods.base import DataInfo, Method
from asd_ray.methods.os_scl.method import OsScl
from asd_ray.methods.sia_moco.method import SiaMoco

METHODS: dict[str, Any] = {"sia_moco": SiaMoco, "os_scl": OsScl, "autoencoder": AutoencoderMethod}


def check(study: StudyConfig) -> None:
    """Checks what only the methods know, before a study starts: names of networks, scores that a method has.

    Raises:
        ConfigError: the study, or a choice of its search space, names what does not exist.
    """
    studies = [study]
    for key, distribution in study.search.space.items():
        if distribution.type == "choice":
            studies += [with_values(study, {key: choice}) for choice in distribution.choices or []]
    for one in studies:
        method, evaluation = METHODS[one.method.name], one.evaluation
        method.check(one.method)
        if not method.has_own_score and "own" in (evaluation.score, *evaluation.ensemble):
            names = ", ".join(name for name, other in METHODS.items() if other.has_own_score)
            raise ConfigError(
                f"evaluation.score: {one.method.name} has no score of its own ({names} have); choose another."
            )


def columns(method_config: MethodConfig) -> tuple[str, ...]:
    """The columns of the feature store that a method needs."""
    return method_config.columns


def build(method_config: MethodConfig, info: DataInfo) -> Method:
    """The untrained method that a study's ``method`` section describes, on the CPU.

    Raises:
        ConfigError: the settings do not fit the data or name what does not exist.
    """
    return METHODS[method_config.name](method_config, info)
