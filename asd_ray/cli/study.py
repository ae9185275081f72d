"""Commands that run studies and read them: ``quickstart``, ``train``, ``asd-ray study …``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asd_ray.cli.cluster import jobs_status, submit
from asd_ray.cli.options import Address, AsJson, Overrides, StudyFile, parse_overrides
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.files import shown

if TYPE_CHECKING:
    from asd_ray.config import StudyConfig

study_app = typer.Typer(help="Run, follow and compare studies.", no_args_is_help=True)
StudyFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The study folder.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The study folder. Default: runs/<name>.")]


def quickstart(out: Out = None, address: Address = None, as_json: AsJson = False) -> None:
    """Run a complete small study on synthetic machines.

    It takes a few minutes, and starts a local Ray of its own. It is safe to run again.
    """
    from asd_ray.config.study_file import load_study, shipped_study

    _run(load_study(shipped_study("quickstart")), out, address, as_json)


@study_app.command()
def validate(
    file: StudyFile,
    overrides: Overrides = None,
    like: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Estimate time and cost from this study, finished or running."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=1e-9, metavar="CLIPS/S", help="Estimate time and cost from this speed of a trial's training."),
    ] = None,
    clips: Annotated[int | None, typer.Option(min=1, help="For an estimate: training clips per epoch.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="For an estimate: trials at the same time.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a study file and print the study; start nothing.

    Prints every key with its value, the search space, the budget of trials and epochs, and an estimate of time and
    cost where one is possible.
    """
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
    file: StudyFile, out: Out = None, address: Address = None, overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Run a study, or resume one that was interrupted."""
    from asd_ray.config.study_file import load_study

    _run(load_study(file, parse_overrides(overrides)), out, address, as_json)


study_app.command()(submit)


@study_app.command()
def status(
    study: Annotated[
        str | None,
        typer.Argument(metavar="DIR|NAME", help="A study folder; with --address, the name or the job of a study."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Show the studies that were submitted to the cluster with this dashboard."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the progress of a study, or the jobs on a cluster."""
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
def report_command(folder: StudyFolder) -> None:
    """Rebuild the tables and the report of a study."""
    from asd_ray.report.write import write_results
    from asd_ray.study.folder import StudyFolder
    from asd_ray.study.outcome import read_study

    study_folder = StudyFolder(folder)
    write_results(study_folder, study_folder.study())
    typer.echo(f"report: {shown(read_study(folder).report)}")


@study_app.command("compare")
def compare_command(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR DIR ...", help="Study folders with the same test clips.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write the comparison to.")],
) -> None:
    """Compare the best trials of several studies.

    Prints their metrics with intervals, and the differences to the first study, paired by clip.
    """
    from asd_ray.report.compare import compare

    page = compare(folders, out)
    typer.echo((out / "compare.md").read_text(encoding="utf-8"))
    typer.echo(f"comparison: {shown(page)}")


def train(
    file: StudyFile,
    out: Out = None,
    address: Address = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Number of runs, each with its own seed. Default: search.seeds.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train once with a study file's own values, no search.

    With several seeds, this reproduces a published result.
    """
    from asd_ray.config.study_file import load_study, without_search

    _run(without_search(load_study(file, parse_overrides(overrides)), seeds), out, address, as_json)


def _run(study: StudyConfig, out: Path | None, address: str | None, as_json: bool) -> None:
    from asd_ray.cli.terminal import StudyView, quiet_terminal
    from asd_ray.report.summary import terminal_table
    from asd_ray.report.text import format_seconds
    from asd_ray.run import open_folder, run_study

    started = time.monotonic()
    folder = open_folder(study, out or Path("runs") / study.name).path
    with (
        quiet_terminal(folder / "logs" / "ray.log", stdout=not as_json) as terminal,
        StudyView(terminal, study.name) as view,
    ):
        outcome = run_study(study, folder, address, view, show_ray_output=True)
    if as_json:
        typer.echo(json.dumps(outcome.as_dict()))
    else:
        typer.echo(terminal_table(outcome.folder))
        typer.echo(f"study folder: {shown(outcome.folder)}")
        typer.echo(f"report:       {shown(outcome.report)}")
        typer.echo(f"took:         {format_seconds(time.monotonic() - started)}")
    if outcome.best is None:
        raise AsdRayError(f"no trial of {study.name} completed; the reasons are in {outcome.folder}/summary.md.")
