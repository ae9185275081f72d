"""``asd-ray score``, a detector at work, and ``asd-ray evaluate``, score files of anyone against labels."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asd_ray.cli.options import AsJson, Layout, Machines
from asd_ray.errors import AsdRayError, ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from asd_ray.challenge.official import OfficialMetrics
    from asd_ray.detector.detector import Detector


def score(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Recordings, or folders of them.")],
    detector: Annotated[Path, typer.Option("--detector", metavar="DIR", help="The detector/ folder of a study.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="CSV file to write; standard output by default, or -.")
    ] = None,
    machine: Annotated[str | None, typer.Option(help="Machine of recordings whose path does not say it.")] = None,
    machine_id: Annotated[str | None, typer.Option("--id", help="ID of recordings whose path does not say it.")] = None,
    device: Annotated[str, typer.Option(help="Where the network runs, such as cuda.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Anomaly scores and decisions of recordings by a saved detector, as CSV. Needs no Ray.

    A recording that cannot be read is named on standard error; the others are scored, and the exit code is 1.
    """
    from asd_ray.detector.detector import COLUMNS, Detector
    from asd_ray.detector.which_machine import tell_group
    from asd_ray.files import write_atomically

    target = None if out is None or str(out) == "-" else out
    if target is not None and target.is_dir():
        raise ConfigError(f"--out {target}: this is a folder; expected the name of a CSV file.")
    model = Detector.load(detector)
    files = [(path, tell_group(path, model.info.groups, machine, machine_id)) for path in _recordings(paths)]
    try:
        model.method.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {device}: torch cannot use it here ({str(error).splitlines()[0]}).") from None
    failed: list[str] = []

    def bad(error: AsdRayError) -> None:
        failed.append(str(error))
        typer.echo(f"error: {error}", err=True)

    tables = _with_bar(model, files, bad)
    counts = {"scored": 0, "anomalous": 0}

    def rows() -> Iterator[tuple[Any, ...]]:
        for table in tables:
            counts["scored"] += len(table)
            counts["anomalous"] += int(table["decision"].sum())
            yield from table.astype(object).itertuples(index=False, name=None)

    if target is not None:
        write_atomically(target, lambda beside: _write_csv(Path(beside), COLUMNS, rows()))
        if as_json:
            typer.echo(json.dumps({"out": str(target), **counts, "failed": failed}))
        else:
            typer.echo(f"{counts['scored']} recordings in {target}, {counts['anomalous']} called anomalous")
    elif as_json:
        scores = [dict(zip(COLUMNS, row, strict=True)) for row in rows()]
        typer.echo(json.dumps({"scores": scores, **counts, "failed": failed}))
    else:
        _write_rows(sys.stdout, COLUMNS, rows())
    if failed:
        typer.echo(f"{len(failed)} of {len(files)} recordings could not be read", err=True)
        raise typer.Exit(1)


def _recordings(paths: Iterable[Path]) -> list[Path]:
    """The files that are named, and the audio in the folders that are, each once."""
    from asd_ray.data.audio import is_audio
    from asd_ray.data.folder import files

    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            found[path] = None
            continue
        names = sorted(name for name in files(path) if is_audio(name))
        if not names:
            raise AsdRayError(f"{path}: there is no recording in this folder; expected wav, flac or ogg files.")
        found.update(dict.fromkeys(path / name for name in names))
    return list(found)


def _with_bar(
    model: Detector, files: Sequence[tuple[Path, str]], bad: Callable[[AsdRayError], None]
) -> Iterator[pd.DataFrame]:
    """The detector's tables, with a bar on standard error while it works on one.

    There is none while a table is written: rich sends what goes to standard output meanwhile to the bar's terminal.
    """
    columns = (TextColumn("recordings"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("", total=len(files))
    tables = model.scores(files, bad, lambda count: bar.advance(task, count))
    while True:
        with bar:
            table = next(tables, None)
        if table is None:
            return
        yield table


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        _write_rows(file, header, rows)


def _write_rows(file: TextIO, header: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)


def evaluate(
    scores: Annotated[Path, typer.Option("--scores", metavar="DIR", help="Folder of anomaly_score_….csv files.")],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="The data set's folder, for its labels.")],
    layout: Annotated[Layout | None, typer.Option(help="How its names are read; found out by default.")] = None,
    machines: Machines = None,
    max_fpr: Annotated[float, typer.Option(help="p of pAUC; the challenge's is 0.1.")] = 0.1,
    resamples: Annotated[int, typer.Option(help="Draws of the bootstrap; 0 leaves the intervals out.", min=0)] = 1000,
    as_json: AsJson = False,
) -> None:
    """The official metrics of score files in the challenge's format, whoever made them.

    Scores and labels are paired by file name. Parts of the data set (development, evaluation) without any score file
    are left out; of the others every labelled test clip must have a score.
    """
    from asd_ray.challenge.official import label_scores, official_metrics
    from asd_ray.data import layouts

    if not 0 < max_fpr < 1:
        raise ConfigError(f"--max-fpr: found {max_fpr:g}; expected a number above 0 and below 1.")
    kind = layout.value if layout else layouts.detect(data)
    if kind is None:
        raise AsdRayError(f"{data}: no known layout; choose one with --layout, or see `asd-ray data check`.")
    labelled = label_scores(scores, layouts.scan(data, kind, machines=machines), machines)
    evaluation = official_metrics(labelled, max_fpr, resamples)
    if as_json:
        tables = {"ids": evaluation.ids, "machines": evaluation.machines, "averages": evaluation.averages}
        document = {name: _records(table.rename(columns={"split": "part"})) for name, table in tables.items()}
        typer.echo(json.dumps({"layout": kind, "max_fpr": max_fpr, "clips": len(labelled), **document}))
    else:
        typer.echo(_evaluation_text(evaluation, max_fpr))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON, which knows no NaN."""
    return [{str(name): value for name, value in row.items()} for row in _plain(table).to_dict("records")]


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype(object).where(table.notna(), None)


def _evaluation_text(evaluation: OfficialMetrics, max_fpr: float) -> str:
    """One table for each part: its IDs, below them their machine's mean, at the end the mean over machines."""
    from asd_ray.metrics import has_domains

    intervals = " with 95 % bootstrap intervals over clips" if "auc_low" in evaluation.ids else ""
    text = [f"AUC and pAUC (p = {max_fpr:g}) in percent{intervals}"]
    for part, average in evaluation.averages.set_index("split", drop=False).iterrows():
        machines = evaluation.machines[evaluation.machines["split"] == part]
        ids = evaluation.ids[evaluation.ids["split"] == part]
        domains = has_domains(ids)
        text += ["", *([f"part {part}"] if part != "none" else []), _part_table(ids, machines, average, domains)]
        text += ["", _summary(average, domains)]
    return "\n".join(text)


def _part_table(ids: pd.DataFrame, machines: pd.DataFrame, average: pd.Series, domains: bool) -> str:
    from tabulate import tabulate

    optional = [name for name in ("precision", "recall", "f1") if name in ids]
    intervals = "auc_low" in ids
    rows = []
    for _, mean in machines.iterrows():
        for _, row in ids[ids["machine"] == mean["machine"]].iterrows():
            clips = f"{row['n_normal']}+{row['n_anomaly']}"
            rows.append([row["machine"], row["id"], row["domain"], clips, *_values(row, intervals, optional)])
        rows.append([mean["machine"], "mean", "", "", *_values(mean, intervals, optional)])
    rows.append(["all", "mean", "", "", *_values(average, intervals, optional)])
    areas = ["AUC", "95 %", "pAUC", "95 %"] if intervals else ["AUC", "pAUC"]
    head = ["machine", "id", "domain", "clips", *areas, "mAUC", "pooled\nAUC", "pooled\npAUC", *optional]
    if not domains:
        head, *rows = ([*row[:2], *row[3:]] for row in (head, *rows))
    return tabulate(rows, headers=head, disable_numparse=True, stralign="right")


def _values(row: pd.Series, intervals: bool, optional: Sequence[str]) -> list[str]:
    from asd_ray.report.tables import percent

    cells = []
    for name in ("auc", "pauc"):
        cells.append(percent(row[name]))
        if intervals:
            low, high = (float(row.get(f"{name}_{end}", math.nan)) for end in ("low", "high"))
            cells.append("" if math.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f}")
    means = ("mauc", "pooled_auc", "pooled_pauc")
    return [*cells, *(percent(row[name]) if name in row else "" for name in (*means, *optional))]


def _summary(average: pd.Series, domains: bool) -> str:
    """The figures that the challenge ranks by, and how they are averaged."""
    from asd_ray.report.tables import percent

    undefined = int(average["n_ids"] - average["n_defined"])
    left_out = f" IDs without normal or without anomalous clips, left out: {undefined}." if undefined else ""
    if not domains:
        return f"Means are arithmetic, over IDs and then machines (DCASE 2020).{left_out}"
    by_domain = ", ".join(
        f"AUC {name.removeprefix('auc_')} {percent(average[name])}"
        for name in ("auc_source", "auc_target")
        if name in average
    )
    return (
        f"Official score {percent(average['auc_pauc'])} ({by_domain}, pAUC {percent(average['pauc'])}): means are "
        f"harmonic, over machines, sections and domains (DCASE 2022).{left_out}"
    )
