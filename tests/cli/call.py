"""Run a command of the command line within the test's process."""

from __future__ import annotations

from typer.testing import CliRunner

from asd_ray.cli.app import app
from asd_ray.errors import AsdRayError


def call(*arguments: object) -> tuple[int, str, str]:
    """Run a command; returns exit code, standard output and standard error. Raises what the command raises."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, AsdRayError):
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stdout, result.stderr
