"""Write ``summary.md`` and the tables to paste; the table at the end of a run."""

from __future__ import annotations

from pathlib import Path

from asd_ray.files import write_text
from asd_ray.report import result_tables, sentences
from asd_ray.report.findings import Findings
from asd_ray.report.text import Table, cell


def write_summary(study_dir: Path, findings: Findings | None = None) -> Path:
    """Write ``summary.md`` and, ready to paste, ``tables/results.tex`` and ``tables/results.md``.

    Args:
        study_dir: the study folder.
        findings: of the folder, if read already.

    Returns:
        The path of ``summary.md``.

    Raises:
        AsdRayError: as :meth:`Findings.read`.
    """
    findings = findings or Findings.read(study_dir)
    evidence = findings.evidence
    of = " (synthetic data)" if findings.synthetic else ""
    parts = [f"# Study {findings.name}", sentences.choice(findings), evidence.gain_in_words()]
    parts += [f"> **Note.** {cell(warning)}" for warning in sentences.warnings(findings)]
    if values := result_tables.best_values(findings):
        lines = [[f"`{key}`", value] for key, value in values.items()]
        parts += ["## Best trial", Table("", ["key", "value"], lines, 1).markdown()]
    if evidence.estimates:
        parts += [f"## Averages on the holdout split{of}", result_tables.study_averages(findings).markdown()]
    machines = result_tables.machines(findings, "holdout").markdown()
    parts += [f"## Machines on the holdout split{of}", machines, *sentences.footnotes(findings)]
    if len(evidence.kinds):
        parts += [
            f"## Other scores of the best trial{of}",
            sentences.score_choice(findings),
            result_tables.kinds(findings).markdown(),
        ]
    if len(findings.seeds):
        parts += [f"## Seeds{of}", result_tables.seeds(findings).markdown()]
    if (front := result_tables.pareto_front(findings)) is not None:
        parts += [f"## Pareto front{of}", sentences.pareto(findings), front.markdown()]
    if len(findings.complete):
        parts += [f"## Trials{of}", sentences.economy(findings), result_tables.trials(findings).markdown()]
    if len(findings.unranked):
        parts += ["## Not ranked", result_tables.unranked(findings).markdown()]
    path = study_dir / "summary.md"
    write_text(path, "\n\n".join(filter(None, parts)) + "\n")
    tables = result_tables.to_paste(findings)
    write_text(study_dir / "tables" / "results.tex", latex(findings.name, tables))
    write_text(study_dir / "tables" / "results.md", markdown(tables))
    return path


def latex(name: str, tables: list[tuple[str, Table]]) -> str:
    """Tables as a LaTeX file to paste from or to ``\\input``."""
    header = "% Needs \\usepackage{booktabs}.\n\n"
    return header + "\n\n".join(table.latex(f"{name}:{label}") for label, table in tables) + "\n"


def markdown(tables: list[tuple[str, Table]]) -> str:
    """Tables as Markdown."""
    return "\n\n".join(f"{cell(table.title)}\n\n{table.markdown()}" for _, table in tables) + "\n"


def terminal_table(study_dir: Path, findings: Findings | None = None) -> str:
    """The machines of the holdout split and the best trial as plain text, for the end of a run.

    Args:
        study_dir: the study folder.
        findings: of the folder, if read already.

    Raises:
        AsdRayError: as :meth:`Findings.read`.
    """
    findings = findings or Findings.read(study_dir)
    columns = [("best", "auc"), ("best", "pauc"), ("default", "auc"), ("default", "pauc")]
    columns += [("level", "auc"), ("knn_log_mel", "auc")]
    table = result_tables.machines(findings, "holdout", columns, "\n", spreads=False)
    parts = ["AUC and pAUC in percent, holdout split", table.plain(), sentences.choice(findings)]
    values = result_tables.best_values(findings)
    parts.append("  ".join(f"{findings.keys[key]} {value}" for key, value in values.items()))
    parts += [findings.evidence.gain_in_words(), sentences.economy(findings), *sentences.warnings(findings)]
    return "\n\n".join(filter(None, parts))
