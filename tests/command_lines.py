"""Command lines in pages and manifests, parsed by the real commands; nothing is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from asd_ray.cli.app import app
from asd_ray.cli.options import parse_overrides
from asd_ray.config.study_file import load_study

REPO = Path(__file__).resolve().parents[1]
ASD_RAY = typer.main.get_command(app)


def find(command: Any, arguments: list[str]) -> tuple[Any, list[str]]:
    """The subcommand that a command line names, and the arguments that follow it.

    Raises:
        AssertionError: no such subcommand.
    """
    while hasattr(command, "commands"):
        assert arguments[0] in command.commands, f"no command {arguments[0]!r} of {command.name}"
        command, arguments = command.commands[arguments[0]], arguments[1:]
    return command, arguments


def parse(command: Any, arguments: list[str]) -> dict[str, Any]:
    """The parameters that a command line (but for ``--help``) gives to a command, or to its subcommand.

    Raises:
        AssertionError: no such subcommand.
        UsageError: an option or argument that the command does not take (of click, or of the click in typer).
    """
    command, arguments = find(command, arguments)
    return command.make_context(command.name, [word for word in arguments if word != "--help"]).params


def our_commands(page: str) -> Iterator[list[str]]:
    """Arguments of every ``asd-ray`` in the bash blocks of a page."""
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "asd-ray" in words:
                yield words[words.index("asd-ray") + 1 :]


def named_commands(page: str) -> Iterator[list[str]]:
    """Arguments of every ``asd-ray`` in inline code of a page; placeholders stand for some."""
    for code in re.findall(r"`asd-ray ([^`\n]+)`", page):
        yield code.split()


def check_command(arguments: list[str], root: Path = REPO) -> dict[str, Any]:
    """Check an ``asd-ray`` command line: known options, an existing study file, valid ``--set`` keys.

    Args:
        arguments: after ``asd-ray``. A shell variable in the study file's name stands for any text.
        root: folder that the study file's path is relative to.

    Returns:
        The parsed parameters.
    """
    params = parse(ASD_RAY, arguments)
    if (file := params.get("file")) is not None:
        files = sorted(root.glob(re.sub(r"\$\w+", "*", str(file))))
        assert files, f"no study file {file}"
        for path in files:
            load_study(path, parse_overrides(params["overrides"]))
    return params
