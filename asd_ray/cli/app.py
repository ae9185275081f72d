"""The command line: parse, call one function, print. Imports of the heavy parts wait until a command needs them."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from asd_ray import __version__
from asd_ray.cli.bench import bench
from asd_ray.cli.cluster import jobs_status, submit
from asd_ray.cli.data import data_app
from asd_ray.cli.detector import evaluate, score
from asd_ray.cli.features import features_app
from asd_ray.cli.options import AsJson, parse_overrides
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.files import shown
from asd_ray.memory import collect_rarely


class Interrupted(AsdRayError):
    """Ctrl-C, or a job that is stopped."""

    exit_code = 130


class Commands(TyperGroup):
    """Tells an interruption from a failure, whatever it comes out of the libraries below as."""

    interrupted = False

    @classmethod
    def interrupt(cls, signum: int, frame: Any) -> NoReturn:
        cls.interrupted = True
        raise KeyboardInterrupt

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
    help="Ray-distributed hyperparameter studies for anomalous sound detection.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
study_app = typer.Typer(help="Run, watch and compare studies.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(features_app, name="features")
app.add_typer(study_app, name="study")
for command in (score, evaluate, bench):
    app.command()(command)
study_app.command()(submit)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The study file (YAML).")]
StudyDir = Annotated[Path, typer.Argument(metavar="DIR", help="A study folder.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a key of the study file; repeatable.")
]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The study folder. Default: runs/<name>.")]
Address = Annotated[
    str | None,
    typer.Option(help="Run on the Ray at HOST:PORT, or 'auto' for the one that `ray start --head` started here."),
]


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
    """Options of all commands. ``main`` looks at ``--debug``."""


@app.command()
def quickstart(
    out: Out = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """A complete small study on synthetic machines, on a local Ray of its own. Safe to run again."""
    from asd_ray.config.study_file import load_study, shipped_study

    _run(load_study(shipped_study("quickstart")), out, address, as_json)


@study_app.command()
def validate(
    file: File,
    overrides: Overrides = None,
    like: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Estimate time and cost from this study, finished or running.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=1e-9, metavar="CLIPS/S", help="Estimate them from a trial's speed in training.")
    ] = None,
    clips: Annotated[int | None, typer.Option(min=1, help="Training clips of an epoch, for an estimate.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Trials at the same time, for an estimate.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the resolved study, its search space, its budget, and what it will take; start nothing."""
    from asd_ray.config.study_file import budget, load_study, to_yaml
    from asd_ray.methods.registry import check
    from asd_ray.study.cost import cost

    study = load_study(file, parse_overrides(overrides))
    check(study)
    takes = cost(study, like, rate, clips, concurrency)
    if as_json:
        plan = {"study": study.model_dump(mode="json"), "budget": budget(study)}
        typer.echo(json.dumps(plan | ({"cost": takes.as_dict()} if takes else {}), ensure_ascii=False))
        return
    typer.echo(to_yaml(study))
    width = max(map(len, study.search.space), default=0)
    typer.echo("# search space")
    for key, distribution in study.search.space.items():
        typer.echo(f"#   {key:{width}}  {distribution}")
    typer.echo("# budget: " + ", ".join(f"{count} {what}" for what, count in budget(study).items()))
    if takes:
        typer.echo(f"# cost, at most: {takes}")


@study_app.command("run")
def run_command(
    file: File, out: Out = None, address: Address = None, overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Run a study, or go on with one that was interrupted."""
    from asd_ray.config.study_file import load_study

    _run(load_study(file, parse_overrides(overrides)), out, address, as_json)


@app.command()
def train(
    file: File,
    out: Out = None,
    address: Address = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs, each with a seed of its own; the file's by default.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train a study file's own values without a search, over several seeds: how a published result is reproduced."""
    from asd_ray.config.study_file import load_study, without_search

    _run(without_search(load_study(file, parse_overrides(overrides)), seeds), out, address, as_json)


@study_app.command()
def status(
    study: Annotated[
        str | None, typer.Argument(metavar="DIR|NAME", help="A study folder; with --address, a study's name or job.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="URL", help="Show the studies submitted to the cluster with this dashboard.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How far a study is: trials asked for, ended, under way, and the best so far; or the jobs on a cluster."""
    if address is not None:
        jobs_status(address, study, as_json)
        return
    if study is None:
        raise ConfigError("study status: expected a study folder, or --address http://HEAD:8265.")
    from asd_ray.study.folder import StudyFolder

    state = StudyFolder(Path(study)).status()
    if as_json:
        typer.echo(json.dumps(state))
        return
    typer.echo(
        f"study {state['name']}: {state['ended']} of {state['asked']} trials ended ({state['complete']} complete, "
        f"{state['pruned']} pruned, {state['failed']} failed), {state['unfinished']} started and not ended"
    )
    if state["best"] is not None:
        typer.echo(f"best so far: trial {state['best']} with objective {100 * state['objective']:.2f}")


@study_app.command("report")
def report_command(folder: StudyDir) -> None:
    """Write the tables, summary.md and report.html of a study again from its trials."""
    from asd_ray.report.write import write_results
    from asd_ray.study.folder import StudyFolder

    study_folder = StudyFolder(folder)
    outcome = write_results(study_folder, study_folder.study())
    typer.echo(f"report: {shown(outcome.report)}")


@study_app.command("compare")
def compare_command(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR DIR ...", help="Study folders of the same test clips.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the comparison is written.")],
) -> None:
    """Studies side by side: their best trials, with intervals and differences to the first, paired by clip."""
    from asd_ray.report.compare import compare

    page = compare(folders, out)
    typer.echo((out / "compare.md").read_text(encoding="utf-8"))
    typer.echo(f"comparison: {shown(page)}")


def _run(study: Any, out: Path | None, address: str | None, as_json: bool) -> None:
    from asd_ray.report.summary import terminal_table
    from asd_ray.report.text import format_seconds
    from asd_ray.run_study import run_study

    started = time.monotonic()
    outcome = run_study(study, out or Path("runs") / study.name, address, stdout=not as_json)
    if as_json:
        typer.echo(json.dumps(outcome.as_dict()))
    else:
        typer.echo(terminal_table(outcome.folder))
        typer.echo(f"study folder: {shown(outcome.folder)}")
        typer.echo(f"report:       {shown(outcome.report)}")
        typer.echo(f"took:         {format_seconds(time.monotonic() - started)}")
    if outcome.best is None:
        raise AsdRayError(f"no trial of {study.name} completed; the reasons are in {outcome.folder}/summary.md.")


def main() -> NoReturn:
    """Runs the command line. Exit codes: 0 done, 1 ran and failed, 2 wrong usage or study file, 130 interrupted."""
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
