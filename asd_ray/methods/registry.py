"""From a study's ``method`` section to the method: check it, build it, and tell what its files hold."""

from __future__ import annotations

from asd_ray.config import MethodConfig, StudyConfig
from asd_ray.config.study_file import with_values
from asd_ray.errors import ConfigError
from asd_ray.methods.base import DataInfo, Method
from asd_ray.registry import METHODS


def check(study: StudyConfig) -> None:
    """Check what only the methods know, before a study starts: names of networks, scores that a method has.

    Raises:
        ConfigError: the study, or a choice of its search space, names what does not exist.
    """
    studies = [study]
    for key, distribution in study.search.space.items():
        if distribution.type == "choice":
            studies += [with_values(study, {key: choice}) for choice in distribution.choices or []]
    for one in studies:
        method, evaluation = method_class(one.method.name), one.evaluation
        method.check(one.method)
        if not method.has_own_score and "own" in (evaluation.score, *evaluation.ensemble):
            names = ", ".join(name for name in METHODS.names() if method_class(name).has_own_score)
            raise ConfigError(
                f"evaluation.score: {one.method.name} has no score of its own ({names} have); choose another."
            )


def method_class(name: str) -> type[Method]:
    """The method of a name.

    Raises:
        ConfigError: there is none.
    """
    method: type[Method] = METHODS.get(name).target
    return method


def build(config: MethodConfig, info: DataInfo) -> Method:
    """The untrained method that a study's ``method`` section describes, on the CPU.

    Raises:
        ConfigError: the settings do not fit the data or name what does not exist.
    """
    return method_class(config.name)(config, info)


def fingerprints(config: MethodConfig) -> tuple[str, ...]:
    """Hashes of the files that the settings name: a path does not say what is in it.

    Raises:
        ConfigError: a file is not there.
    """
    return method_class(config.name).fingerprints(config)
