"""The Pareto front in the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asd_ray import parquet
from asd_ray.report import sentences, tables
from asd_ray.report.findings import Findings
from asd_ray.report.page import write_report
from asd_ray.report.result_tables import pareto_front
from asd_ray.report.summary import write_summary
from asd_ray.study.objectives import with_front
from tests.study.made_study import Page, make_study

ALPHA, TEMPERATURE = "method.pretrain.alpha", "method.pretrain.temperature"


def study_with(folder: Path, *kinds: str) -> Findings:
    """A made study with these objectives after AUC and pAUC's mean; alpha and temperature exclude each other."""
    make_study(folder, trials=12)
    trials = parquet.read_table(folder / "trials.parquet")
    done, rng = trials["status"] == "complete", np.random.default_rng(3)
    trials["objective_auc_pauc"] = trials["objective"]
    for kind in kinds:
        scale = 1e6 if kind == "size" else 0.01
        trials[f"objective_{kind}"] = np.where(done, scale * rng.uniform(1, 3, len(trials)), np.nan)
    linear = trials["method.pretrain.projection"] == "linear"
    trials[ALPHA], trials[TEMPERATURE] = trials[ALPHA].where(linear), trials[TEMPERATURE].where(~linear)
    parquet.write_table(folder / "trials.parquet", with_front(trials))
    path = folder / "study.yaml"
    text = path.read_text().replace("objective: auc_pauc", f"objective: [auc_pauc, {', '.join(kinds)}]")
    for bounds, choice in (("[0.1, 0.6]", "linear"), ("[0.05, 0.5]", "mlp")):
        text = text.replace(bounds + "}", f"{bounds}, when: {{method.pretrain.projection: [{choice}]}}}}")
    path.write_text(text)
    return Findings.read(folder)


@pytest.mark.parametrize("kinds", [("latency",), ("latency", "size")])
def test_the_front_is_a_table_and_a_figure_of_the_page(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    findings = study_with(tmp_path / "s", *kinds)
    page = Page(write_report(findings.folder, findings).read_text(encoding="utf-8"))
    trials = findings.trials
    expected = trials[trials["pareto"]].sort_values("objective", ascending=False)
    lines = page.table("latency (ms per clip)")
    assert [int(line[0]) for line in lines] == expected["trial"].tolist()
    assert lines[0][0] == str(findings.best)
    assert [line[2] for line in lines] == [f"{1000 * value:.2f}" for value in expected["objective_latency"]]
    assert "Pareto front" in page.words
    assert [attributes.get("aria-label") for _, attributes in page.tags].count("Pareto front") == 1
    assert "holds for the machine that ran the trial" in sentences.pareto(findings)
    assert ("million parameters" in page.words) == ("size" in kinds)
    summary = write_summary(findings.folder, findings).read_text(encoding="utf-8")
    best = tables.percent(trials["objective"].max())
    assert f"was chosen by the mean of AUC and pAUC on the select split ({best})" in summary
    assert pareto_front(findings).markdown() in summary  # type: ignore[union-attr]


def test_a_study_with_one_objective_has_no_front(tmp_path: Path) -> None:
    findings = Findings.read(make_study(tmp_path / "s", trials=3))
    assert pareto_front(findings) is None
    assert sentences.pareto(findings) == ""
    assert "Pareto" not in write_report(findings.folder, findings).read_text(encoding="utf-8")


def test_keys_that_some_trials_do_not_have_show_as_dashes(tmp_path: Path) -> None:
    findings = study_with(tmp_path / "s", "latency")
    table = pareto_front(findings)
    assert table is not None
    alpha, temperature = (list(table.header).index(name) for name in ("alpha", "temperature"))
    assert all((line[alpha] == tables.UNDEFINED) != (line[temperature] == tables.UNDEFINED) for line in table.lines)
