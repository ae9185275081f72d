"""What the commands of several modules share: options, and the progress bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asd_ray.errors import ConfigError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of text for a person.")]
Machines = Annotated[
    list[str] | None, typer.Option("--machine", metavar="NAME", help="Only this machine type; repeatable.")
]


class Layout(str, Enum):
    dcase2020 = "dcase2020"
    dcase2022 = "dcase2022"
    folder = "folder"
    synthetic = "synthetic"


class ProgressBar:
    """A progress bar on the terminal's standard error, as a ``progress(done, total)`` callable."""

    def __init__(self, what: str, console: Console | None = None) -> None:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console or Console(stderr=True), transient=True)

    def __enter__(self) -> Callable[[int, int], None]:
        self.bar.start()
        task = self.bar.add_task("", total=None)
        return lambda done, total: self.bar.update(task, completed=done, total=total)

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()


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
