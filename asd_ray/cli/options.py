"""Options that several commands share, and how they are parsed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from asd_ray.errors import ConfigError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
Layout = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Layout of folders and file names: dcase2020, dcase2022, folder or synthetic. By default the names tell.",
    ),
]
Machines = Annotated[
    list[str] | None, typer.Option("--machine", metavar="NAME", help="Use this machine type only; repeatable.")
]
StudyFile = Annotated[Path, typer.Argument(metavar="FILE", help="The study file (YAML).")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a key of the study file, such as search.num_trials=20; repeatable.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="ADDR",
        help="Run on this Ray: HOST:PORT, or 'auto' for the one that `ray start --head` started here. By default a "
        "local Ray is started.",
    ),
]


def parse_overrides(overrides: Sequence[str] | None) -> dict[str, Any]:
    """Parse ``--set KEY=VALUE`` options: dotted keys to values, which are read as YAML.

    Raises:
        ConfigError: an option without ``=``, or a value that is not YAML.
    """
    import yaml

    parsed: dict[str, Any] = {}
    for override in overrides or ():
        key, separator, value = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {override}: expected KEY=VALUE, for example --set search.num_trials=20.")
        try:
            parsed[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {override}: {value!r} is not a YAML value; put it in quotes.") from None
    return parsed
