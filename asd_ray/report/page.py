"""``report.html``: one file without a network, for people who will not open a terminal."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from asd_ray import __version__
from asd_ray.errors import AsdRayError
from asd_ray.files import write_text
from asd_ray.report import result_tables as results
from asd_ray.report import sentences as notes
from asd_ray.report.figures import curves, detection, mistakes, parallel, pareto, search
from asd_ray.report.findings import DEFAULT, LABELS, Findings
from asd_ray.report.importance import FEWEST, Importance, importance
from asd_ray.report.summary import latex, markdown
from asd_ray.report.tables import SYSTEMS, interval, percent, plain, signed, top_systems, with_clips, without_clips
from asd_ray.study.progress import format_seconds

MOST_IMPORTANT = 3  # keys whose pairs are shown as contours


def write_report(study_dir: Path, findings: Findings | None = None) -> Path:
    """Writes ``report.html``, one file that needs no network. Returns its path.

    Args:
        study_dir: the study folder.
        findings: what was read from it already.

    Raises:
        AsdRayError: as :meth:`Findings.read`.
    """
    findings = findings or Findings.read(study_dir)
    tables = results.to_paste(findings)
    page = template("report.html.j2").render(
        findings=findings,
        notes=notes,
        pareto=pareto,
        results=results,
        systems={name: LABELS[name] for name in SYSTEMS},
        environment_text=json.dumps(findings.environment, indent=2, ensure_ascii=False),
        version=__version__,
        default_trial=DEFAULT,
        colours={system: colour for system, (_, colour, _) in detection.MARKS.items()},
        to_paste={"Markdown": markdown(tables), "LaTeX": latex(findings.name, tables)},
        most_lines=curves.MOST_LINES,
        **_search(findings),
        **_detection(findings),
        **_mistakes(findings),
    )
    path = study_dir / "report.html"
    write_text(path, page)
    return path


def template(name: str) -> Any:
    """A template of this folder, with the filters that all of them use."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(percent=percent, plain=plain, seconds=format_seconds, signed=signed)
    environment.globals.update(
        with_clips=with_clips, without_clips=without_clips, top_systems=top_systems, bounds=_bounds
    )
    return environment.get_template(name)


def _bounds(findings: Findings, system: str, row: pd.Series, metric: str) -> str:
    """The interval of a system's value in a row of the table of machines, empty where there is none."""
    estimates = findings.evidence.estimates
    key = (row["machine"], row["id"], row["domain"])
    if system not in estimates or key not in estimates[system].table.index:
        return ""
    found = estimates[system].table.xs(key)
    return interval(found[f"{metric}_low"], found[f"{metric}_high"])


def _search(findings: Findings) -> dict[str, Any]:
    """Figures of the search and of training."""
    trials, best = findings.trials, findings.best
    space = (findings.study.get("search") or {}).get("space") or {}
    figures: dict[str, Any] = {"objective": "", "slices": [], "contours": [], "parallel": "", "bars": ""}
    figures["importance"], figures["front"], figures["scatter"] = Importance({}), pareto.front(findings), ""
    figures["curves"] = {
        stage: {group: [Markup(figure) for figure in members] for group, members in groups.items()}
        for stage, groups in curves.learning_curves(findings.history, trials, best).items()
    }
    if trials.empty or trials["objective"].isna().all():
        return figures
    figures["objective"] = Markup(search.objective_over_trials(trials, best))
    if figures["front"] is not None:
        figures["scatter"] = Markup(pareto.scatter(trials, best))
    keys = [key for key in findings.keys if trials[key].notna().any()]
    figures["slices"] = [Markup(search.slice_of(trials, key, space, best)) for key in keys]
    figures["importance"] = found = importance(trials, keys, space)
    if found.shares:
        figures["bars"] = Markup(search.importance_bars(found.shares, findings.keys))
        figures["left_out"] = [name for key, name in findings.keys.items() if key not in found.shares]
    if len(findings.complete) > 1 and keys:
        short = {key: findings.keys[key] for key in keys}
        figures["parallel"] = Markup(parallel.parallel_coordinates(trials, short, space, best))
    if len(findings.complete) >= FEWEST:
        pairs = combinations((found.keys or keys)[:MOST_IMPORTANT], 2)
        figures["contours"] = [Markup(search.contour(trials, pair, space, best)) for pair in pairs]
    return figures


def _detection(findings: Findings) -> dict[str, Any]:
    """Figures of what the best trial, the default and the baselines detect on the holdout split."""
    evidence = findings.evidence
    figures: dict[str, Any] = {"machines": "", "rocs": [], "histograms": []}
    if len(with_clips(findings.machines, "holdout")):
        figures["machines"] = Markup(detection.machine_means(findings.machines, evidence.estimates, LABELS))
    for machine in sorted(set(evidence.systems["best"][0]["machine"])) if evidence.systems else ():
        figures["rocs"].append(detection.roc(machine, evidence.systems, LABELS))
        figures["histograms"].append(detection.histogram(machine, evidence.systems["best"][0]))
    for name in ("rocs", "histograms"):
        figures[name] = [Markup(figure) for figure in figures[name] if figure]
    return figures


def _mistakes(findings: Findings) -> dict[str, Any]:
    """The clips that the best trial gets most wrong, and AUC by fault."""
    shown: dict[str, Any] = {"false_alarms": [], "misses": [], "pictures": mistakes.Pictures({}), "faults": []}
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
        found = mistakes.spectrograms(findings.folder, findings.study, both, features_hash)
        shown["pictures"] = mistakes.Pictures(
            {path: Markup(image) for path, image in found.images.items()}, found.missing
        )
    if faults:
        table = mistakes.fault_table(systems, faults, findings.max_fpr)
        shown["faults"] = table.replace({np.nan: None}).to_dict("records")
    return shown
