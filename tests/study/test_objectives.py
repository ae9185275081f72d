"""Objectives of a trial, and the Pareto front of a study."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.config.study_file import parse_study
from asd_ray.detector.detector import Detector
from asd_ray.errors import AsdRayError
from asd_ray.metrics import averages
from asd_ray.report.write import write_results
from asd_ray.study import objectives
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.objectives import latency, objective_values, pareto_front, size, with_front
from asd_ray.study.outcome import StudyOutcome
from tests.detector.tiny_detector import save_tiny_detector, tiny_study, write_recordings


def rows(aucs: dict[tuple[str, str], float], split: str = "select") -> pd.DataFrame:
    counts = {"domain": "none", "n_normal": 5, "n_anomaly": 5}
    return pd.DataFrame(
        [
            {"split": split, "machine": machine, "id": number, **counts, "auc": auc, "pauc": auc - 0.1}
            for (machine, number), auc in aucs.items()
        ]
    )


SELECT = {("fan", "00"): 0.9, ("fan", "02"): 0.5, ("pump", "00"): 0.8, ("pump", "02"): 0.6}


def test_quality_is_of_the_select_split_and_reads_no_detector() -> None:
    both = pd.concat([rows(SELECT), rows(dict.fromkeys(SELECT, 0.1), "holdout")])
    values = objective_values(both, ("mauc", "auc", "auc_pauc"), Path("nowhere"))
    assert values == pytest.approx({"mauc": (0.5 + 0.6) / 2, "auc": 0.7, "auc_pauc": 0.65})
    assert values is not None
    assert list(values) == ["mauc", "auc", "auc_pauc"]
    assert values["mauc"] == averages(rows(SELECT))["mauc"].iloc[0]
    assert objective_values(rows(SELECT, "holdout"), ("auc", "size"), Path("nowhere")) is None


def test_size_and_latency_are_of_the_saved_detector(tmp_path: Path) -> None:
    recordings = write_recordings(tmp_path / "data", clips=3)
    method, _ = save_tiny_detector(tmp_path / "detector", tiny_study(), recordings)
    threads = torch.get_num_threads()
    values = objective_values(rows(SELECT), ("auc", "latency", "size"), tmp_path / "detector")
    assert values is not None
    assert values["size"] == sum(weight.numel() for weight in method.parameters()) > 1000
    assert 1e-4 < values["latency"] < 10
    assert torch.get_num_threads() == threads
    detector = Detector.load(tmp_path / "detector")
    assert size(detector) == values["size"]
    path = next(iter(recordings))
    waveform, table = detector._read(path), detector.score([path])
    group = f"{table['machine'][0]}/{table['id'][0]}"
    assert detector.score_waveforms(waveform[None], [group]) == pytest.approx(table["score"].to_numpy())
    with pytest.raises(AsdRayError, match="holds no detector"):
        objective_values(rows(SELECT), ("auc", "size"), tmp_path / "nothing")


def test_latency_is_the_median_of_single_clips_after_a_warm_up_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seen = [0.0], []
    durations = [5.0] * objectives.WARM_UP + [0.3] * (objectives.CLIPS // 2) + [0.1] * (objectives.CLIPS // 2 + 1)
    pending = iter(durations)

    def score_waveforms(waveforms: np.ndarray, groups: list[str]) -> None:
        clock[0] += next(pending)
        seen.append((waveforms.shape, tuple(groups), torch.get_num_threads()))

    features = SimpleNamespace(samples=160)
    detector = SimpleNamespace(
        study=SimpleNamespace(features=features), thresholds={"fan/00": 1.0}, score_waveforms=score_waveforms
    )
    monkeypatch.setattr(time, "thread_time", lambda: clock[0])
    assert latency(detector) == pytest.approx(0.1)
    assert set(seen) == {((1, 160), ("fan/00",), 1)}
    assert len(seen) == len(durations)


KINDS = ("auc", "latency", "size")


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=12))
def test_the_front_is_what_no_other_trial_dominates(points: list[tuple[int, int, int]]) -> None:
    def dominates(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
        as_good = one[0] >= other[0] and one[1] <= other[1] and one[2] <= other[2]
        return as_good and one != other

    expected = [not any(dominates(other, point) for other in points) for point in points]
    values = np.array(points, dtype=np.float64).reshape(-1, 3)
    assert pareto_front(values, KINDS).tolist() == expected


def test_only_complete_trials_are_on_the_front() -> None:
    trials = pd.DataFrame(
        {
            "status": ["complete", "failed", "complete", "complete", "pruned"],
            "objective_auc": [0.7, 0.9, 0.8, 0.6, None],
            "objective_latency": [0.01, 0.001, 0.02, 0.02, None],
        }
    )
    assert with_front(trials)["pareto"].tolist() == [True, False, True, False, False]
    assert with_front(trials[1:2])["pareto"].tolist() == [False]
    one = trials[["status"]]
    assert with_front(one) is one


def test_tables_have_a_column_for_each_of_several_objectives(tmp_path: Path) -> None:
    space = {
        "method.pretrain.projection": {"choice": ["linear", "mlp"]},
        "method.pretrain.queue_size": {"int": [32, 4096], "when": {"method.pretrain.projection": "mlp"}},
    }
    document = {"name": "s", "evaluation": {"objective": ["auc", "size"]}}
    own = {"projection": "mlp", "queue_size": 4096}
    study = parse_study({**document, "method": {"pretrain": own}, "search": {"space": space}}, "f")
    folder = StudyFolder(tmp_path / "out")
    folder.open(study)
    for number, (values, status, found) in enumerate(
        [
            ({"method.pretrain.projection": "mlp", "method.pretrain.queue_size": 64}, "complete", (0.7, 2e6)),
            ({"method.pretrain.projection": "linear"}, "complete", (0.6, 3e6)),
            ({"method.pretrain.projection": "linear"}, "failed", ()),
        ]
    ):
        named = dict(zip(("auc", "size"), found, strict=False))
        record = TrialRecord(number, values, 0, status, named.get("auc"), objectives=named)
        record.results = rows(SELECT).to_dict("records") if found else []
        folder.start_trial(number, values)
        folder.finish_trial(record)
        scores = {"path": ["fan/test/a.wav"], "machine": ["fan"], "id": ["00"], "score": [0.0]}
        scores |= {"domain": ["none"], "label": ["normal"], "split": ["select"]}
        pd.DataFrame(scores).to_parquet(folder.trial(number) / "scores.parquet")
    write_results(folder, study)
    assert StudyOutcome(folder.path).as_dict()["best"] == 0
    trials = pd.read_parquet(folder.path / "trials.parquet")
    assert trials.columns.tolist()[:7] == ["trial", "status", "objective", "objective_auc", "objective_size", *space]
    assert trials["objective_size"].tolist()[:2] == [2e6, 3e6]
    assert trials["pareto"].tolist() == [True, False, False]
    assert trials["method.pretrain.queue_size"].isna().tolist() == [False, True, True]
    summary = (folder.path / "summary.md").read_text()
    assert "## Pareto front" in summary
    assert "No other trial is at least as good in AUC and size and better in one of them." in summary
