"""``search``: where values are drawn from, and by which rule."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_serializer, model_validator

from asd_ray.config.section import Section

Scalar = bool | int | float | str | None


class Distribution(Section):
    """Where a search draws a key from: ``{uniform: [0.1, 0.6]}`` or ``{type: uniform, low: 0.1, high: 0.6}``.

    ``uniform`` and ``loguniform`` are real numbers, ``int`` and ``logint`` integers, bounds included; ``choice`` is a
    list of values.
    """

    type: Literal["uniform", "loguniform", "int", "logint", "choice"]
    low: float | None = None
    high: float | None = None
    choices: list[Scalar] | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: Any) -> Any:
        kinds = ("uniform", "loguniform", "int", "logint", "choice")
        if isinstance(given, Distribution) or (isinstance(given, dict) and "type" in given):
            return given
        if not isinstance(given, dict) or len(given) != 1 or next(iter(given)) not in kinds:
            raise ValueError(f"expected one of {{{': [...]}, {'.join(kinds)}: [...]}}, but got {given!r}")
        [(kind, values)] = given.items()
        if kind == "choice":
            return {"type": kind, "choices": values}
        if not isinstance(values, (list, tuple)) or len(values) != 2:
            raise ValueError(f"{kind} takes two numbers, [low, high], but got {values!r}")
        return {"type": kind, "low": values[0], "high": values[1]}

    @model_validator(mode="after")
    def _consistent(self) -> Distribution:
        if self.type == "choice":
            if not self.choices or self.low is not None or self.high is not None:
                raise ValueError("choice takes a list of at least one value")
            return self
        if self.choices is not None or self.low is None or self.high is None:
            raise ValueError(f"{self.type} takes two numbers, [low, high]")
        if self.low > self.high:
            raise ValueError(f"low <= high must hold, but got [{self.low:g}, {self.high:g}]")
        if self.type.startswith("log") and self.low <= 0:
            raise ValueError(f"low > 0 must hold on a logarithmic scale, but got {self.low:g}")
        if self.type.endswith("int") and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"{self.type} takes two integers, but got [{self.low:g}, {self.high:g}]")
        return self

    @model_serializer
    def _as_short_form(self) -> dict[str, list[Any]]:
        if self.type == "choice":
            return {"choice": list(self.choices or [])}
        bounds = [self.low, self.high]
        return {self.type: [int(b or 0) for b in bounds] if self.type.endswith("int") else bounds}

    def examples(self) -> list[Scalar]:
        """The values that a study must accept for the whole distribution to make sense: the bounds or the choices."""
        if self.type == "choice":
            return list(self.choices or [])
        cast = int if self.type.endswith("int") else float
        return [cast(self.low or 0), cast(self.high or 0)]

    def contains(self, value: Scalar) -> bool:
        """Whether a search may draw the value."""
        if self.type == "choice":
            return value in (self.choices or [])
        low, high = self.low or 0, self.high or 0
        return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high

    def values(self) -> list[Scalar] | None:
        """All values of a choice or of a range of integers, None where there is no end of them."""
        if self.type == "int":
            return list(range(int(self.low or 0), int(self.high or 0) + 1))
        return list(self.choices or []) if self.type == "choice" else None

    def __str__(self) -> str:
        if self.type == "choice":
            return "one of " + ", ".join(str(choice) for choice in self.choices or [])
        scale = " (log)" if self.type.startswith("log") else ""
        return f"{self.low:g} to {self.high:g}{scale}"


class SearchConfig(Section):
    space: dict[str, Distribution] = Field(default_factory=dict)
    """Dotted key of the study -> its distribution, for example ``method.pretrain.alpha: {uniform: [0.1, 0.6]}``."""
    num_trials: int = Field(20, ge=1)
    """Trials of the study, the study file's own values (the first trial) among them."""
    sampler: Literal["tpe", "random", "cmaes", "qmc", "grid"] = "tpe"
    """Optuna's sampler: tree-structured Parzen estimator (multivariate, constant liar), random, CMA-ES (names are drawn
    at random), quasi-random (scrambled Sobol); or ``grid``: every combination of integers and choices, in order."""
    startup_trials: int = Field(10, ge=0)
    """Random trials before TPE or CMA-ES begins to model."""
    scheduler: Literal["none", "asha", "hyperband"] = "none"
    """Early stopping by the k-NN AUC on the select split (``probe_every``): asynchronous successive halving, or
    asynchronous HyperBand, its form with several brackets. A stopped trial is ``pruned`` and never ranked."""
    grace_epochs: int = Field(10, ge=1)
    """Epochs that every trial trains before it may be stopped. Ours."""
    reduction: float = Field(3.0, gt=1)
    """η of successive halving: of the trials that reach a rung (``grace_epochs`` times a power of η), one in η goes on.
    Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020: 3 or 4."""
    warm_start: list[dict[str, Scalar]] = Field(default_factory=list)
    """Points to try right after the study file's own values."""
    seeds: int = Field(1, ge=1)
    """Seeds that the best trials and the default are run with, the search's own among them."""
    repeat_best: int = Field(3, ge=1)
    """How many of the best trials are repeated with the other seeds."""

    @model_validator(mode="after")
    def _grid_is_finite(self) -> SearchConfig:
        endless = [key for key, distribution in self.space.items() if distribution.values() is None]
        if self.sampler == "grid" and endless:
            raise ValueError(f"a grid takes int and choice, but {endless[0]} is {self.space[endless[0]]}")
        return self
