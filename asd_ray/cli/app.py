"""The command line ``asd-ray``: its commands in order, its exit codes, and how it ends on errors and Ctrl-C."""

from __future__ import annotations

import logging
import signal
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from asd_ray import __version__
from asd_ray.cli.bench import bench
from asd_ray.cli.data import data_app
from asd_ray.cli.detector import score
from asd_ray.cli.evaluate import evaluate
from asd_ray.cli.features import features_app
from asd_ray.cli.study import quickstart, study_app, train
from asd_ray.errors import AsdRayError, Interrupted
from asd_ray.memory import collect_rarely

ORDER = ("quickstart", "data", "features", "study", "train", "score", "evaluate", "bench")
"""Commands in the order in which a user needs them."""


class Commands(TyperGroup):
    """The group of all commands. It tells an interruption from a failure, whatever exception a library makes of it."""

    interrupted = False

    @classmethod
    def interrupt(cls, signum: int, frame: Any) -> NoReturn:
        """Handle Ctrl-C and SIGTERM."""
        cls.interrupted = True
        raise KeyboardInterrupt

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Interrupted:
            raise
        except BaseException:
            if not Commands.interrupted:
                raise
            raise Interrupted("interrupted; what is finished is kept: the same command goes on from there.") from None


app = typer.Typer(
    name="asd-ray",
    cls=Commands,
    help="Hyperparameter studies for anomalous sound detection, distributed with Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group, name in ((data_app, "data"), (features_app, "features"), (study_app, "study")):
    app.add_typer(group, name=name)
for command in (quickstart, train, score, evaluate, bench):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"asd-ray {__version__}")
        raise typer.Exit()


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Declare the options of all commands; ``main`` reads ``--debug``."""


def main() -> NoReturn:
    """Run the command line. Exit codes: 0 done, 1 ran and failed, 2 wrong usage or study file, 130 interrupted."""
    debug = "--debug" in sys.argv
    collect_rarely()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, Commands.interrupt)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        app()  # exits by itself: 0, or 2 for wrong usage
    except AsdRayError as error:
        if debug and not isinstance(error, Interrupted):
            raise
        typer.echo(str(error) if isinstance(error, Interrupted) else f"error: {error}", err=True)
        code = error.exit_code
    except Exception as error:
        if debug:
            raise
        typer.echo(f"internal error: {type(error).__name__}: {error} (run again with --debug for details)", err=True)
        code = 1
    else:
        code = 0
    sys.exit(code)
