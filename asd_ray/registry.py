"""Methods, encoders, scores and layouts by name: the package's own, and those of other code.

One decorator for each kind puts a part of your own into studies::

    @register_method("mine", config=MyConfig)    # a subclass of asd_ray.methods.base.Method
    @register_encoder("mine")                    # (channels, n_mels, frames) -> network: (B, I, F, T) to (B, D)
    @register_score("mine")                      # a subclass of asd_ray.scoring.base.Score
    @register_layout("mine")                     # (root, machines) -> clips and problems

A decorator runs when its module is imported: by your script, or by the command line if your installed package names the
module in an entry point of the group ``asd_ray``. Trials get the parts together with their inputs (:class:`Plugins`).

The package's own parts use the same decorators. Each is a module of the part's name, which is imported when a study
first names it. This module imports neither torch nor Ray.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from asd_ray.errors import ConfigError

T = TypeVar("T")
GROUP = "asd_ray"
"""Group of the entry points that name modules with parts of other packages."""


@dataclass(frozen=True)
class Part:
    """A registered method, encoder, score or layout.

    Attributes:
        target: the class or function.
        facts: what its registration says of it: ``config`` is the class of a method's settings.
    """

    target: Any
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Module and name of the class or function."""
        return f"{self.target.__module__}.{self.target.__qualname__}"


class Registry:
    """The parts of one kind.

    Args:
        kind: ``method``, ``encoder``, ``score`` or ``layout``.
        key: key of a study that names such a part.
        module: the module of the package's own part ``{}``; empty if it has none.
    """

    def __init__(self, kind: str, key: str, module: str = "") -> None:
        self.kind, self.key, self.module = kind, key, module
        self.parts: dict[str, Part] = {}

    def register(self, name: str, **facts: Any) -> Callable[[T], T]:
        """A decorator that registers a class or function.

        Raises:
            ConfigError: another part has the name.
        """

        def decorate(target: T) -> T:
            self.add(name, Part(target, facts))
            return target

        return decorate

    def add(self, name: str, part: Part) -> None:
        """Register a part; one of the same module and name replaces it, as when a notebook's cell runs again.

        Raises:
            ConfigError: another part has the name.
        """
        before = self.parts.get(name)
        taken = before.origin if before else self.module.format(name) if name in self.own_names else part.origin
        if taken != part.origin and not self._is_own(name, part):
            raise ConfigError(
                f"{self.kind} {name!r}: {part.origin} cannot have this name, which is that of {taken}; choose another."
            )
        self.parts[name] = part

    def get(self, name: str) -> Part:
        """The part of a name.

        Raises:
            ConfigError: there is none.
        """
        if name not in self.parts and name in self.own_names:
            importlib.import_module(self.module.format(name))
        if name not in self:
            raise ConfigError(f"{self.key}: {self.unknown(name)}.")
        return self.parts[name]

    def __contains__(self, name: str) -> bool:
        if name not in self.parts and name not in self.own_names:
            import_plugins()
        return name in self.parts or name in self.own_names

    def names(self) -> list[str]:
        """All names, the package's own first."""
        import_plugins()
        return [*self.own_names, *sorted(self.parts.keys() - set(self.own_names))]

    def unknown(self, name: str) -> str:
        """What is wrong with a name that is not registered."""
        known = ", ".join(self.names())
        return f"there is no {self.kind} {name!r}; choose one of {known}, or import the module that registers it"

    @cached_property
    def own_names(self) -> list[str]:
        """Names of the package's own parts, by their files."""
        before, _, after = self.module.partition(".{}")
        folder = Path(__file__).parent.joinpath(*before.split(".")[1:])
        if after:
            return sorted(path.parent.name for path in folder.glob(f"*/{after[1:]}.py"))
        return sorted(path.stem for path in folder.glob("[!_]*.py")) if before else []

    def foreign(self) -> dict[str, Part]:
        """The registered parts that are not the package's own."""
        return {name: part for name, part in self.parts.items() if not self._is_own(name, part)}

    def _is_own(self, name: str, part: Part) -> bool:
        return name in self.own_names and part.target.__module__ == self.module.format(name)


METHODS = Registry("method", "method.name", "asd_ray.methods.{}.method")
ENCODERS = Registry("encoder", "method")
SCORES = Registry("score", "evaluation.scores", "asd_ray.scoring.scores.{}")
LAYOUTS = Registry("layout", "data.layout", "asd_ray.data.layouts.{}")


def register_method(name: str, *, config: type) -> Callable[[T], T]:
    """Register a subclass of :class:`asd_ray.methods.base.Method` as ``method.name``.

    Args:
        name: of the method.
        config: class of its settings, a subclass of :class:`asd_ray.config.MethodConfig`.
    """
    return METHODS.register(name, config=config)


def register_encoder(name: str) -> Callable[[T], T]:
    """Register a function that builds a network, for every key of a study that names one of timm's.

    Args:
        name: of the network; timm's own names may be taken, and then mean this one.

    The function takes ``channels`` (I), ``n_mels`` (F) and ``frames`` (T) and returns an untrained ``nn.Module`` from
    (B, I, F, T) to (B, D). ``method.finetune.coupling: channel`` also needs its ``forward_features``, timm's name for
    the layers before pooling.
    """
    return ENCODERS.register(name)


def register_score(name: str) -> Callable[[T], T]:
    """Register a subclass of :class:`asd_ray.scoring.base.Score` for ``evaluation.scores``, ``score``, ``ensemble``."""
    return SCORES.register(name)


def register_layout(name: str, *, example: str = "", attributes: bool = True) -> Callable[[T], T]:
    """Register a function that finds the clips of a data set as ``data.layout``.

    Args:
        name: of the layout.
        example: path of a recording, as errors show it: ``<machine>/train/normal_id_00_00000000.wav``.
        attributes: whether clips can have attributes (``data.classes: attributes``).

    The function takes ``root`` (a :class:`pathlib.Path`) and ``machines`` (the names to use, or None for all). It
    returns two lists: :class:`asd_ray.data.clips.Clip` (what a recording's header says is filled in later) and
    :class:`asd_ray.data.problems.Problem`.
    """
    return LAYOUTS.register(name, example=example, attributes=attributes)


@cache
def import_plugins() -> None:
    """Import the modules of installed packages that register parts: the entry points of the group ``asd_ray``.

    Raises:
        ConfigError: such a module cannot be imported.
    """
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:
            raise ConfigError(f"entry point {entry.name} = {entry.value}: cannot be imported ({error}).") from error


class Plugins:
    """The parts of other code that this process has registered. Unpickled in another process, it registers them there.

    Classes and functions of a script or notebook travel as a whole, and in a study those of :attr:`modules`, too. All
    others travel by name: their modules must be installed there.
    """

    def __init__(self) -> None:
        self.parts = {registry.kind: registry.foreign() for registry in (METHODS, ENCODERS, SCORES, LAYOUTS)}

    @property
    def modules(self) -> list[ModuleType]:
        """Modules of these parts that no installed package holds."""
        names = {part.target.__module__ for parts in self.parts.values() for part in parts.values()}
        files = {name: getattr(sys.modules.get(name), "__file__", None) for name in sorted(names)}
        return [sys.modules[name] for name, file in files.items() if file and "site-packages" not in Path(file).parts]

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.parts,)


def _unpickled(parts: Mapping[str, Mapping[str, Part]]) -> Plugins:
    for registry in (METHODS, ENCODERS, SCORES, LAYOUTS):
        for name, part in parts[registry.kind].items():
            registry.add(name, part)
    return Plugins()
