"""``search``: the distributions of values, and the rule that draws them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

from pydantic import Field, field_validator, model_serializer, model_validator

from asd_ray.config.section import Section

Scalar = bool | int | float | str | None


class Distribution(Section):
    """The distribution of a searched key: ``{uniform: [0.1, 0.6]}`` or ``{type: uniform, low: 0.1, high: 0.6}``.

    ``uniform`` and ``loguniform`` are real numbers, ``int`` and ``logint`` integers; bounds are included. ``choice`` is
    a list of values. Each may have a condition: ``{uniform: [0.1, 0.7], when: {method.finetune.head: arcface}}``.
    """

    type: Literal["uniform", "loguniform", "int", "logint", "choice"]
    low: float | None = None
    high: float | None = None
    choices: list[Scalar] | None = None
    when: dict[str, list[Scalar]] = Field(default_factory=dict)
    """Condition: another searched key (``choice``, ``int`` or ``logint``) -> its value, or a list of values. The key is
    drawn only in trials where each of these keys is drawn and has such a value. In others it keeps the study file's own
    value."""

    @field_validator("when", mode="before")
    @classmethod
    def _lists(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return {key: value if isinstance(value, list) else [value] for key, value in given.items()}
        return given

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: Any) -> Any:
        kinds = ("uniform", "loguniform", "int", "logint", "choice")
        if isinstance(given, Distribution) or (isinstance(given, dict) and "type" in given):
            return given
        named = [key for key in given if key != "when"] if isinstance(given, dict) else []
        if len(named) != 1 or named[0] not in kinds:
            raise ValueError(f"expected one of {{{': [...]}, {'.join(kinds)}: [...]}}, but got {given!r}")
        kind, values = named[0], given[named[0]]
        condition = {key: given[key] for key in ("when",) if key in given}
        if kind == "choice":
            return {"type": kind, "choices": values, **condition}
        if not isinstance(values, (list, tuple)) or len(values) != 2:
            raise ValueError(f"{kind} takes two numbers, [low, high], but got {values!r}")
        return {"type": kind, "low": values[0], "high": values[1], **condition}

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
    def _as_short_form(self) -> dict[str, Any]:
        bounds = [self.low, self.high]
        if self.type.endswith("int"):
            bounds = [int(bound or 0) for bound in bounds]
        short: dict[str, Any] = {self.type: list(self.choices or []) if self.type == "choice" else bounds}
        return {**short, "when": self.when} if self.when else short

    def applies(self, values: Mapping[str, Scalar]) -> bool:
        """Whether the condition holds in a trial that has drawn these values."""
        return all(key in values and values[key] in accepted for key, accepted in self.when.items())

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
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        whole = not self.type.endswith("int") or float(value).is_integer()
        return whole and (self.low or 0) <= value <= (self.high or 0)

    def values(self) -> list[Scalar] | None:
        """All values of a choice or of a range of integers, None where there is no end of them."""
        if self.type == "int":
            return list(range(int(self.low or 0), int(self.high or 0) + 1))
        return list(self.choices or []) if self.type == "choice" else None

    def can_repeat(self) -> bool:
        """Whether a search is likely to draw the same value twice: of real numbers it never does."""
        return self.type not in ("uniform", "loguniform")

    def __str__(self) -> str:
        if self.type == "choice":
            text = "one of " + ", ".join(str(choice) for choice in self.choices or [])
        else:
            text = f"{self.low:g} to {self.high:g}" + (" (log)" if self.type.startswith("log") else "")
        conditions = [f"{key} is {' or '.join(map(str, accepted))}" for key, accepted in self.when.items()]
        return f"{text} (when {' and '.join(conditions)})" if conditions else text


class SearchConfig(Section):
    space: dict[str, Distribution] = Field(default_factory=dict)
    """Dotted key of the study -> its distribution: ``method.pretrain.alpha: {uniform: [0.1, 0.6]}``. Without a space,
    a study is one run of its own values."""
    num_trials: int = Field(20, ge=1)
    """Number of trials. The first has the study file's own values. Default: 20, or 1 without a ``space``."""
    sampler: Literal["tpe", "random", "cmaes", "qmc", "grid"] = "tpe"
    """Rule by which Optuna draws values. ``tpe``: tree-structured Parzen estimator (multivariate, constant liar), with
    one model for the keys that share a condition. ``random``. ``cmaes``: CMA-ES, for one objective and no conditions;
    names are drawn at random. ``qmc``: quasi-random (scrambled Sobol); keys under a condition that the first trial does
    not meet are drawn at random. ``grid``: every combination of integers and choices that the conditions allow, in
    order."""
    startup_trials: int = Field(10, ge=0)
    """Random trials before the models of ``tpe`` and ``cmaes`` are used."""
    scheduler: Literal["none", "asha", "hyperband"] = "none"
    """Rule that stops trials early, by the k-NN AUC on the select split (``probe_every``). ``asha``: asynchronous
    successive halving. ``hyperband``: the same with several brackets. A stopped trial is ``pruned`` and never
    ranked."""
    grace_epochs: int = Field(10, ge=1)
    """Epochs of a trial before it may be stopped. Ours."""
    reduction: float = Field(3.0, gt=1)
    """η of successive halving: one in η trials goes on from each rung; rungs are at ``grace_epochs`` times the powers
    of η. Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020: 3 or 4."""
    warm_start: list[dict[str, Scalar]] = Field(default_factory=list)
    """Points that the trials after the first one take: for each, searched keys and their values."""
    seeds: int = Field(1, ge=1)
    """Number of seeds for the best trials and the first one; the search's own seed is one of them."""
    repeat_best: int = Field(3, ge=1)
    """Number of best trials that are repeated with the other seeds."""
    storage: str | None = None
    """URL of the database in which Optuna keeps the trials, for ``optuna-dashboard`` and similar tools. Default: the
    file ``optuna.db`` in the study folder. In ``postgresql://me:${PASSWORD}@host/studies``, ``${…}`` is an environment
    variable; it is read where the study runs, and written nowhere. A password must be given like this, its special
    characters percent-encoded as in any URL. A database may hold many studies: each has its name and a suffix of its
    own, which the study folder keeps (``optuna_study``)."""

    @model_validator(mode="before")
    @classmethod
    def _one_run_without_a_space(cls, given: Any) -> Any:
        if isinstance(given, dict) and not given.get("space"):
            return {"num_trials": 1, **given}
        return given

    @model_validator(mode="after")
    def _grid_is_finite(self) -> SearchConfig:
        endless = [key for key, distribution in self.space.items() if distribution.values() is None]
        if self.sampler == "grid" and endless:
            raise ValueError(f"a grid takes int and choice, but {endless[0]} is {self.space[endless[0]]}")
        return self

    @model_validator(mode="after")
    def _conditions_can_hold(self) -> SearchConfig:
        for key, distribution in self.space.items():
            for other, accepted in distribution.when.items():
                condition = f"{key} has a condition on {other}"
                if other not in self.space:
                    raise ValueError(
                        f"{condition}, which is not searched and so the same in every trial; search {other}, too, or "
                        "drop the condition"
                    )
                drawn_from = self.space[other]
                if drawn_from.type in ("uniform", "loguniform"):
                    raise ValueError(f"{condition}, which is {drawn_from}; a condition takes choice, int or logint")
                never = [value for value in accepted if not drawn_from.contains(value)]
                if never or not accepted:
                    found = f"the value {never[0]}" if never else "no value"
                    raise ValueError(f"{condition} with {found}; expected values of {drawn_from}")
        if self.sampler == "cmaes" and (conditional := [key for key, found in self.space.items() if found.when]):
            raise ValueError(
                f"sampler cmaes cannot draw keys under a condition, but {conditional[0]} has one; choose tpe or random"
            )
        try:
            self.ordered()
        except CycleError as error:
            raise ValueError(f"conditions go in a circle: {' needs '.join(reversed(error.args[1]))}") from None
        return self

    def ordered(self) -> list[str]:
        """The searched keys, each after the keys that its condition names."""
        return list(TopologicalSorter({key: found.when for key, found in self.space.items()}).static_order())

    def point(self, pick: Callable[[str], Scalar]) -> dict[str, Scalar]:
        """A point of the space: key -> what ``pick`` says of it, for the keys whose conditions hold at the point."""
        values: dict[str, Scalar] = {}
        for key in self.ordered():
            if self.space[key].applies(values):
                values[key] = pick(key)
        return values

    def grid(self) -> list[dict[str, Scalar]]:
        """Every point of a space of integers and choices, once."""
        points: list[dict[str, Scalar]] = [{}]
        for key in self.ordered():
            found = self.space[key]
            points = [
                extended
                for point in points
                for extended in (
                    [{**point, key: value} for value in found.values() or []] if found.applies(point) else [point]
                )
            ]
        return points
