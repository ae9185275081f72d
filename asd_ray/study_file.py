"""Reading a study file: YAML, overrides, validation, and errors that name the key, the value and the rule."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from asd_ray.config import MethodConfig, Scalar, SearchConfig, Section, StudyConfig
from asd_ray.errors import ConfigError

METHODS = {config.model_fields["name"].default: config for config in get_args(MethodConfig)}


def load_study(path: str | Path, overrides: Iterable[str] = ()) -> StudyConfig:
    """The validated study of a YAML file, with ``KEY=VALUE`` overrides applied.

    Raises:
        ConfigError: the file is missing, is not YAML, or does not validate.
    """
    path = Path(path)
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
    _override(document, overrides)
    return parse_study(document, str(path))


def _override(document: dict[str, Any], overrides: Iterable[str]) -> None:
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {override}: expected KEY=VALUE, for example --set search.num_trials=20.")
        try:
            set_key(document, key.strip(), yaml.safe_load(value))
        except yaml.YAMLError:
            raise ConfigError(f"--set {override}: {value!r} is not a YAML value; put it in quotes.") from None


def settings(overrides: Iterable[str]) -> StudyConfig:
    """The defaults of all settings with overrides applied, for commands that run no study.

    Raises:
        ConfigError: an override does not validate.
    """
    document: dict[str, Any] = {"name": "settings"}
    _override(document, overrides)
    return parse_study(document, "--set")


def parse_study(document: Mapping[str, Any], source: str) -> StudyConfig:
    """Validates a study given as nested mappings; ``source`` heads the error messages."""
    try:
        study = StudyConfig.model_validate(document)
    except ValidationError as error:
        lines = [_explain(detail) for detail in error.errors()]
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
        raise ConfigError("; ".join(_explain(detail) for detail in error.errors())) from None


def without_search(study: StudyConfig, seeds: int | None = None) -> StudyConfig:
    """The study's own values alone: one trial, repeated with every seed (the study's number of them by default)."""
    search = SearchConfig(num_trials=1, seeds=seeds or study.search.seeds)
    return study.model_copy(update={"search": search})


def to_yaml(study: StudyConfig) -> str:
    """The resolved study as YAML, every default spelled out."""
    return yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def shipped_study(name: str) -> Path:
    """The study file of that name that comes with the package (``studies/`` in a checkout)."""
    package = Path(__file__).parent
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
    """Every searched key exists, lies where a search may go, and accepts its whole range."""
    searchable = ("method", "evaluation")  # not features: they are computed once, before the first trial
    for key, distribution in study.search.space.items():
        where = f"{source}: search.space: {key}"
        if key.split(".")[0] not in searchable:
            raise ConfigError(f"{where}: only keys of {', '.join(searchable)} can be searched.")
        _check_key(study, key, where)
        for value in distribution.examples():
            _check_value(study, key, value, where)
        own = get_key(study, key)
        if not distribution.contains(own):
            raise ConfigError(
                f"{where}: the first trial runs the study file's own value, {own}, which is not in {distribution}; "
                f"widen the range or set {key} to a value within it."
            )
    for number, point in enumerate(study.search.warm_start):
        for key, value in point.items():
            where = f"{source}: search.warm_start[{number}]: {key}"
            if key not in study.search.space:
                raise ConfigError(f"{where}: not a key of search.space.")
            _check_value(study, key, value, where)
            if not study.search.space[key].contains(value):
                raise ConfigError(f"{where}: {value} is not in {study.search.space[key]}.")
        missing = set(study.search.space) - set(point)
        if missing:
            raise ConfigError(f"{source}: search.warm_start[{number}]: {', '.join(sorted(missing))} has no value.")


def _check_key(study: StudyConfig, key: str, where: str) -> None:
    try:
        value = get_key(study, key)
    except KeyError:
        raise ConfigError(f"{where}: there is no such key in a study.{_did_you_mean(key, study)}") from None
    if isinstance(value, (dict, list, tuple, Section)):
        raise ConfigError(f"{where}: is not a single value, only numbers and names can be searched.")


def _check_value(study: StudyConfig, key: str, value: Scalar, where: str) -> None:
    try:
        with_values(study, {key: value})
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


def _explain(detail: Any) -> str:
    """One pydantic error as a sentence: key, rule, value."""
    where = detail["loc"]
    if where[:1] == ("method",) and len(where) > 1 and where[1] in METHODS:
        where = (where[0], *where[2:])  # pydantic names the member of a union, a study file does not
    key = ".".join(str(part) for part in where) or "the study"
    if detail["type"] == "extra_forbidden":
        return f"{key}: unknown key.{_near_key(detail['loc'])}"
    if detail["type"] == "missing":
        return f"{key}: this key is missing."
    rule = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    value = detail["input"]
    if detail["type"] == "value_error" and isinstance(value, (dict, StudyConfig)):
        return f"{key}: {rule}."
    shown = value if isinstance(value, float) and math.isfinite(value) else repr(value)
    return f"{key}: {rule}, but got {shown}."


def _near_key(location: tuple[int | str, ...]) -> str:
    """Which known key an unknown one probably stands for."""
    fields: Any = StudyConfig
    for part in location[:-1]:
        field = getattr(fields, "model_fields", {}).get(str(part))
        fields = field.annotation if field else METHODS.get(part)
    known = list(getattr(fields, "model_fields", {}))
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f" Did you mean {close[0]}?"
    return f" Known keys here: {', '.join(known)}." if known else ""
