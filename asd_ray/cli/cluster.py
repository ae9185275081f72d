"""Commands that talk to a cluster through its dashboard: ``study submit`` and ``study status --address``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from tabulate import tabulate

from asd_ray.cli.options import AsJson, Overrides, StudyFile, parse_overrides
from asd_ray.errors import AsdRayError, ConfigError, Interrupted

LINES = 10  # last lines of a job's log that its status shows


def submit(
    file: StudyFile,
    address: Annotated[
        str, typer.Option(metavar="URL", help="Address of the cluster's dashboard, such as http://HEAD:8265.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="The study folder: an absolute path on storage that all nodes share. Default on a Ray of this "
            "computer alone: runs/<name>.",
        ),
    ] = None,
    overrides: Overrides = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY[=VALUE]",
            help="Set an environment variable of the job; without =VALUE, to its value here. Repeatable. Ray stores "
            "it in the job's description.",
        ),
    ] = None,
    driver_cpus: Annotated[
        float | None,
        typer.Option(
            "--driver-cpus",
            metavar="N",
            min=0.01,
            help="Reserve N cores on any node for the study's own process. By default it runs on the head.",
        ),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return at once; do not follow the job's log.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Submit a study that has succeeded once more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a study on a cluster, as a Ray Job, and follow it.

    The job carries the study file and asd_ray's code, but no data. If the study's job runs already, the command follows
    that job. A study that failed or was stopped is submitted again and resumes. Exit code: 0 succeeded, 1 failed, 130
    stopped, or Ctrl-C, which leaves the job running.
    """
    from asd_ray.cluster import jobs
    from asd_ray.cluster import submit as sending
    from asd_ray.config.study_file import load_study
    from asd_ray.methods.registry import check

    study = load_study(file, parse_overrides(overrides))
    check(study)
    variables = sending.environment(env or [])
    client = jobs.connect(address)
    out = out or Path("runs") / study.name
    try:
        study, folder = sending.whole_paths(study, out, None)
    except ConfigError:
        if not jobs.is_this_computer(address):
            raise
        study, folder = sending.whole_paths(study, out, Path.cwd())
    sent = sending.submit(client, study, folder, variables, again, driver_cpus)
    dashboard = f"{address.rstrip('/')}/#/jobs/{sent.job}"

    def say(text: str, newline: bool = True) -> None:
        typer.echo(text, err=as_json, nl=newline)

    say(f"job {sent.job} {'submitted' if sent.new else 'was submitted before: ' + sent.status.lower()}")
    say(f"dashboard:    {dashboard}")
    say(f"study folder: {folder}")
    status, details = sent.status, None
    if sent.status.is_terminal():
        say("nothing is sent twice: --again sends it once more, --set search.num_trials=N asks for more trials.")
    elif not no_wait:
        try:
            details = jobs.follow(client, sent.job, lambda text: say(text, newline=False))
        except KeyboardInterrupt:
            raise Interrupted(
                f"detached; job {sent.job} goes on. The same command follows it again, and "
                f"`ray job stop {sent.job} --address {address}` ends it."
            ) from None
        status = details.status
        say(f"job {sent.job} {status.lower()}")
    if as_json:
        about = {"job": sent.job, "status": status, "submitted": sent.new, "out": folder, "dashboard": dashboard}
        typer.echo(json.dumps({"study": study.name, **about}))
    if details is not None and status == "FAILED":
        raise AsdRayError(f"job {sent.job} failed: {jobs.failure(details)}")
    if status == "STOPPED":
        raise Interrupted(f"job {sent.job} was stopped; what is finished is kept: the same command goes on from there.")


def jobs_status(address: str, name: str | None, as_json: bool) -> None:
    """Print the studies that were submitted to a cluster, or one of them with the last lines of its jobs' logs."""
    from asd_ray.cluster import jobs

    client = jobs.connect(address)
    found = jobs.study_jobs(client, name)
    if name is not None and not found:
        raise AsdRayError(f"{address}: no job of a study {name!r} was submitted there.")
    rows: list[dict[str, Any]] = []
    for details in found:
        about = details.metadata or {}
        lines = jobs.last_lines(client, str(details.submission_id), LINES if name is not None else 1)
        rows.append(
            {
                "study": about["study"],
                "job": details.submission_id,
                "status": details.status,
                "started": _moment(details.start_time),
                "ended": _moment(details.end_time),
                "out": about.get("out"),
                "entrypoint": details.entrypoint,
                "log": lines,
            }
        )
    if as_json:
        typer.echo(json.dumps(rows))
        return
    if not rows:
        typer.echo(f"no study was submitted to {address} yet.")
    elif name is None:
        table = [[row["study"], row["status"], row["started"], row["job"], *row["log"][-1:]] for row in rows]
        typer.echo(tabulate(table, headers=["study", "status", "started", "job", "last line of its log"]))
    for row in rows if name is not None else []:
        period = row["started"] + (f" to {row['ended']}" if row["ended"] else "")
        typer.echo(f"job {row['job']} {row['status'].lower()}, {period}\n{row['entrypoint']}")
        typer.echo("".join(f"  {line}\n" for line in row["log"]))


def _moment(milliseconds: int | None) -> str:
    """Format a time of Ray's in this computer's time zone; empty if there is none."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(milliseconds / 1000)) if milliseconds else ""
