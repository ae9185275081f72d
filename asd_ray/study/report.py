"""A study's ``summary.md``, ``report.html`` and closing table, made from the files of its folder alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from tabulate import tabulate

from asd_ray import __version__
from asd_ray.files import write_text
from asd_ray.study import plots
from asd_ray.study.findings import DEFAULT, LABELS, Findings
from asd_ray.study.live import format_seconds
from asd_ray.study.tables import SYSTEMS, percent, plain, top_systems, with_clips, without_clips

METRICS = {"auc": "AUC", "pauc": "pAUC"}


def write_summary(study_dir: Path) -> Path:
    """Writes ``summary.md``. Returns its path.

    Raises:
        AsdRayError: as :meth:`Findings.read`.
    """
    findings = Findings.read(study_dir)
    parts = [f"# Study {findings.name}", findings.choice()]
    parts += [f"> **Note.** {_cell(warning)}" for warning in findings.warnings()]
    if findings.best is not None and findings.keys:
        values = findings.trials.set_index("trial").loc[findings.best]
        lines = [[f"`{key}`", plain(values[key])] for key in findings.keys]
        parts += ["## Best trial", _markdown(["key", "value"], lines, text=1)]
    columns = [(system, metric) for system in SYSTEMS for metric in METRICS]
    machines = _markdown(*_machine_lines(findings, "holdout", columns), text=2 + findings.domains)
    parts += ["## Machines (holdout split)", machines, *findings.footnotes()]
    if len(findings.complete):
        parts += ["## Trials", _markdown(*_trial_lines(findings))]
    if len(findings.unranked):
        lines = [[row["trial"], row["status"], row["epochs"], row["reason"]] for _, row in findings.unranked.iterrows()]
        parts += ["## Not ranked", _markdown(["trial", "status", "epochs", "reason"], lines, text=4)]
    path = study_dir / "summary.md"
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def write_report(study_dir: Path) -> Path:
    """Writes ``report.html``, one file that needs no network. Returns its path.

    Raises:
        AsdRayError: as :meth:`Findings.read`.
    """
    findings = Findings.read(study_dir)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(percent=percent, plain=plain, seconds=format_seconds)
    environment.globals.update(with_clips=with_clips, without_clips=without_clips, top_systems=top_systems)
    page = environment.get_template("report.html.j2").render(
        findings=findings,
        systems={name: LABELS[name] for name in SYSTEMS},
        environment_text=json.dumps(findings.environment, indent=2, ensure_ascii=False),
        version=__version__,
        default_trial=DEFAULT,
        most_curves=plots.MOST_CURVES,
        **_figures(findings),
    )
    path = study_dir / "report.html"
    write_text(path, page)
    return path


def terminal_table(study_dir: Path) -> str:
    """The machines of the holdout split and the best trial, as plain text for the end of a run."""
    findings = Findings.read(study_dir)
    columns = [("best", "auc"), ("best", "pauc"), ("default", "auc"), ("default", "pauc")]
    header, lines = _machine_lines(findings, "holdout", [*columns, ("level", "auc"), ("knn_log_mel", "auc")], "\n")
    table = tabulate(lines, header, disable_numparse=True, colalign=_alignment(header, 2 + findings.domains))
    parts = ["AUC and pAUC in percent, holdout split", table, findings.choice()]
    if findings.best is not None and findings.keys:
        values = findings.trials.set_index("trial").loc[findings.best]
        parts.append("  ".join(f"{name} {plain(values[key])}" for key, name in findings.keys.items()))
    return "\n\n".join([*parts, *findings.warnings()])


def _figures(findings: Findings) -> dict[str, Any]:
    """The page's figures, as SVG."""
    space = findings.study.get("search", {}).get("space", {})
    figures: dict[str, Any] = {"machines": "", "objective": "", "keys": [], "curves": {}}
    if len(with_clips(findings.machines, "holdout")):
        figures["machines"] = Markup(plots.machine_means(findings.machines, LABELS))
    if findings.trials["objective"].notna().any():
        figures["objective"] = Markup(plots.objective_over_trials(findings.trials, findings.best))
        figures["keys"] = [
            Markup(plots.key_against_objective(findings.trials, key, space.get(key, {}), findings.best))
            for key in findings.keys
        ]
    own = ("trial", "seed", "epoch", "epochs", "seconds")
    shown = findings.history[findings.history["trial"].isin(findings.ranking["trial"][: plots.MOST_CURVES])]
    for stage in dict.fromkeys(shown["stage"]):
        of_stage = shown[shown["stage"] == stage].dropna(axis="columns", how="all").select_dtypes("number")
        names = [str(name) for name in of_stage if name not in own]
        figures["curves"][stage] = [
            Markup(plots.learning_curve(of_stage, f"{stage} {name}", name, findings.best)) for name in names
        ]
    return figures


def _machine_lines(
    findings: Findings, split: str, columns: list[tuple[str, str]], joint: str = " "
) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table of machines with the given (system, metric) columns."""
    who = ["machine", "id", *(["domain"] if findings.domains else [])]
    short = {"best": "best", "default": "default", "level": "level", "knn_log_mel": "k-NN"}
    header = [*who, "clips", *(f"{short[system]}{joint}{METRICS[metric]}" for system, metric in columns)]
    lines = []
    for _, row in with_clips(findings.machines, split).iterrows():
        counts = f"{row[f'{split}_n_normal']}+{row[f'{split}_n_anomaly']}"
        values = [percent(row[f"{system}_{split}_{metric}"]) for system, metric in columns]
        lines.append([*(row[name] for name in who), counts, *values])
    return header, lines


def _trial_lines(findings: Findings) -> tuple[list[str], list[list[str]]]:
    header = ["rank", "trial", "objective", "select AUC", "select pAUC", "holdout AUC", "holdout pAUC"]
    header += [*findings.keys.values(), "epochs", "time"]
    lines = []
    for _, row in findings.complete.iterrows():
        shown = [row[name] for name in ("objective", "select_auc", "select_pauc", "holdout_auc", "holdout_pauc")]
        keys = [plain(row[key]) for key in findings.keys]
        end = [plain(row["epochs"]), format_seconds(row["duration_s"])]
        lines.append([str(row["rank"]), str(row["trial"]), *map(percent, shown), *keys, *end])
    return header, lines


def _markdown(header: list[str], lines: list[list[Any]], text: int = 0) -> str:
    """A Markdown table whose first ``text`` columns are aligned left."""
    cells = [[_cell(value) for value in line] for line in lines]
    align = _alignment(header, text)
    return tabulate(cells, [_cell(name) for name in header], "pipe", disable_numparse=True, colalign=align)


def _alignment(header: list[str], text: int) -> list[str]:
    return ["left"] * text + ["right"] * (len(header) - text)


def _cell(value: Any) -> str:
    """Text that cannot break out of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
