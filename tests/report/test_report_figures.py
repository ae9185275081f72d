from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from asd_ray import metrics, parquet, report
from asd_ray.config import FeatureConfig
from asd_ray.data.clips import Clip
from asd_ray.data.side_files import Fault
from asd_ray.features.store import Manifest, Shard, settings_of, write_manifest, write_shard
from asd_ray.report import tables
from asd_ray.report.figures import curves, detection, mistakes, parallel, search
from tests.study.made_study import Page, make_study, scored_clips


def holdout(strength: float = 1.0, clips: int = 12, seed: int = 0) -> pd.DataFrame:
    scored = scored_clips(np.random.default_rng(seed), strength, ("none",), clips)
    return scored[scored["split"] == "holdout"].reset_index(drop=True)


# --- Search ----------------------------------------------------------------------------------------------------------


def test_a_scale_puts_values_between_0_and_1() -> None:
    space = {"a": {"uniform": [1, 3]}, "b": {"loguniform": [0.01, 1]}, "c": {"choice": ["x", None, 2]}}
    values = pd.Series([1.0, 2.0, 3.0])
    np.testing.assert_allclose(search.Scale("a", space, values)(values), [0, 0.5, 1])
    logarithmic = search.Scale("b", space, values / 10)
    np.testing.assert_allclose(logarithmic(pd.Series([0.01, 0.1, 1.0])), [0, 0.5, 1])
    places, names = logarithmic.ticks()
    assert dict(zip(names, places, strict=True))["0.1"] == pytest.approx(0.5)
    chosen = search.Scale("c", space, values)
    np.testing.assert_allclose(chosen(pd.Series(["x", "2", "other"])), [1 / 6, 5 / 6, np.nan])
    # A column of one choice and a key that has no distribution: the values themselves are the choices.
    assert search.Scale("d", {}, pd.Series(["v", "u"])).names == ["u", "v"]
    np.testing.assert_allclose(search.Scale("a", {"a": {"uniform": [1, 2]}}, values)(values), [0, 0.5, 1])  # 3: outside
    np.testing.assert_allclose(search.Scale("e", {"e": {"int": [2, 2]}}, values[1:2])(pd.Series([2.0])), [0.5])


def trial_frame(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"trial": range(n), "status": "complete", "objective": rng.uniform(0.5, 0.9, n)})
    return frame.assign(**{"m.a": rng.uniform(0, 1, n), "m.b": rng.uniform(0, 1, n), "m.c": rng.choice(["x", "y"], n)})


def test_contours_of_numbers_and_points_of_names() -> None:
    trials, space = trial_frame(20), {"m.a": {"uniform": [0, 1]}, "m.b": {"uniform": [0, 1]}}
    filled = search.contour(trials, ("m.a", "m.b"), space, 3)
    assert "TriContour" in filled
    assert "TriContour" not in search.contour(trials, ("m.a", "m.c"), space, 3)
    on_a_line = trials.assign(**{"m.b": trials["m.a"]})
    assert "TriContour" not in search.contour(on_a_line, ("m.a", "m.b"), space, 3)


def test_parallel_coordinates_tell_every_complete_trial() -> None:
    trials = trial_frame(12)
    trials.loc[2, "status"], trials.loc[4, "m.a"] = "pruned", np.nan
    text = parallel.parallel_coordinates(trials, {"m.a": "a", "m.c": "<c>"}, {"m.a": {"uniform": [0, 1]}}, 3)
    titles = re.findall(r"<title>(.*?)</title>", text)
    assert len(titles) == 11
    assert titles[-1].startswith(f"trial 3: objective {100 * trials['objective'][3]:.2f}, a ")  # the best is in front
    assert "&lt;c&gt;" in text
    assert "<c>" not in text
    points = {title: points for points, title in re.findall(r'points="(.*?)"><title>(trial \d+)', text)}
    assert {len(at.split()) for at in points.values()} == {3}
    below = float(points["trial 4"].split()[0].split(",")[1])  # it has no value of this key
    assert below > parallel.HEIGHT - parallel.BOTTOM
    assert text.count(f'y="{below + 4:.1f}">–</text>') == 1
    assert float(points["trial 3"].split()[0].split(",")[1]) == pytest.approx(
        parallel.HEIGHT - parallel.BOTTOM - trials["m.a"][3] * 252, abs=0.1
    )


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
    page = Page(report.write_report(folder).read_text(encoding="utf-8"))
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
    page = Page(report.write_report(folder).read_text(encoding="utf-8"))
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
