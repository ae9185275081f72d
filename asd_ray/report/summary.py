"""``summary.md``, the tables to paste, and the table that ends a run."""

from __future__ import annotations

from pathlib import Path

from asd_ray.files import write_text
from asd_ray.report import result_tables as results
from asd_ray.report import sentences as notes
from asd_ray.report.figures import pareto
from asd_ray.report.findings import Findings
from asd_ray.report.tables import SYSTEMS, plain
from asd_ray.report.text import Table, cell


def write_summary(study_dir: Path, findings: Findings | None = None) -> Path:
    """Writes ``summary.md`` and, ready to paste, ``tables/results.tex`` and ``tables/results.md``.

    Args:
        study_dir: the study folder.
        findings: what was read from it already.

    Returns:
        The path of ``summary.md``.

    Raises:
        AsdRayError: as :meth:`Findings.read`.
    """
    findings = findings or Findings.read(study_dir)
    evidence = findings.evidence
    of = " (synthetic data)" if findings.synthetic else ""
    parts = [f"# Study {findings.name}", notes.choice(findings), evidence.gain_in_words()]
    parts += [f"> **Note.** {cell(warning)}" for warning in notes.warnings(findings)]
    if findings.best is not None and findings.keys:
        values = findings.trials.set_index("trial").loc[findings.best]
        lines = [[f"`{key}`", plain(values[key])] for key in findings.keys]
        parts += ["## Best trial", Table("", ["key", "value"], lines, 1).markdown()]
    if evidence.estimates:
        parts += [f"## Averages on the holdout split{of}", results.study_averages(findings).markdown()]
    columns = [(system, metric) for system in SYSTEMS for metric in results.METRICS]
    machines = results.machines(findings, "holdout", columns).markdown()
    parts += [f"## Machines on the holdout split{of}", machines, *notes.footnotes(findings)]
    if len(evidence.kinds):
        parts += [
            f"## Other scores of the best trial{of}",
            notes.score_choice(findings),
            results.kinds(findings).markdown(),
        ]
    if len(findings.seeds):
        parts += [f"## Seeds{of}", results.seeds(findings).markdown()]
    if (front := pareto.front(findings)) is not None:
        parts += [f"## Pareto front{of}", pareto.note(findings), front.markdown()]
    if len(findings.complete):
        parts += [f"## Trials{of}", notes.economy(findings), results.trials(findings).markdown()]
    if len(findings.unranked):
        lines = [[row["trial"], row["status"], row["epochs"], row["reason"]] for _, row in findings.unranked.iterrows()]
        parts += ["## Not ranked", Table("", ["trial", "status", "epochs", "reason"], lines, 4).markdown()]
    path = study_dir / "summary.md"
    write_text(path, "\n\n".join(filter(None, parts)) + "\n")
    tables = results.to_paste(findings)
    write_text(study_dir / "tables" / "results.tex", latex(findings.name, tables))
    write_text(study_dir / "tables" / "results.md", markdown(tables))
    return path


def latex(name: str, tables: list[tuple[str, Table]]) -> str:
    """Tables as a LaTeX file to paste from or to ``\\input``."""
    header = "% Needs \\usepackage{booktabs}.\n\n"
    return header + "\n\n".join(table.latex(f"{name}:{label}") for label, table in tables) + "\n"


def markdown(tables: list[tuple[str, Table]]) -> str:
    """The same in Markdown."""
    return "\n\n".join(f"{cell(table.title)}\n\n{table.markdown()}" for _, table in tables) + "\n"


def terminal_table(study_dir: Path) -> str:
    """The machines of the holdout split and the best trial, as plain text for the end of a run."""
    findings = Findings.read(study_dir)
    columns = [("best", "auc"), ("best", "pauc"), ("default", "auc"), ("default", "pauc")]
    columns += [("level", "auc"), ("knn_log_mel", "auc")]
    table = results.machines(findings, "holdout", columns, "\n", spreads=False)
    parts = ["AUC and pAUC in percent, holdout split", table.plain(), notes.choice(findings)]
    if findings.best is not None and findings.keys:
        values = findings.trials.set_index("trial").loc[findings.best]
        parts.append("  ".join(f"{name} {plain(values[key])}" for key, name in findings.keys.items()))
    parts += [findings.evidence.gain_in_words(), notes.economy(findings), *notes.warnings(findings)]
    return "\n\n".join(filter(None, parts))
