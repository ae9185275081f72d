from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from asd_ray import metrics, parquet
from asd_ray.config import FeatureConfig
from asd_ray.data.clips import Clip
from asd_ray.data.side_files import Fault
from asd_ray.features.store import Manifest, Shard, settings_of, write_manifest, write_shard
from asd_ray.report import tables
from asd_ray.report.figures import curves, detection, mistakes
from asd_ray.report.figures.search import CELLS, SearchFigures
from asd_ray.report.findings import Findings
from asd_ray.report.optuna_study import Goal, optuna_study
from asd_ray.report.page import write_report
from asd_ray.report.tables import plain
from tests.study.made_study import Page, make_study, scored_clips


def holdout(strength: float = 1.0, clips: int = 12, seed: int = 0) -> pd.DataFrame:
    scored = scored_clips(np.random.default_rng(seed), strength, ("none",), clips)
    return scored[scored["split"] == "holdout"].reset_index(drop=True)


# --- Search ----------------------------------------------------------------------------------------------------------


KINDS = {"m.a": {"uniform": [0, 1]}, "m.b": {"loguniform": [0.001, 1]}, "m.c": {"choice": ["x", "<y>"]}}


def findings_of(trials: pd.DataFrame) -> Findings:
    empty = pd.DataFrame()
    return Findings(Path(), {"search": {"space": KINDS}}, "", {}, trials, empty, empty, empty)


def trial_frame(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"trial": range(n), "status": "complete", "objective": rng.uniform(0.5, 0.9, n)})
    keys = {"m.a": rng.uniform(0, 1, n), "m.b": 10 ** rng.uniform(-3, 0, n), "m.c": rng.choice(["x", "<y>"], n)}
    return frame.assign(**keys)


def drawn(figure: str) -> dict[str, Any]:
    """What the page's script draws."""
    [text] = re.findall(r'<script type="application/json">(.*?)</script>', figure)
    return json.loads(text)


def shown(figure: str) -> dict[str, set[str]]:
    """Name of a figure's points -> the first lines of what they say on hover."""
    return {
        trace.get("name", ""): {text.split("<br>")[0] for text in trace["hovertext"]}
        for trace in drawn(figure)["data"]
        if "hovertext" in trace
    }


def test_our_table_decides_which_trials_count() -> None:
    trials = trial_frame(8)
    trials.loc[2, "status"], trials.loc[5, "m.a"] = "pruned", np.nan
    trials.loc[6, "objective"] = np.nan  # complete, and without a defined AUC
    names = {key: key for key in KINDS}
    study = optuna_study(trials[trials["trial"] != 4], names, KINDS, [Goal("objective", factor=100)])
    assert [trial.number for trial in study.trials if trial.state.name == "COMPLETE"] == [0, 1, 3, 5, 7]
    assert study.trials[3].value == pytest.approx(100 * trials["objective"][3])
    assert study.trials[3].params["m.b"] == trials["m.b"][3]
    assert study.trials[5].params.keys() == {"m.b", "m.c"}
    wide = optuna_study(trials.assign(**{"m.a": 1.5}), names, KINDS)  # a warm start outside of its distribution
    assert wide.trials[0].distributions["m.a"].high == 1.5


def test_figures_mark_the_default_and_the_best_and_show_values_on_hover() -> None:
    trials = trial_frame(12)
    trials.loc[2, "status"], trials.loc[3, "status"], trials.loc[4, "m.a"] = "pruned", "failed", np.nan
    figures = SearchFigures(findings_of(trials))
    best = int(trials["objective"].where(trials["status"] == "complete").idxmax())
    every = {f"trial {n}" for n in range(12) if n not in (2, 3)}
    history = shown(figures.history())
    assert history["trial"] == every
    assert history["pruned"] == {"trial 2: pruned"}
    assert history["failed"] == {"trial 3: failed"}
    for figure in (figures.history(), *figures.slices()):
        marks = shown(figure)
        assert marks["default (trial 0)"] == {"trial 0"}
        assert marks[f"best (trial {best})"] == {f"trial {best}"}
    a, b, c = (drawn(figure) for figure in figures.slices())
    assert len(a["data"][0]["x"]) == 9  # one trial has no value of this key
    assert b["layout"]["xaxis"]["type"] == "log"
    assert c["layout"]["xaxis"]["labelalias"] == {"'x'": "x", "'&lt;y&gt;'": "&lt;y&gt;"}
    number = int(next(iter(a["data"][0]["marker"]["color"])))
    said = f"objective {100 * trials['objective'][number]:.2f}<br>a {plain(trials['m.a'][number])}<br>"
    assert said in a["data"][0]["hovertext"][0]


def test_parallel_coordinates_tell_every_complete_trial() -> None:
    trials = trial_frame(12)
    trials.loc[2, "status"], trials.loc[4, "m.a"] = "pruned", np.nan
    figures = SearchFigures(findings_of(trials))
    figure = drawn(figures.parallel())
    lines = {line["hovertemplate"].split("<br>")[0]: line for line in figure["data"]}
    assert lines.keys() == {f"trial {n}" for n in range(12) if n != 2}
    assert list(lines)[-1] == f"trial {figures.best}"  # in front
    value = trials["m.a"].where(trials["trial"] != 2)
    share = 0.12 + 0.88 * (value[3] - value.min()) / (value.max() - value.min())  # below: the trial without a value
    assert lines["trial 3"]["y"][1] == pytest.approx(share, abs=1e-4)
    assert lines["trial 4"]["y"][1] == 0
    assert tables.UNDEFINED in [note["text"] for note in figure["layout"]["annotations"]]


def test_contours_of_numbers_and_points_of_names() -> None:
    figures = SearchFigures(findings_of(trial_frame(20)))
    [numbers, names] = map(drawn, figures.contours([("m.a", "m.b"), ("m.c", "m.a")]))
    assert [trace["type"] for trace in numbers["data"]][:2] == ["contour", "scatter"]
    assert {trace["type"] for trace in names["data"]} == {"scatter"}
    assert len(numbers["data"][1]["x"]) == 20


def test_contours_of_many_trials_are_of_cells() -> None:
    figures = SearchFigures(findings_of(trial_frame(300)))
    [figure] = figures.contours([("m.a", "m.b")])
    surface, points = drawn(figure)["data"][:2]
    assert len(surface["x"]) <= CELLS + 2  # and a margin at either end
    assert len(points["x"]) == 300
    assert len(figure) < 100_000


def test_pairs_of_keys_that_exclude_each_other_have_no_contour() -> None:
    trials = trial_frame(20)
    first = trials["m.c"] == "x"
    trials["m.a"], trials["m.b"] = trials["m.a"].where(first), trials["m.b"].where(~first)
    assert SearchFigures(findings_of(trials)).contours([("m.a", "m.b")]) == []


def test_importances_are_bars() -> None:
    figures = SearchFigures(findings_of(trial_frame(12)))
    [bars] = drawn(figures.importance({"m.a": 0.25, "m.c": 0.75}))["data"]
    assert (bars["y"], bars["x"], bars["text"]) == (["a", "c"], [0.25, 0.75], ["25%", "75%"])


# --- Training --------------------------------------------------------------------------------------------------------


def history_frame(trials: int, epochs: int = 6, pruned: int = 2) -> pd.DataFrame:
    rows = []
    for trial in range(trials):
        for epoch in range(1, (3 if trial == pruned else epochs) + 1):
            own = {"knn_auc": 0.5 + epoch / 20} if epoch % 3 == 0 else {}
            own |= {"lr": 0.1, "odd": 1.0, "embedding_std": 0.1, "loss": 1 / epoch + trial / 100}
            rows.append({"trial": trial, "stage": "pretrain", "epoch": epoch, "epochs": epochs, "seconds": 1.0, **own})
    return pd.DataFrame(rows)


def test_metrics_are_grouped_and_ordered() -> None:
    assert curves.grouped(["lr", "embedding_std", "odd", "knn_auc", "loss"]) == {
        "learning": ["loss", "knn_auc", "odd"],
        "similarity and collapse": ["embedding_std"],
        "speed and schedule": ["lr"],
    }


@pytest.mark.parametrize("trials", [4, curves.MOST_LINES + 5])
def test_curves_connect_the_epochs_that_have_a_metric_and_mark_the_pruned(trials: int) -> None:
    history = history_frame(trials)
    status = pd.DataFrame(
        {"trial": range(trials), "status": ["pruned" if n == 2 else "complete" for n in range(trials)]}
    )
    figures = curves.learning_curves(history, status, best=1)["pretrain"]
    assert {group: len(members) for group, members in figures.items()} == {
        "learning": 3,
        "similarity and collapse": 1,
        "speed and schedule": 1,
    }
    _, knn, _ = figures["learning"]
    best = re.findall(r'd="(M [^"]*)"[^>]*style="[^"]*stroke: var\(--accent\)', knn)
    assert [path.count("L") for path in best] == [1]  # epochs 3 and 6, one line
    assert "var(--bad)" in knn  # the pruned trial's end
    unpruned = curves.learning_curves(history, status.assign(status="complete"), best=1)["pretrain"]["learning"][1]
    assert "var(--bad)" not in unpruned
    assert ("data:image/png" in knn) == (trials > curves.MOST_LINES)
    assert len(knn) < 60_000


def test_no_history_has_no_curves() -> None:
    empty = pd.DataFrame(columns=["trial", "epoch", "stage"])
    assert curves.learning_curves(empty, pd.DataFrame({"trial": [0], "status": ["failed"]}), None) == {}


# --- Detection -------------------------------------------------------------------------------------------------------


def test_the_area_below_a_machines_roc_is_its_auc() -> None:
    runs = [holdout(seed=seed, clips=40) for seed in range(2)]
    curve = detection.mean_roc(runs, "pump")
    assert curve is not None
    expected = [metrics.per_machine(metrics.per_id(run)).set_index("machine")["auc"]["pump"] for run in runs]
    assert np.trapezoid(curve, detection.GRID) == pytest.approx(np.mean(expected), abs=0.01)
    assert curve[0] == 0
    assert curve[-1] == 1
    assert (np.diff(curve) >= 0).all()
    assert detection.mean_roc(runs, "absent") is None
    normal = [run[run["label"] == "normal"] for run in runs]
    assert detection.mean_roc(normal, "pump") is None
    assert detection.roc("pump", {"best": normal}, {"best": "best"}) is None


def test_scores_are_standardised_by_the_normal_clips_of_the_own_id() -> None:
    clips = holdout()
    z = detection.standardised(clips)
    for _, members in clips.assign(z=z).groupby(["machine", "id"]):
        normal = members.loc[members["label"] == "normal", "z"]
        assert normal.mean() == pytest.approx(0, abs=1e-12)
        assert normal.std() == pytest.approx(1)
    assert np.isnan(detection.standardised(clips.assign(score=1.0))).all()
    assert detection.histogram("pump", clips.assign(score=1.0)) is None
    drawn = detection.histogram("pump", clips) or ""
    assert "var(--muted)" in drawn
    assert "var(--bad)" in drawn


# --- Mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["normal", "anomaly"])
def test_the_worst_mistake_of_an_id_costs_it_the_most(label: str) -> None:
    clips = holdout(strength=0.5)
    clips.loc[::7, "score"] = 0.25  # ties
    found = mistakes.worst(clips, label, {}, most=100)
    assert [m.beyond for m in found] == sorted((m.beyond for m in found), reverse=True)
    for mistake in found:
        own = clips[(clips["machine"] == mistake.machine) & (clips["id"] == mistake.id)]
        costs = {}
        for _, clip in own[own["label"] == label].iterrows():
            others = own.loc[own["label"] != label, "score"]
            wrong = others < clip["score"] if label == "normal" else others > clip["score"]
            costs[clip["path"]] = (wrong + 0.5 * (others == clip["score"])).mean()
        assert mistake.beyond == pytest.approx(max(costs.values()))
        assert costs[mistake.path] == pytest.approx(mistake.beyond)
    assert len(found) == 6
    perfect = clips.assign(score=(clips["label"] == "anomaly").astype(float))
    assert mistakes.worst(perfect, label, {}) == []


def make_store(folder: Path, paths: list[str]) -> dict[str, np.ndarray]:
    """A feature store of two shards with one-coloured pictures."""
    features = FeatureConfig(n_mels=8, seconds=0.32)
    settings = settings_of(features, 0)
    rng = np.random.default_rng(0)
    images = {path: rng.normal(size=(8, features.frames)).astype(np.float16) for path in paths}
    shards = []
    for number, part in enumerate((paths[::2], paths[1::2])):
        clips = [Clip(path, "fan", "00", "test", "normal") for path in part]
        columns = {"level_db": np.zeros(len(part), np.float32), "log_mel": np.stack([images[path] for path in part])}
        name = write_shard(folder, f"log_mel-test-{number:05d}-{0:016x}", clips, columns, {})
        shards.append(Shard(len(part), {"log_mel": name}))
    write_manifest(folder, Manifest(settings, {"test": shards}, {"test": len(paths)}, 0.0, 1.0, {}, []))
    return images


def test_spectrograms_come_from_the_feature_store(tmp_path: Path) -> None:
    images = make_store(tmp_path / "features", ["a.wav", "b.wav", "c.wav"])
    found = mistakes.spectrograms(tmp_path, {}, ["c.wav", "b.wav"])
    assert set(found.images) == {"b.wav", "c.wav"}
    assert found.missing == ""
    picture = re.search(r"data:image/png;base64,([^\"]+)", found.images["b.wav"])
    assert picture is not None
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture[1]))))
    assert shown.shape == images["b.wav"].shape
    order = np.corrcoef(shown[::-1].ravel(), images["b.wav"].astype(float).ravel())[0, 1]
    assert order > 0.98  # low frequencies at the bottom, levels in order


def test_why_there_are_no_spectrograms_is_said(tmp_path: Path) -> None:
    assert "features are not at" in mistakes.spectrograms(tmp_path, {}, ["a.wav"]).missing
    away = {"features": {"store": "s3://bucket/store"}}
    assert "only a local store is read" in mistakes.spectrograms(tmp_path, away, ["a.wav"]).missing
    make_store(tmp_path / "features", ["a.wav", "b.wav"])
    assert "does not hold x.wav" in mistakes.spectrograms(tmp_path, {}, ["x.wav"]).missing
    other = mistakes.spectrograms(tmp_path, {}, ["a.wav"], features_hash="0" * 16)
    assert "features are not at" in other.missing
    for shard in (tmp_path / "features").glob("*.parquet"):
        shard.write_bytes(b"PAR1")
    assert "cannot be read" in mistakes.spectrograms(tmp_path, {}, ["a.wav"]).missing


def test_a_damaged_list_of_faults_does_not_cost_the_report(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", trials=1)
    (folder / "data").mkdir()
    (folder / "data" / "faults.csv").write_text("nothing\nknown\n", encoding="utf-8")
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert "Kinds of fault are left out" in page.words
    assert "found the columns nothing" in page.words


def test_auc_by_fault_takes_all_normal_clips_against_one_kind() -> None:
    clips = holdout(clips=6)
    anomalous = clips.loc[clips["label"] == "anomaly", "path"]
    faults = {path: Fault("rub" if n % 2 else "leak", "high", "") for n, path in enumerate(anomalous)}
    table = mistakes.fault_table({"best": [clips, clips]}, faults, 0.1).set_index(["machine", "what", "name"])
    normal = clips["label"] == "normal"
    for machine in ("fan", "pump", "valve"):
        own = clips["machine"] == machine
        rub = clips["path"].map(lambda path: path in faults and faults[path].kind == "rub")
        expected = metrics.per_machine(metrics.per_id(clips[own & (normal | rub)])).iloc[0]["auc"]
        assert table.loc[(machine, "fault", "rub"), "best"] == pytest.approx(expected)
        assert table.loc[(machine, "fault", "rub"), "n_anomaly"] == 6
        all_kinds = metrics.per_machine(metrics.per_id(clips[own])).iloc[0]["auc"]
        assert table.loc[(machine, "band", "high"), "best"] == pytest.approx(all_kinds)


def test_a_page_with_faults_pictures_seeds_and_importance(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", trials=14, seeds=2, clips=8, layout="synthetic")
    best = tables.best_trial(parquet.read_table(folder / "trials.parquet"))
    scored = parquet.read_table(folder / "trials" / f"{best:05d}" / "scores.parquet")
    make_store(folder / "features", scored["path"].tolist())
    anomalous = scored[(scored["label"] == "anomaly")]
    (folder / "data").mkdir()
    lines = [f"{path},imbalance,low" for path in anomalous["path"]]
    (folder / "data" / "faults.csv").write_text("\n".join(["path,fault,band", *lines]) + "\n", encoding="utf-8")
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert "fANOVA" in page.words
    assert page.words.count("Synthetic data") > 6
    assert len(page.table("select AUC", "used")) == 2
    assert [row[0] for row in page.table("select AUC", "used") if row[-1] == "yes"] == ["knn"]
    [*_, last] = page.table("machine", "by", "fault")
    assert last[:4] == ["valve", "band", "low", "16"]
    assert "False alarms" in page.words
    assert sum(tag == "image" for tag, _ in page.tags) >= 8
    assert all("±" in row[2] for row in page.table("trial", "seeds"))
    [best_row, *_] = page.table("system", "pooled AUC")
    assert "±" in best_row[1]
    assert re.fullmatch(r"[\d.]+–[\d.]+", best_row[2])
