from __future__ import annotations

import re
from pathlib import Path

import pytest

from asd_ray import parquet
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.metrics.intervals import difference, estimate, mean_of
from asd_ray.report import tables
from asd_ray.report.compare import Comparison, compare
from asd_ray.report.findings import Findings
from asd_ray.report.summary import write_summary
from asd_ray.report.text import Table
from tests.study.made_study import Page, make_study


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """Two studies of the same clips, the second with the anomalies of fan and pump scored higher by its best trial."""
    root = tmp_path_factory.mktemp("studies")
    first, second = make_study(root / "one"), make_study(root / "two")
    path = second / "trials" / f"{Findings.read(second).best:05d}" / "scores.parquet"
    scores = parquet.read_table(path)
    better = scores["machine"].isin(["fan", "pump"]) & (scores["label"] == "anomaly")
    parquet.write_table(path, scores.assign(score=scores["score"] + 3 * better))
    return [first, second]


def test_studies_are_compared_by_machine_and_paired_by_clip(folders: list[Path], tmp_path: Path) -> None:
    html = compare(folders, tmp_path / "out")
    text = (tmp_path / "out" / "compare.md").read_text(encoding="utf-8")
    page = Page(html.read_text(encoding="utf-8"))
    assert page.open == []
    assert {"compare.md", "compare.tex", "compare.html"} == {path.name for path in (tmp_path / "out").iterdir()}
    comparison = Comparison.read(folders)
    first, second = (runs[0] for runs in comparison.systems.values())
    overall = mean_of(difference(estimate([second]), estimate([first])))
    shown = comparison.differences("auc")
    assert shown.lines[-1][0] == "all"
    assert shown.lines[-1][1] == tables.signed(overall["auc"])
    assert tables.signed(overall["auc_low"]) in shown.lines[-1][2]
    assert {line for line, _ in shown.bold} >= {0, 1, 3}
    assert shown.lines[2] == ["valve", "+0.00", "+0.00 to +0.00"]
    assert "more than other clips would explain" in text
    assert comparison.sentences()[0] in page.words
    machines = comparison.machines("auc")
    assert [line[0] for line in machines.lines] == ["fan", "pump", "valve", "all"]
    assert (0, 3) in machines.bold
    assert {(2, 1), (2, 3)} <= set(machines.bold)  # the same, so both are the highest
    rows = page.table("machine", "one", "two")
    assert [row[:2] for row in rows] == [[line[0], line[1]] for line in machines.lines]


def test_studies_of_the_same_name_go_by_their_folders(folders: list[Path]) -> None:
    assert list(Comparison.read(folders).findings) == ["one", "two"]
    study = folders[1] / "study.yaml"
    old = study.read_text(encoding="utf-8")
    study.write_text(old.replace("name: sample", "name: other"), encoding="utf-8")
    assert list(Comparison.read(folders).findings) == ["sample", "other"]
    study.write_text(old, encoding="utf-8")


def test_what_cannot_be_compared_is_refused(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="At least two different study folders"):
        compare([folders[0]], tmp_path)
    with pytest.raises(ConfigError, match="At least two different study folders"):
        compare([folders[0], folders[0]], tmp_path)
    fewer = make_study(tmp_path / "fewer", clips=24)
    with pytest.raises(AsdRayError, match=r"one and fewer did not score the same clips .*_024\.wav \(12 in all\)"):
        compare([folders[0], fewer], tmp_path / "out")
    other = make_study(tmp_path / "other")
    text = (other / "study.yaml").read_text(encoding="utf-8")
    (other / "study.yaml").write_text(text.replace("max_fpr: 0.1", "max_fpr: 0.2"), encoding="utf-8")
    with pytest.raises(AsdRayError, match=r"other: evaluation.max_fpr is 0.2 there and 0.1"):
        compare([folders[0], other], tmp_path / "out")
    for scores in other.glob("trials/*/scores.parquet"):
        scores.unlink()
    with pytest.raises(AsdRayError, match=r"has no complete trial whose scores are there"):
        compare([other, folders[0]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_seeds_are_shown_and_paired(tmp_path: Path) -> None:
    folders = [make_study(tmp_path / name, trials=2, seeds=2, layout="synthetic") for name in ("one", "two")]
    comparison = Comparison.read(folders)
    assert all("±" in line[1] for line in comparison.averages().lines)
    assert "Over 2 pairs of seeds" in comparison.sentences()[0] or "within chance" in comparison.sentences()[0]
    page = Page(compare(folders, tmp_path / "out").read_text(encoding="utf-8"))
    assert page.words.count("Synthetic data") >= 5


def test_latex_escapes_and_markdown_keeps_its_columns() -> None:
    table = Table("50 % of a_b", ["name", "x & y"], [["µ_1 {<b>} | \\", "±−–"], ["fan", 3]], 1, {(1, 1)}, {1})
    latex = table.latex("a b:c")
    assert r"\caption{50 \% of a\_b}" in latex
    assert r"\label{tab:a-b:c}" in latex
    assert r"µ\_1 \{\textless{}b\textgreater{}\} \textbar{} \textbackslash{} & $\pm$$-$-- \\" in latex
    assert r"\midrule" + "\n" + r"fan & \textbf{3} \\" in latex
    assert latex.count(r"\begin{") == latex.count(r"\end{") == 2
    lines = table.markdown().splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}
    assert "**3**" in lines[-1]


def test_tables_to_paste_lie_in_the_study_folder(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", trials=2, layout="synthetic")
    write_summary(folder)
    latex = (folder / "tables" / "results.tex").read_text(encoding="utf-8")
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 3
    assert latex.count("Synthetic data.") == 3
    findings = Findings.read(folder)
    value = f"{100 * findings.overall('best', 'auc'):.2f}"
    assert value in latex
    assert value in (folder / "tables" / "results.md").read_text(encoding="utf-8")
