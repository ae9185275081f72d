"""``method``: the settings of what is trained. Each method has a class of its own, found by ``method.name``."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

from asd_ray.config.data import DataConfig
from asd_ray.config.section import Section
from asd_ray.registry import METHODS

DEFAULT = "sia_moco"
"""The method of a study that names none."""


class MethodConfig(Section):
    """Base class of a method's settings: what the rest of the package asks of them.

    A subclass gives ``name`` its own value as default and declares the method's keys. A key that is a section with
    ``epochs`` (:class:`asd_ray.config.OptimiserConfig`) holds the settings of a training stage of that name.
    """

    name: str
    paths: ClassVar[tuple[str, ...]] = ()
    """Keys within ``method`` whose value is a path: ``pretrain.init_from``."""

    @property
    def stage_epochs(self) -> dict[str, int]:
        """Stage -> its epochs, of the stages that the settings ask for."""
        return {name: section.epochs for name, section in self if hasattr(section, "epochs")}

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(self.stage_epochs.values())

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the feature store that the method needs: ``log_mel``, ``waveform``."""
        return ("log_mel",)

    @property
    def augmentation(self) -> Any:
        """Settings of the augmented views that ``features show --augment`` draws; None if the method has none."""
        return None

    def check_data(self, data: DataConfig) -> None:
        """Check that the data section has what the method needs.

        Raises:
            ValueError: it has not; the message names the key.
        """


def method_config(name: str) -> type[MethodConfig]:
    """The class of a method's settings. Imports no network: those of the package's own methods are in this folder.

    Raises:
        ConfigError: there is no such method.
    """
    if name in METHODS.own_names:
        module = importlib.import_module(f"asd_ray.config.{name}")
        classes = [found for found in vars(module).values() if isinstance(found, type)]
        [config] = [found for found in classes if issubclass(found, MethodConfig) and _name_of(found) == name]
        return config
    found: type[MethodConfig] = METHODS.get(name).facts["config"]
    return found


def parse_method(given: Any) -> Any:
    """The settings of the method that a ``method`` section names; of the default method if it names none.

    Raises:
        ValueError: there is no such method, or the settings break a rule (:class:`pydantic.ValidationError`).
    """
    if isinstance(given, MethodConfig) or not isinstance(given, dict):
        return given
    name = given.get("name", DEFAULT)
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(METHODS.unknown(name))
    return method_config(name).model_validate({**given, "name": name})


def _name_of(config: type[MethodConfig]) -> str | None:
    name = config.model_fields.get("name")
    return None if name is None else name.default
