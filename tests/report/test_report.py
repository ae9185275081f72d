from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from asd_ray import parquet
from asd_ray.bench.stub_study import write_study
from asd_ray.errors import AsdRayError
from asd_ray.report import sentences, tables
from asd_ray.report.findings import Findings
from asd_ray.report.page import write_report
from asd_ray.report.summary import terminal_table, write_summary
from asd_ray.report.write import write_results
from asd_ray.study.outcome import StudyOutcome
from tests.study.made_study import Page, make_study


@pytest.fixture(scope="module")
def findings(tmp_path_factory) -> Findings:
    return Findings.read(make_study(tmp_path_factory.mktemp("study") / "sample"))


@pytest.fixture(scope="module")
def folder(findings) -> Path:
    write_summary(findings.folder, findings)
    write_report(findings.folder, findings)
    return findings.folder


@pytest.fixture(scope="module")
def page(folder) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def change(folder: Path, table: str, **columns) -> None:
    path = folder / f"{table}.parquet"
    parquet.write_table(path, parquet.read_table(path).assign(**columns))


def test_the_page_is_one_whole_file_that_loads_nothing(folder, page):
    assert page.open == []
    assert not {"link", "img", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
        assert not re.search(r"url\((?!#)", attributes.get("style") or "")
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^/\"]*", text)) <= {"http://www.w3.org"}  # a name of SVG's
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["xlink:href"][1:] for _, attributes in page.tags if attributes.get("xlink:href")}
    assert targets
    assert targets <= set(ids)


def test_figures_follow_the_scheme_of_the_page(folder, page):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "#0101" not in text
    used = set(re.findall(r"var\((--[a-z-]+)\)", text))
    light, dark, printed = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    for scheme in (light, dark, printed):
        assert used <= set(re.findall(r"(--[a-z-]+):", scheme))
    # machines; ROC and scores of three; two metrics in each of two stages
    assert sum(tag == "svg" for tag, _ in page.tags) == 1 + 3 + 3 + 4
    # objective, four searched keys, parallel
    assert sum(attributes.get("class") == "plot" for _, attributes in page.tags) == 1 + 4 + 1


def test_interactive_figures_share_one_offline_copy_of_plotly(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    [packed] = re.findall(r'<script type="text/plain" id="plotly">(.*?)</script>', text)
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
    assert 'showSendToCloud: false, plotlyServerURL: ""' in text  # its buttons send nothing away
    figures = re.findall(r'<script type="application/json">(.*?)</script>', text)
    assert len(figures) == 6
    for figure in map(json.loads, figures):
        assert figure["data"]
        assert set(figure) == {"data", "layout"}
    assert "<noscript>" in text


def test_the_page_shows_the_numbers_of_the_tables(findings, page):
    expected = findings.machines.iloc[-1]
    machines = page.table("machine", "id", "clips")
    last = machines[-1]
    assert last[:3] == ["all", "mean", "150+150"]
    assert last[3:] == [
        f"{100 * expected[f'{system}_holdout_{metric}']:.2f}" for system in tables.SYSTEMS for metric in ("auc", "pauc")
    ]
    assert len(machines) == 6 + 3 + 1
    select = page.tables[2][-1]
    assert page.tables[2][0][:2] == ["machine", "id"]
    assert select[3] == f"{100 * expected['best_select_auc']:.2f}"
    assert select[3] != last[3]


def test_trials_are_in_order_and_unfinished_ones_apart(folder, page):
    trials = parquet.read_table(folder / "trials.parquet")
    ranked, unranked = page.table("rank", "trial"), page.table("trial", "reason")
    complete = trials[trials["status"] == "complete"].sort_values("objective", ascending=False)
    assert [row[1] for row in ranked] == [str(trial) for trial in complete["trial"]]
    assert [row[0] for row in ranked] == [str(rank) for rank in range(1, 7)]
    assert [row[:2] for row in unranked] == [["2", "failed"], ["5", "pruned"]]
    assert unranked[0][2] == "pretrain: loss is nan | <script>alert(1)</script>"


def test_the_page_says_what_chose_and_what_is_reported(folder, page):
    best = tables.best_trial(parquet.read_table(folder / "trials.parquet"))
    assert f"Trial {best} was chosen by the mean of AUC and pAUC on the select split" in page.words
    assert "What is reported is the holdout split, which had no part in the choice" in page.words
    assert "Synthetic data" not in page.words
    assert "loguniform: [0.05, 0.5]" in page.words
    assert '"torch": "2.11.0"' in page.words


def test_a_page_made_twice_is_the_same(folder):
    before = (folder / "report.html").read_bytes()
    write_report(folder)
    assert (folder / "report.html").read_bytes() == before
    assert not list(folder.glob(".*"))


def test_summary(findings, folder):
    text = (folder / "summary.md").read_text(encoding="utf-8")
    assert "chosen by the mean of AUC and pAUC on the select split" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "<script>" not in text
    mean = next(line for line in text.splitlines() if line.startswith("| all "))
    assert f" {100 * findings.overall('best', 'auc'):.2f} " in mean


def test_terminal_table_fits_a_terminal(findings, folder):
    text = terminal_table(folder)
    table = text.split("\n\n")[1]
    assert max(map(len, table.splitlines())) <= 80
    assert f"{100 * findings.overall('best', 'auc'):.2f}" in table.splitlines()[-1]
    assert "alpha" in text


def test_what_early_stopping_saved(tmp_path):
    folder = make_study(tmp_path / "study", trials=8)  # one failed after 4 epochs, one stopped after 4, six of 10
    assert sentences.economy(Findings.read(folder)) == (
        "1 of 8 trials were stopped early: 68 epochs were trained, 92% of the 74 had all trained as long as the "
        "complete ones."
    )
    change(folder, "trials", status=["complete"] * 8)
    assert sentences.economy(Findings.read(folder)) == ""
    change(folder, "trials", status=["pruned"] * 8)
    assert sentences.economy(Findings.read(folder)) == ""


def test_warnings_before_anyone_quotes_a_number(tmp_path):
    folder = make_study(tmp_path / "study", layout="synthetic", clips=8)
    change(folder, "baselines", auc=0.99)
    results = parquet.read_table(folder / "results.parquet")
    holdout = results["split"] == "holdout"
    results.loc[holdout & (results["id"] == "02") & (results["machine"] == "fan"), ["n_normal", "n_anomaly"]] = 0
    results.loc[holdout & (results["id"] == "02") & (results["machine"] != "pump"), ["auc", "pauc"]] = np.nan
    results.loc[holdout & (results["trial"] == 0) & results["auc"].notna(), "auc"] = 0.98
    parquet.write_table(folder / "results.parquet", results)
    findings = Findings.read(folder)
    synthetic, undefined, baseline, default = sentences.warnings(findings)
    assert synthetic == "Synthetic data: these numbers say nothing about real machines."
    assert "holdout split 4 of 6 IDs have a defined AUC" in undefined
    assert "(1 without clips there, 1 without normal or without anomalous clips)" in undefined
    assert "does not beat level only and k-NN Log-Mel" in baseline
    assert "not better than the default" in default
    assert any("an ID here has 8 normal" in note for note in sentences.footnotes(findings))
    change(folder, "trials", status=["failed", *["complete"] * 7])
    assert "The default (trial 0) is failed" in sentences.warnings(Findings.read(folder))[-1]


def test_intervals_of_single_clips_are_too_narrow(tmp_path, findings):
    assert not any("too narrow" in warning for warning in sentences.warnings(findings))
    folder = make_study(tmp_path / "study")
    results = parquet.read_table(folder / "results.parquet")
    holdout, second = results["split"] == "holdout", results["id"] == "02"
    results.loc[holdout & second & (results["machine"] == "fan"), "n_normal"] = 1
    results.loc[holdout & second & (results["machine"] == "pump"), "n_anomaly"] = 1
    results.loc[holdout & second & (results["machine"] == "valve"), ["n_normal", "auc", "pauc"]] = [1, np.nan, np.nan]
    results.loc[~holdout, "n_normal"] = 1  # no intervals there
    parquet.write_table(folder / "results.parquet", results)
    [warning] = [warning for warning in sentences.warnings(Findings.read(folder)) if "too narrow" in warning]
    assert "holdout split 2 of 5 IDs with a defined AUC have a single normal or a single anomalous clip" in warning


def test_splits_of_different_ids_are_no_gap(tmp_path):
    folder = make_study(tmp_path / "study")
    for name in ("results", "baselines"):
        rows = parquet.read_table(folder / f"{name}.parquet")
        absent = (rows["split"] == "holdout") == (rows["id"] == "00")  # 00 selects, 02 is held out
        rows.loc[absent, ["n_normal", "n_anomaly"]] = 0
        rows.loc[absent, ["auc", "pauc"]] = np.nan
        parquet.write_table(folder / f"{name}.parquet", rows)
    findings = Findings.read(folder)
    assert "it holds other IDs than the select split" in sentences.choice(findings)
    assert not any("defined AUC" in warning for warning in sentences.warnings(findings))
    assert tables.without_clips(findings.machines, "holdout") == ["fan 00", "pump 00", "valve 00"]


ODD = "<b>$x_1$ & co"


@pytest.fixture(scope="module")
def odd_page(tmp_path_factory) -> Page:
    """Of a study with a machine of an odd name, an ID without holdout clips, and two searched keys that end alike."""
    folder = make_study(tmp_path_factory.mktemp("odd") / "study")
    results = parquet.read_table(folder / "results.parquet")
    gone = (results["split"] == "holdout") & (results["id"] == "02") & (results["machine"] == "valve")
    parquet.write_table(
        folder / "results.parquet",
        results.assign(
            **{column: results[column].where(~gone, 0) for column in ("n_normal", "n_anomaly")},
            **{column: results[column].where(~gone) for column in ("auc", "pauc")},
        ),
    )
    change(folder, "baselines", n_normal=0, n_anomaly=0)
    for name in ("results", "baselines"):
        machine = parquet.read_table(folder / f"{name}.parquet")["machine"].replace("fan", ODD)
        change(folder, name, machine=machine)
    trials = parquet.read_table(folder / "trials.parquet")
    flags = trials.rename(columns={"method.pretrain.projection": "method.finetune.alpha"})
    parquet.write_table(folder / "trials.parquet", flags.assign(**{"method.finetune.alpha": [True, None] * 4}))
    return Page(write_report(folder).read_text(encoding="utf-8"))


def test_an_id_without_holdout_clips_keeps_its_row_with_dashes(odd_page):
    [row] = [row for row in odd_page.table("machine", "id", "clips") if row[:2] == ["valve", "02"]]
    assert row[2] == "0+0"
    assert set(row[3:7]) == {"–"}  # best and default; the baselines keep what the fixture gave them
    assert sum(row[:2] == ["valve", "02"] for table in odd_page.tables for row in table) == 2


def test_odd_names_stay_text(odd_page):
    assert odd_page.table("machine", "id", "clips")[0][0] == ODD
    assert ODD in odd_page.words.replace("&amp;", "&")
    # Two keys end alike, so both are shown in full.
    assert {"method.pretrain.alpha", "method.finetune.alpha", "temperature"} <= {
        cell for table in odd_page.tables for row in table for cell in row
    }
    assert "–" in [row[10] for row in odd_page.table("rank", "trial")]


def test_a_study_in_which_nothing_completed(tmp_path):
    folder = make_study(tmp_path / "study")
    trials = parquet.read_table(folder / "trials.parquet")
    parquet.write_table(
        folder / "trials.parquet", trials.assign(status="failed", objective=None, reason="out of memory")
    )
    parquet.write_table(folder / "results.parquet", pd.DataFrame())
    for name in ("baselines.parquet", "history.parquet", "env.json"):
        (folder / name).unlink()
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert "No trial completed, so none was chosen" in page.words
    assert page.words.count("out of memory") == 8
    assert "out of memory" in write_summary(folder).read_text(encoding="utf-8")
    assert "No trial completed" in terminal_table(folder)
    parquet.write_table(folder / "trials.parquet", pd.DataFrame())
    assert "No trial completed" in write_summary(folder).read_text(encoding="utf-8")
    assert "No trial completed" in Page(write_report(folder).read_text(encoding="utf-8")).words


def test_domains_have_rows_and_harmonic_means(tmp_path):
    folder = make_study(tmp_path / "study", trials=2, domains=("source", "target"))
    findings = Findings.read(folder)
    text = write_summary(folder, findings).read_text(encoding="utf-8")
    assert "harmonic over sections and domains, as in DCASE 2022" in text
    assert re.search(r"\| fan +\| 00 +\| target +\| +25\+50 ", text)
    page = Page(write_report(folder, findings).read_text(encoding="utf-8"))
    assert len(page.table("machine", "id", "domain", "clips")) == 6 * 3 + 3 + 1


def test_missing_and_damaged_files_are_named(tmp_path):
    folder = make_study(tmp_path / "study", trials=1)
    with pytest.raises(AsdRayError, match=r"nowhere/study.yaml: cannot be read .*is this the folder of a study"):
        write_report(tmp_path / "nowhere")
    (folder / "env.json").write_text("{", encoding="utf-8")
    with pytest.raises(AsdRayError, match=r"study.yaml or env.json is damaged"):
        write_summary(folder)
    (folder / "env.json").unlink()
    (folder / "trials.parquet").unlink()
    with pytest.raises(AsdRayError, match=r"trials.parquet: there is no such file"):
        write_summary(folder)


def with_gaps(trials: pd.DataFrame) -> pd.DataFrame:
    """A conditional key, searched features, a key that only one trial has, and one of mixed kinds."""
    mlp = (trials["method.pretrain.projection"] == "mlp").to_numpy()
    odd = np.arange(len(trials)) % 2 == 1
    mixed = [("a", 1, None, True)[n % 4] for n in range(len(trials))]
    keys = {"method.pretrain.queue_size": np.where(mlp, trials["method.pretrain.queue_size"], np.nan)}
    keys |= {"features.n_mels": np.where(odd, 64, 128), "features.log": np.where(odd, "db", None)}
    keys |= {"method.rare": [0.5] + [np.nan] * (len(trials) - 1), "method.mixed": pd.Series(mixed, dtype=object)}
    return trials.assign(**keys)


CHANGES = {
    "values that some trials lack": with_gaps,
    "no trial complete": lambda trials: trials.assign(status="failed", objective=np.nan),
    "all others pruned": lambda trials: trials.assign(
        status=np.where(trials["trial"] == 0, "complete", "pruned"),
        objective=trials["objective"].where(trials["trial"] == 0),
    ),
    "no default": lambda trials: trials[trials["trial"] != 0],
    "one trial": lambda trials: trials[trials["trial"] == 1],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_study_has_a_report_and_none_says_nan(tmp_path, change):
    folder = make_study(tmp_path / "study", trials=16, clips=6)
    trials = change(parquet.read_table(folder / "trials.parquet")).assign(reason="gone")
    parquet.write_table(folder / "trials.parquet", trials)
    for name in ("results", "history"):
        frame = parquet.read_table(folder / f"{name}.parquet")
        complete = trials.loc[trials["status"] == "complete", "trial"]
        parquet.write_table(folder / f"{name}.parquet", frame[frame["trial"].isin(complete)])
    findings = Findings.read(folder)
    summary, html = write_summary(folder, findings), write_report(folder, findings)
    latex = (folder / "tables" / "results.tex").read_text(encoding="utf-8")
    shown = [summary.read_text(encoding="utf-8"), Page(html.read_text(encoding="utf-8")).words, latex]
    for text in (*shown, terminal_table(folder, findings)):
        assert not re.search(r"\bnan\b|\bNone\b|<NA>|[-−]0\.00\b", text)


def test_the_page_of_hundreds_of_trials_can_be_mailed(tmp_path):
    folder = write_study(tmp_path / "study", 80)
    write_results(folder, folder.study())
    outcome = StudyOutcome(folder.path)
    assert outcome.counts() == {"complete": 64, "pruned": 14, "failed": 2}
    page = Page(outcome.report.read_text(encoding="utf-8"))
    assert len(page.table("rank", "trial")) == 64
    assert page.table("trial", "reason")[0][2].startswith("stopped by the scheduler after epoch 4")
    assert outcome.report.stat().st_size < 4_000_000
