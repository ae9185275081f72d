from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from asd_ray.cluster.session import concurrency
from asd_ray.config import FeatureConfig, StudyConfig
from asd_ray.config.study_file import parse_study
from asd_ray.data.clips import Clip
from asd_ray.features.store import Manifest, Shard, settings_of, write_shard
from asd_ray.metrics.selection import objective
from asd_ray.parquet import write_table
from asd_ray.report.write import write_results
from asd_ray.study.baselines import baseline_results, baseline_scores
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.outcome import StudyOutcome
from asd_ray.study.trial import trial_seed

SPACE = {"method.pretrain.alpha": {"uniform": [0.1, 0.6]}}


def rows(auc: float) -> list[dict[str, object]]:
    row = {"machine": "fan", "id": "00", "domain": "none", "n_normal": 2, "n_anomaly": 2, "auc": auc, "pauc": auc}
    return [{"split": split, **row} for split in ("select", "holdout")]


def test_tables_are_made_from_the_trials_records(tmp_path: Path) -> None:
    study = parse_study({"name": "s", "search": {"space": SPACE}}, "f")
    folder = StudyFolder(tmp_path / "out")
    folder.open(study)
    write_table(folder.path / "baselines.parquet", pd.DataFrame(rows(0.5)).assign(baseline="level"))
    for number, auc in enumerate((0.6, 0.8, None)):
        values = {"method.pretrain.alpha": 0.1 * (number + 1)}
        folder.start_trial(number, values)
        record = TrialRecord(number, values, 7, "complete" if auc else "failed", auc, reason="" if auc else "broke")
        record.results = rows(auc) if auc else []
        if auc:
            (folder.trial(number) / "detector").mkdir()
            (folder.trial(number) / "detector" / "detector.json").write_text(str(number))
            scores = {"path": ["fan/test/a.wav"], "machine": ["fan"], "id": ["00"], "score": [float(number)]}
            scores |= {"domain": ["none"], "label": ["normal"], "split": ["select"]}
            write_table(folder.trial(number) / "scores.parquet", pd.DataFrame(scores))
            history = {"epoch": [1], "stage": ["pretrain"], "loss": [1.0]}
            write_table(folder.trial(number) / "history.parquet", pd.DataFrame(history))
        folder.finish_trial(record)
    repeated = TrialRecord(1, {"method.pretrain.alpha": 0.2}, 8, "complete", 0.7, repeat=1, results=rows(0.7))
    folder.finish_trial(repeated)
    write_results(folder, study)
    outcome = StudyOutcome(folder.path).as_dict()
    assert [outcome[name] for name in ("best", "complete", "pruned", "failed")] == [1, 2, 0, 1]
    trials = pd.read_parquet(folder.path / "trials.parquet")
    assert trials["status"].tolist() == ["complete", "complete", "failed"]
    assert trials["method.pretrain.alpha"].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert trials["reason"].tolist() == ["", "", "broke"]
    results = pd.read_parquet(folder.path / "results.parquet")
    assert results.columns.tolist()[:2] == ["trial", "seed"]
    assert results["trial"].tolist() == [0, 0, 1, 1, 1, 1]
    assert results["seed"].tolist() == [7, 7, 7, 7, 8, 8]
    assert (folder.path / "detector" / "detector.json").read_text() == "1"
    assert (folder.path / "submission" / "anomaly_score_fan_id_00.csv").read_text() == "a.wav,1.0\n"
    assert pd.read_parquet(folder.path / "history.parquet")["trial"].tolist() == [0, 1]
    write_results(folder, study)  # again, from the same records
    assert pd.read_parquet(folder.path / "trials.parquet").equals(trials)


def test_the_objective_looks_at_the_select_split_alone() -> None:
    table = pd.DataFrame([{**rows(0.7)[0], "pauc": 0.5}, {**rows(0.1)[1]}])
    assert objective(table, "auc") == pytest.approx(0.7)
    assert objective(table, "pauc") == pytest.approx(0.5)
    assert objective(table, "auc_pauc") == pytest.approx(0.6)
    assert objective(table.assign(auc=np.nan), "auc") is None


def test_every_trial_of_a_study_has_its_seed() -> None:
    first, other = StudyConfig(name="a", seed=1), StudyConfig(name="b", seed=2)
    assert trial_seed(first) == trial_seed(StudyConfig(name="c", seed=1)) != trial_seed(other)
    assert trial_seed(first, repeat=1) != trial_seed(first)


def test_baselines_read_the_store(tmp_path: Path) -> None:
    features = FeatureConfig(n_mels=8, seconds=0.064)
    settings = settings_of(features, 0)
    rng = np.random.default_rng(0)
    shards: dict[str, list[Shard]] = {}
    identity = []
    for split in ("train", "test"):
        clips, values, levels = [], [], []
        for number in range(8):
            odd = split == "test" and number % 2 == 1
            clips.append(Clip(f"fan/{split}/{number}.wav", "fan", "00", split, "anomaly" if odd else "normal"))  # type: ignore[arg-type]
            values.append(rng.standard_normal((8, features.frames)) * 0.01 + (3 if odd else 0))
            levels.append(-30.0 + (5 if odd else 0))
            if split == "test":
                identity.append(
                    (clips[-1].path, "fan", "00", "none", clips[-1].label, "select" if number < 4 else "holdout")
                )
        columns = {"log_mel": np.array(values, np.float16), "level_db": np.array(levels, np.float32)}
        name = write_shard(tmp_path, f"log_mel-{split}-00000-{0:016x}", clips, columns, {})
        shards[split] = [Shard(8, {"log_mel": name})]
    manifest = Manifest(settings, shards, {"train": 8, "test": 8}, 0.0, 1.0, {}, [])
    frame = pd.DataFrame(identity, columns=["path", "machine", "id", "domain", "label", "split"])
    scores = baseline_scores(tmp_path, manifest, frame)
    assert scores["path"].tolist() == frame["path"].tolist()
    table = baseline_results(scores, [("fan", "00")], 0.1)
    assert sorted(set(table["baseline"])) == ["knn_log_mel", "level"]
    assert table["auc"].tolist() == [1.0] * 4
    assert table["n_normal"].tolist() == [2] * 4


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"workers": 1}, 8),
        ({"workers": 3}, 2),
        ({"workers": 2, "cpus_per_worker": 2}, 2),
        ({"workers": 1, "gpus_per_worker": 0.5}, 4),
        ({"workers": 2, "gpus_per_worker": 1}, 1),
        ({"workers": 1, "max_concurrent_trials": 3}, 3),
    ],
)
def test_as_many_trials_as_the_cluster_has_room_for(
    monkeypatch: pytest.MonkeyPatch, resources: dict[str, float], expected: int
) -> None:
    monkeypatch.setattr("asd_ray.cluster.session.ray.cluster_resources", lambda: {"CPU": 8.0, "GPU": 2.0})
    study = parse_study({"name": "s", "resources": resources}, "f")
    assert concurrency(study.resources) == expected
