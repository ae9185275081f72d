"""Reading a study file: YAML, overrides, validation, and errors that name the key, the value and the rule."""

from __future__ import annotations

import copy
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

import yaml
from pydantic import ValidationError

from asd_ray.config import MethodConfig, Scalar, SearchConfig, Section, StudyConfig
from asd_ray.config.method import DEFAULT, method_config
from asd_ray.errors import ConfigError

SEARCHABLE = ("method", "evaluation", "features")
NOT_SEARCHABLE = {
    "evaluation.objective": "trials that were judged differently cannot be compared",
    "evaluation.max_fpr": "it changes what the objective measures, so trials could not be compared",
    "features.store": "it says where features are kept, not what they are",
    "features.gpus_per_task": "it says how features are computed, not what they are",
    "features.preset": "it only stands for the defaults of the other keys of features; search those",
}
"""Keys of these sections that no search may change -> why."""


def load_study(
    source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] = MappingProxyType({})
) -> StudyConfig:
    """Load a study from a YAML file or a mapping, and validate it.

    Args:
        source: path of a study file, or its content as nested mappings.
        overrides: dotted keys and the values that replace the study's own: ``{"search.num_trials": 20}``.

    Returns:
        The study with every default filled in.

    Raises:
        ConfigError: the file is missing or is not YAML; a key is unknown; a value breaks a rule.

    Example:
        >>> study = load_study({"name": "mine", "search": {"num_trials": 8}}, {"search.num_trials": 2})
        >>> study.search.num_trials
        2
    """
    if isinstance(source, Mapping):
        document, name = copy.deepcopy(dict(source)), "the study"
    else:
        document, name = _read_yaml(Path(source)), str(source)
    for key, value in overrides.items():
        set_key(document, key, value)
    return parse_study(document, name)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the study file ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file; a study file is YAML.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: a study file is a mapping of keys (name, data, method, …), found {document!r:.80}.")
    return document


def parse_study(document: Mapping[str, Any], source: str) -> StudyConfig:
    """Validates a study given as nested mappings; ``source`` heads the error messages."""
    try:
        study = StudyConfig.model_validate(document)
    except ValidationError as error:
        lines = [_explain(detail, document) for detail in error.errors()]
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None
    _check_search(study, source)
    return study


def set_key(document: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key in nested mappings, making the mappings on the way."""
    *parents, last = key.split(".")
    for parent in parents:
        child = document.get(parent)
        if not isinstance(child, dict):
            child = document[parent] = {}
        document = child
    document[last] = value


def get_key(study: StudyConfig, key: str) -> Any:
    """The value of a dotted key of a study.

    Raises:
        KeyError: there is no such key.
    """
    value: Any = study
    for name in key.split("."):
        if isinstance(value, dict):
            value = value[name]
        elif name in getattr(type(value), "model_fields", {}):
            value = getattr(value, name)
        else:
            raise KeyError(key)
    return value


def with_values(study: StudyConfig, values: Mapping[str, Scalar]) -> StudyConfig:
    """The study with the given dotted keys replaced: what one trial runs.

    Raises:
        ConfigError: a key does not exist or its value breaks a rule.
    """
    document = study.model_dump(mode="json")
    for key, value in values.items():
        set_key(document, key, value)
    try:
        return StudyConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(detail, document) for detail in error.errors())) from None


def without_search(study: StudyConfig, seeds: int | None = None) -> StudyConfig:
    """The study's own values alone: one trial, repeated with every seed (the study's number of them by default)."""
    search = SearchConfig(num_trials=1, seeds=seeds or study.search.seeds)
    return study.model_copy(update={"search": search})


def to_yaml(study: StudyConfig) -> str:
    """The resolved study as YAML, every default spelled out."""
    return yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def shipped_study(name: str) -> Path:
    """The study file of that name that comes with the package (``studies/`` in a checkout)."""
    package = Path(__file__).parents[1]
    for folder in (package / "_studies", package.parent / "studies"):
        if (folder / f"{name}.yaml").exists():
            return folder / f"{name}.yaml"
    raise ConfigError(f"there is no study {name!r} among those that come with asd_ray.")


def budget(study: StudyConfig) -> dict[str, int]:
    """What a study will cost at most: trials, repeats with other seeds, epochs, workers at a time for one trial."""
    search = study.search
    epochs, trials = study.method.epochs, search.num_trials
    # The default is repeated, too, whether it is among the best or not.
    repeats = (search.seeds - 1) * min(search.repeat_best + 1, trials)
    return {
        "trials": trials,
        **({"repeats": repeats} if repeats else {}),
        "epochs per trial": epochs,
        "epochs": (trials + repeats) * epochs,
        "workers per trial": study.resources.workers,
    }


def _check_search(study: StudyConfig, source: str) -> None:
    """Every searched key exists, lies where a search may go, and accepts its whole range; and the search can do what
    it is asked for."""
    search = study.search
    for key, distribution in search.space.items():
        where = f"{source}: search.space: {key}"
        if key.split(".")[0] not in SEARCHABLE:
            raise ConfigError(f"{where}: only keys of {', '.join(SEARCHABLE)} can be searched.")
        if key in NOT_SEARCHABLE:
            raise ConfigError(f"{where}: cannot be searched: {NOT_SEARCHABLE[key]}.")
        _check_key(study, key, where)
        for value in distribution.examples():
            _check_value(study, {**_condition(search, key), key: value}, where)
    for key, own in search.point(lambda key: get_key(study, key)).items():
        if not search.space[key].contains(own):
            raise ConfigError(
                f"{source}: search.space: {key}: the first trial runs the study file's own value, {own}, which is not "
                f"in {search.space[key]}; widen the range or set {key} to a value within it."
            )
    for number, point in enumerate(search.warm_start):
        _check_warm_start(study, point, f"{source}: search.warm_start[{number}]")
    if len(study.evaluation.objectives) > 1:
        several = f"cannot be used with several objectives (evaluation.objective: {list(study.evaluation.objectives)})"
        if search.scheduler != "none":
            raise ConfigError(
                f"{source}: search.scheduler: {search.scheduler} {several}: it would stop trials by one of them, and "
                "with them parts of the Pareto front; set it to none."
            )
        if search.sampler == "cmaes":
            raise ConfigError(f"{source}: search.sampler: cmaes {several}; choose tpe, random, qmc or grid.")
    if search.storage is not None:
        _check_storage(search.storage, f"{source}: search.storage")


def _check_warm_start(study: StudyConfig, point: Mapping[str, Scalar], where: str) -> None:
    """A point has a value within its range for every key whose condition holds there, and for no other."""
    search = study.search
    for key, value in point.items():
        if key not in search.space:
            raise ConfigError(f"{where}: {key}: not a key of search.space.")
        _check_value(study, {**_condition(search, key), key: value}, f"{where}: {key}")
        if not search.space[key].contains(value):
            raise ConfigError(f"{where}: {key}: {value} is not in {search.space[key]}.")
    missing: list[str] = []

    def given(key: str) -> Scalar:
        if key not in point:
            missing.append(key)
        return point.get(key)

    drawn = search.point(given)
    if missing:
        raise ConfigError(f"{where}: {', '.join(sorted(missing))} has no value.")
    for key in point:
        if key not in drawn:
            raise ConfigError(
                f"{where}: {key} is {search.space[key]}, which does not hold at this point; leave it out."
            )


def _condition(search: SearchConfig, key: str) -> dict[str, Scalar]:
    """Values with which a key's condition holds, and those of the keys that it names."""
    values: dict[str, Scalar] = {}
    for other, accepted in search.space[key].when.items():
        values.update({**_condition(search, other), other: accepted[0]})
    return values


def _check_storage(url: str, where: str) -> None:
    """The URL is one, and a password in it is an environment variable's: the study file is copied into every report."""
    scheme, separator, rest = url.partition("://")
    if re.fullmatch(r"\$\{\w+\}", url):
        return
    if not separator or not scheme:
        raise ConfigError(
            f"{where}: expected the URL of a database, such as postgresql://me:${{PASSWORD}}@host/studies."
        )
    if scheme.startswith("sqlite"):
        return
    _, colon, password = rest.rpartition("@")[0].partition(":")
    arguments = parse_qsl(rest.partition("?")[2])
    secrets = [password if colon else "", *(value for name, value in arguments if "pass" in name.lower())]
    if any(re.sub(r"\$\{\w+\}", "", secret) for secret in secrets):
        raise ConfigError(
            f"{where}: holds a password, which would be copied into the study folder and its report. Put it into an "
            "environment variable and write ${NAME} in its place."
        )


def _check_key(study: StudyConfig, key: str, where: str) -> None:
    try:
        value = get_key(study, key)
    except KeyError:
        raise ConfigError(f"{where}: there is no such key in a study.{_did_you_mean(key, study)}") from None
    if isinstance(value, (dict, list, tuple, Section)):
        raise ConfigError(f"{where}: is not a single value, only numbers and names can be searched.")


def _check_value(study: StudyConfig, values: Mapping[str, Scalar], where: str) -> None:
    try:
        with_values(study, values)
    except ConfigError as error:
        raise ConfigError(f"{where}: its range includes a value that the study refuses: {error}") from None


def leaf_keys(study: StudyConfig) -> list[str]:
    """All dotted keys of a study that hold a single value."""

    def walk(value: Any, prefix: str) -> Iterable[str]:
        if isinstance(value, dict):
            for name, child in value.items():
                yield from walk(child, f"{prefix}.{name}" if prefix else name)
        elif not isinstance(value, list):
            yield prefix

    return list(walk(study.model_dump(mode="json", exclude={"search": {"space"}}), ""))


def _did_you_mean(key: str, study: StudyConfig) -> str:
    close = difflib.get_close_matches(key, leaf_keys(study), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def _explain(detail: Any, document: Mapping[str, Any]) -> str:
    """One pydantic error about a document as a sentence: key, rule, value."""
    key = ".".join(str(part) for part in detail["loc"]) or "the study"
    if detail["type"] == "extra_forbidden":
        return f"{key}: unknown key.{_near_key(detail['loc'], document)}"
    if detail["type"] == "missing":
        return f"{key}: this key is missing."
    rule = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    value = detail["input"]
    if detail["type"] == "value_error" and isinstance(value, (dict, StudyConfig)):
        return f"{key}: {rule}."
    shown = value if isinstance(value, float) and math.isfinite(value) else repr(value)
    return f"{key}: {rule}, but got {shown}."


def _near_key(location: tuple[int | str, ...], document: Mapping[str, Any]) -> str:
    """The known key that an unknown one probably stands for, or all that are known there."""
    fields: Any = StudyConfig
    for part in location[:-1]:
        field = getattr(fields, "model_fields", {}).get(str(part))
        fields = field.annotation if field else None
        if fields is MethodConfig:
            fields = method_config(document["method"].get("name", DEFAULT))
    known = list(getattr(fields, "model_fields", {}))
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f" Did you mean {close[0]}?"
    return f" Known keys here: {', '.join(known)}." if known else ""
