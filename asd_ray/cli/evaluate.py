"""The command ``evaluate``: official metrics of score files, whoever made them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asd_ray.cli.options import AsJson, Layout, Machines
from asd_ray.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from asd_ray.challenge.official import OfficialMetrics


def evaluate(
    scores: Annotated[Path, typer.Option("--scores", metavar="DIR", help="Folder of anomaly_score_….csv files.")],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="The data set's folder, for its labels.")],
    layout: Layout = None,
    machines: Machines = None,
    max_fpr: Annotated[float, typer.Option(help="False positive rate p up to which pAUC counts.")] = 0.1,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples of the intervals; 0: none.", min=0)] = 1000,
    as_json: AsJson = False,
) -> None:
    """Compute the official metrics of score files.

    The files are in the challenge's format, whoever made them. Scores and labels are paired by file name. A part of the
    data set (development, evaluation) without any score file is left out; in the other parts, every labelled test clip
    must have a score.
    """
    from asd_ray.challenge.official import label_scores, official_metrics
    from asd_ray.datasets import find_layout, scan

    if not 0 < max_fpr < 1:
        raise ConfigError(f"--max-fpr: found {max_fpr:g}; expected a number above 0 and below 1.")
    layout = layout or find_layout(data)
    labelled = label_scores(scores, scan(data, layout, machines), machines)
    evaluation = official_metrics(labelled, max_fpr, resamples)
    if as_json:
        tables = {"ids": evaluation.ids, "machines": evaluation.machines, "averages": evaluation.averages}
        document = {name: _records(table.rename(columns={"split": "part"})) for name, table in tables.items()}
        typer.echo(json.dumps({"layout": layout, "max_fpr": max_fpr, "clips": len(labelled), **document}))
    else:
        typer.echo(_evaluation_text(evaluation, max_fpr))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Convert a table to rows for JSON, which knows no NaN."""
    return [{str(name): value for name, value in row.items()} for row in _plain(table).to_dict("records")]


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype(object).where(table.notna(), None)


def _evaluation_text(evaluation: OfficialMetrics, max_fpr: float) -> str:
    """Format one table per part: its IDs, below them their machine's mean, at the end the mean over machines."""
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
    """Format the figures that the challenge ranks by, and say how they are averaged."""
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
