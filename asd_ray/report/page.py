"""Write ``report.html``: one file that needs no network, for people who do not open a terminal."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from asd_ray import __version__
from asd_ray.errors import AsdRayError
from asd_ray.files import write_text
from asd_ray.report import result_tables, sentences
from asd_ray.report.figures import curves, detection, mistakes
from asd_ray.report.findings import DEFAULT, LABELS, Findings
from asd_ray.report.importance import FEWEST, importance
from asd_ray.report.summary import latex, markdown
from asd_ray.report.tables import SYSTEMS, percent, signed, with_clips, without_clips
from asd_ray.report.text import format_seconds

MOST_IMPORTANT = 3  # keys whose pairs are shown as contours


def write_report(study_dir: Path, findings: Findings | None = None) -> Path:
    """Write ``report.html``, one file that needs no network. Returns its path.

    Args:
        study_dir: the study folder.
        findings: of the folder, if read already.

    Raises:
        AsdRayError: as :meth:`Findings.read`.
    """
    findings = findings or Findings.read(study_dir)
    tables = result_tables.to_paste(findings)
    page = template("report.html.j2").render(
        findings=findings,
        sentences=sentences,
        tables=result_tables,
        absent={split: without_clips(findings.machines, split) for split in ("holdout", "select")},
        systems={name: LABELS[name] for name in SYSTEMS},
        environment_text=json.dumps(findings.environment, indent=2, ensure_ascii=False),
        version=__version__,
        default_trial=DEFAULT,
        colours={system: colour for system, (_, colour, _) in detection.MARKS.items()},
        to_paste={"Markdown": markdown(tables), "LaTeX": latex(findings.name, tables)},
        search=_search(findings),
        curves=curves.learning_curves(findings.history, findings.trials, findings.best),
        **_detection(findings),
        **_mistakes(findings),
    )
    path = study_dir / "report.html"
    write_text(path, page)
    return path


def template(name: str) -> Any:
    """A template of this folder with the common filters."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(percent=percent, seconds=format_seconds, signed=signed)
    return environment.get_template(name)


def _search(findings: Findings) -> dict[str, Any]:
    """Figures of the search; none without a complete trial."""
    if findings.complete.empty:
        return {}
    # Here, because nothing else of a study needs plotly, which takes half a second to import.
    from asd_ray.report.figures.interactive import packed_plotly
    from asd_ray.report.figures.search import SearchFigures

    drawn = SearchFigures(findings)
    keys = list(drawn.names)
    found = importance(findings.trials, keys, findings.space)
    pairs = combinations((found.keys or keys)[:MOST_IMPORTANT], 2) if len(findings.complete) >= FEWEST else ()
    return {
        "plotly": Markup(packed_plotly()),
        "objective": drawn.history(),
        "pareto": drawn.pareto() if result_tables.pareto_front(findings) else "",
        "importance": found,
        "bars": drawn.importance(found.shares) if found.shares else "",
        "left_out": [name for key, name in findings.keys.items() if key not in found.shares],
        "slices": drawn.slices(),
        "contours": drawn.contours(list(pairs)),
        "parallel": drawn.parallel() if len(findings.complete) > 1 and keys else "",
    }


def _detection(findings: Findings) -> dict[str, Any]:
    """Figures of detection on the holdout split: the best trial, the default and the baselines."""
    evidence = findings.evidence
    figures: dict[str, Any] = {"machines": "", "rocs": [], "histograms": []}
    if len(with_clips(findings.machines, "holdout")):
        figures["machines"] = detection.machine_means(findings.machines, evidence.estimates, LABELS)
    for machine in sorted(set(evidence.systems["best"][0]["machine"])) if evidence.systems else ():
        figures["rocs"].append(detection.roc(machine, evidence.systems, LABELS))
        figures["histograms"].append(detection.histogram(machine, evidence.systems["best"][0]))
    return {name: list(filter(None, drawn)) if isinstance(drawn, list) else drawn for name, drawn in figures.items()}


def _mistakes(findings: Findings) -> dict[str, Any]:
    """The worst mistakes of the best trial, and AUC by fault."""
    shown: dict[str, Any] = {"false_alarms": [], "misses": [], "pictures": mistakes.Pictures({}), "faults": None}
    shown["no_faults"] = ""
    systems = findings.evidence.systems
    if not systems or systems["best"][0].empty:
        return shown
    try:
        faults = mistakes.data_faults(findings.folder, findings.study)
    except AsdRayError as error:
        faults, shown["no_faults"] = {}, f"Kinds of fault are left out: {error}"
    clips = systems["best"][0]
    shown["false_alarms"], shown["misses"] = (mistakes.worst(clips, label, faults) for label in ("normal", "anomaly"))
    both = [mistake.path for mistake in (*shown["false_alarms"], *shown["misses"])]
    if both:
        features_hash = str(findings.environment.get("features_hash", ""))
        shown["pictures"] = mistakes.spectrograms(findings.folder, findings.study, both, features_hash)
    if faults:
        shown["faults"] = result_tables.faults(mistakes.fault_table(systems, faults, findings.max_fpr))
    return shown
