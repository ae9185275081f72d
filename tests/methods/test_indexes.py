"""The index of each method names code and settings that exist."""

from __future__ import annotations

import functools
import importlib
from types import FunctionType, ModuleType
from typing import Any

import pytest

from asd_ray.config import SiaMocoConfig
from asd_ray.config.autoencoder import AutoencoderConfig
from asd_ray.config.os_scl import OsSclConfig

CONFIGS: dict[str, Any] = {"sia_moco": SiaMocoConfig, "os_scl": OsSclConfig, "autoencoder": AutoencoderConfig}


def cells(method: str) -> tuple[list[str], list[str]]:
    """The columns of code and settings, without empty cells."""
    lines = (importlib.import_module(f"asd_ray.methods.{method}").__doc__ or "").splitlines()
    first, second, last = [number for number, line in enumerate(lines) if line.startswith("===")]
    assert last > second
    step, code, _ = map(len, lines[first].split())
    rows = [line for line in lines[second + 1 : last] if not line.startswith("---")]
    columns = ([row[step + 1 : step + 1 + code] for row in rows], [row[step + code + 2 :] for row in rows])
    found = [[cell.strip().strip("`") for cell in column if cell.strip()] for column in columns]
    return found[0], found[1]


def named(name: str, method: str) -> Any:
    """The object of a dotted name in the method's folder, beside it, or in the package."""
    module, *attributes = name.split(".")
    for folder in (f"asd_ray.methods.{method}", "asd_ray.methods", "asd_ray"):
        try:
            found = importlib.import_module(f"{folder}.{module}")
            for position, attribute in enumerate(attributes):
                if not hasattr(found, attribute):
                    importlib.import_module(".".join([folder, module, *attributes[: position + 1]]))
                found = getattr(found, attribute)
        except ModuleNotFoundError:
            continue
        return found
    raise AssertionError(f"{name} is not in the folder of {method}")


@pytest.mark.parametrize("method", CONFIGS)
def test_an_index_names_code_and_settings_that_exist(method: str) -> None:
    code, settings = cells(method)
    assert len(code) >= 7
    assert settings
    for name in code:
        assert isinstance(named(name, method), (ModuleType, FunctionType, type)), name
    for key in settings:
        functools.reduce(getattr, key.split("."), CONFIGS[method]())
