"""Commands that get, make and check recordings: ``asd-ray data …``."""

from __future__ import annotations

import json
from collections import Counter
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from asd_ray.cli.options import AsJson, Layout, Machines
from asd_ray.cli.terminal import ProgressBar

if TYPE_CHECKING:
    from asd_ray.data.check import Report

data_app = typer.Typer(help="Get, make and check recordings.", no_args_is_help=True)


class SynthLayout(str, Enum):
    dcase2020 = "dcase2020"
    dcase2022 = "dcase2022"


class PublicSet(str, Enum):
    dcase2020 = "dcase2020"
    dcase2022 = "dcase2022"


class Part(str, Enum):
    dev = "dev"
    additional = "additional"
    eval = "eval"


@data_app.command()
def synth(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write the set to.")],
    machines: Annotated[int, typer.Option(help="Machine types.", min=1, max=6)] = 6,
    ids: Annotated[int, typer.Option(help="Individuals (IDs, or sections) of each machine type.", min=1, max=7)] = 4,
    train: Annotated[int, typer.Option(help="Normal training clips of each ID.", min=1)] = 50,
    test_normal: Annotated[int, typer.Option(help="Normal test clips of each ID.", min=1)] = 25,
    test_anomaly: Annotated[int, typer.Option(help="Anomalous test clips of each ID.", min=1)] = 25,
    snr_db: Annotated[
        float, typer.Option(help="Level of the machine above the factory's noise, in dB.", min=-20, max=60)
    ] = 6.0,
    seed: Annotated[int, typer.Option(help="Seed of the generator.", min=0)] = 0,
    layout: Annotated[SynthLayout, typer.Option(help="Names and folders like those of this set.")] = (
        SynthLayout.dcase2020
    ),
    as_json: AsJson = False,
) -> None:
    """Make recordings of synthetic machines.

    A second run makes only what is missing. The set is a testbed; results on it are no evidence about real machines.
    """
    from asd_ray.datasets import synthesise

    with ProgressBar("synthetic recordings") as progress:
        recordings = synthesise(
            out, machines, ids, train, test_normal, test_anomaly, snr_db, seed, layout.value, progress
        )
    if as_json:
        typer.echo(json.dumps({"root": str(out.resolve()), "clips": len(recordings), "layout": layout.value}))
    else:
        typer.echo(f"{len(recordings)} clips of {machines} machines in {out} (faults.csv lists the faults)")


@data_app.command()
def calibrate(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the sets, one for each seed.")],
    machines: Annotated[int, typer.Option(help="Machine types.", min=1, max=6)] = 3,
    ids: Annotated[int, typer.Option(help="Individuals (IDs) of each machine type.", min=1, max=7)] = 2,
    seeds: Annotated[int, typer.Option(help="Generator seeds, from 0.", min=1)] = 3,
    epochs: Annotated[int, typer.Option(help="Epochs of the DCASE 2020 autoencoder; 0 leaves it out.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure how hard the synthetic machines are.

    Prints the AUC of detectors that know nothing, little, or the faults.
    """
    import pandas as pd
    from tabulate import tabulate

    from asd_ray.bench import calibration
    from asd_ray.cluster.session import local_tasks
    from asd_ray.config import SyntheticConfig

    tables = []
    with local_tasks(1000) as run:
        for seed in range(seeds):
            config = SyntheticConfig(machines=machines, ids=ids, seed=seed)
            folder = out / f"{machines}x{ids}-seed{seed}"
            tables.append(calibration.summarise(calibration.measure(folder, config, epochs=epochs, parallel_map=run)))
    together = pd.concat(tables, keys=range(seeds), names=["seed", "machine"]).groupby("machine", sort=False)
    mean, spread = together.mean(), together.std().fillna(0.0)
    if as_json:
        typer.echo(json.dumps({"mean": mean.to_dict("index"), "std": spread.to_dict("index"), "seeds": seeds}))
        return
    rows = [[name, *(f"{mean[d][name]:.3f} ± {spread[d][name]:.3f}" for d in mean)] for name in mean.index]
    typer.echo(tabulate(rows, headers=["AUC", *mean], tablefmt="github", disable_numparse=True))
    for detector in mean:
        typer.echo(f"{detector}: {calibration.DETECTORS[str(detector)]}")


@data_app.command()
def check(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="The data set's folder.")],
    layout: Layout = None,
    machines: Machines = None,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every clip; find duplicates across the splits.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what is in a data set, and its problems.

    Exit code 1 if a problem would stop a study.
    """
    from asd_ray.data.check import check as check_set

    with ProgressBar("clips") as progress:
        report = check_set(root, layout, deep=deep, progress=progress, machines=machines)
    typer.echo(report.to_json() if as_json else _check_text(report))
    if not report.ok:
        raise typer.Exit(1)


def _check_text(report: Report) -> str:
    """Format the counts by machine, ID and domain, and the problems by kind."""
    from tabulate import tabulate

    columns = [("train", "normal"), ("test", "normal"), ("test", "anomaly"), ("test", "unknown")]
    counts: Counter[tuple[str, ...]] = Counter(
        (clip.machine, clip.id, clip.domain, clip.split, clip.label) for clip in report.clips
    )
    rows = [
        [*key, *(counts[(*key, *column)] for column in columns)]
        for key in sorted({(clip.machine, clip.id, clip.domain) for clip in report.clips})
    ]
    head = ["machine", "id", "domain", *(f"{split} {label}" for split, label in columns)]
    lines = [f"{report.root}: {len(report.clips)} clips, layout {report.layout}", ""]
    lines += [tabulate(rows, headers=head, disable_numparse=True), ""]
    for severity, _, count, path, what, expected in report.summary.itertuples(index=False, name=None):
        more = f" ({count - 1} more like it; --json lists them)" if count > 1 else ""
        lines.append(f"{severity}: {path}: {what}; expected {expected}{more}")
    lines.append("nothing that would stop a study" if report.ok else "a study would stop at the errors above")
    return "\n".join(lines)


@data_app.command()
def download(
    name: Annotated[PublicSet, typer.Argument(help="The public set.")],
    root: Annotated[Path, typer.Option("--root", metavar="DIR", help="Folder to unpack it to.")],
    machines: Machines = None,
    parts: Annotated[
        list[Part] | None, typer.Option("--part", help="Development, additional training or evaluation; repeatable.")
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            help="Download from this mirror, which has the files as URL/<record>/<file>.", envvar="ASD_RAY_BASE_URL"
        ),
    ] = None,
    connections: Annotated[
        int, typer.Option(help="Parallel connections; Zenodo limits the rate of each.", min=1, max=64)
    ] = 8,
) -> None:
    """Download a public data set and unpack it.

    Resumes after an interruption, verifies checksums, and attaches the published labels of the evaluation set.
    """
    from asd_ray.data.public.download import Progress as Downloaded
    from asd_ray.data.public.download import download as fetch
    from asd_ray.data.public.download import progress_line

    console = Console(stderr=True)
    chosen = [part.value for part in parts] if parts else [part.value for part in Part]
    with console.status("starting") as status:

        def show(progress: Downloaded) -> None:
            status.update(progress_line(progress))

        folders = fetch(name.value, root, machines, chosen, base_url=base_url, progress=show, connections=connections)
    typer.echo(f"{name.value} is in {root}: {', '.join(str(folder.name) for folder in folders)}")
