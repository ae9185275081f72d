"""The package uses public names of Ray, Optuna, torch and timm only, so that it runs with their next releases, too."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import asd_ray

LIBRARIES = ("ray", "optuna", "torch", "timm", "torchaudio")
FORBIDDEN = (
    r"ray\._private|ray\.core\.generated|\b_internal\b|_ot_(study|trials)\b|optuna\.[\w.]*\._[a-z]|torch\._[a-z]"
)


def private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def bound(tree: ast.AST) -> set[str]:
    """Names of the module that stand for a library, or for something imported from one."""
    names = set(LIBRARIES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            for alias in node.names:
                if (module or alias.name).partition(".")[0] in LIBRARIES and not getattr(node, "level", 0):
                    names.add(alias.asname or alias.name.partition(".")[0])
    return names


def chains(tree: ast.AST) -> Iterator[tuple[int, list[str]]]:
    """Line and parts of every chain of attributes (``ray.data.Dataset``) that begins with a name."""
    for node in ast.walk(tree):
        parts, at = [], node
        while isinstance(at, ast.Attribute):
            parts.append(at.attr)
            at = at.value
        if parts and isinstance(at, ast.Name):
            yield node.lineno, [at.id, *reversed(parts)]  # type: ignore[attr-defined]


def private_names(source: str) -> set[str]:
    """``line: name`` of every private name of a library in a module's source."""
    tree = ast.parse(source)
    found = {
        f"{line}: {name}"
        for line, name in imported(tree)
        if name.partition(".")[0] in LIBRARIES and any(private(part) for part in name.split("."))
    }
    libraries = bound(tree)
    found |= {
        f"{line}: {'.'.join(parts)}"
        for line, parts in chains(tree)
        if parts[0] in libraries and any(private(part) for part in parts[1:])
    }
    return found | {
        f"{number}: {match[0]}"
        for number, line in enumerate(source.splitlines(), 1)
        if (match := re.search(FORBIDDEN, line))
    }


@pytest.mark.parametrize(
    "source",
    [
        "import ray._private.utils",
        "from ray.core.generated.common_pb2 import PYTHON",
        "from ray.train.v2._internal.callbacks import DatasetsCallback",
        "import ray\nray._private.worker",
        "import torch\ntorch._dynamo.exc",
        "from torch import nn\nnn.modules.batchnorm._BatchNorm",
        "from ray import tune as t\nt.trainable._hidden",
        "logging.getLogger('optuna.samplers._qmc')",
        "self._ot_study.ask()",
    ],
)
def test_a_private_name_is_found(source: str) -> None:
    assert private_names(source)


@pytest.mark.parametrize(
    "source", ["import ray\nray.__version__", "from torch import nn\nself._net.train()", "import optuna\noptuna.Study"]
)
def test_a_public_name_is_none(source: str) -> None:
    assert not private_names(source)


def test_the_package_names_nothing_private() -> None:
    folder = Path(asd_ray.__file__).parent
    found = {
        str(path.relative_to(folder)): names
        for path in sorted(folder.rglob("*.py"))
        if (names := private_names(path.read_text(encoding="utf-8")))
    }
    assert not found
