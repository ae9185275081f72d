from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from asd_ray.errors import AsdRayError
from asd_ray.metrics.intervals import OVERALL, difference, estimate, mean_of
from asd_ray.parquet import write_table
from asd_ray.report.evidence import gather, in_words, kind_table, within_chance
from asd_ray.report.findings import Findings
from asd_ray.report.scored_clips import baseline_runs, kinds, on_split, trial_runs
from tests.study.made_study import make_study, scored_clips


def clips_of(seed: int, strength: float = 1.0) -> pd.DataFrame:
    scored = scored_clips(np.random.default_rng(seed), strength, ("none",), 9)
    return scored[scored["split"] == "holdout"].reset_index(drop=True)


def test_a_difference_in_words() -> None:
    clips = [clips_of(seed, 0.0) for seed in range(2)]
    noise = difference(estimate(clips[:1]), estimate(clips[1:]))
    text = in_words(noise, "A", "B", 1)
    assert text.startswith("On the holdout split A against B: ")
    assert text.endswith("the difference is within chance.")
    better = [clips[0].assign(score=(clips[0]["label"] == "anomaly") + 0.01 * clips[0]["score"]), clips_of(5, 5.0)]
    text = in_words(difference(estimate(better), estimate(clips)), "A", "B", 2)
    assert "more than other clips would explain" in text
    assert "Over 2 pairs of seeds" in text
    assert "A is higher in 2 of them" in text
    assert "no pair of seeds" in in_words(difference(estimate(better[:1]), estimate(clips[:1])), "A", "B", 1)
    assert within_chance({"auc_low": 0.00004, "auc_high": 0.1}, "auc")  # printed as +0.00
    assert not within_chance({"auc_low": 0.0001, "auc_high": 0.1}, "auc")


def test_one_clip_of_a_kind_says_nothing_about_other_clips() -> None:
    clips = clips_of(0).groupby(["machine", "id", "domain", "label"]).head(1).reset_index(drop=True)
    anomalous = clips["label"] == "anomaly"
    right, wrong = clips.assign(score=anomalous * 1.0), clips.assign(score=~anomalous * 1.0)
    found = difference(estimate([right]), estimate([wrong]))
    assert mean_of(found)["auc_low"] == mean_of(found)["auc_high"] == 1  # every draw is the clips as they are
    text = in_words(found, "A", "B", 1)
    unknown = "is the same in all draws of clips, so there are too few clips to say what others would change"
    assert text.endswith(f": the difference {unknown}.")
    assert "explain" not in text
    found.loc[(OVERALL, "mean", ""), ["pauc_low", "pauc_high"]] = 0.2, 0.9
    text = in_words(found, "A", "B", 1)
    assert f": the difference in AUC {unknown}; that in pAUC is more than other clips would explain. " in text
    assert text.endswith("there is no pair of seeds to tell.")
    found.loc[(OVERALL, "mean", ""), ["pauc_low", "pauc_high"]] = -0.1, 0.9
    assert in_words(found, "A", "B", 1).endswith(f": the difference in AUC {unknown}; that in pAUC is within chance.")


def test_a_study_folder_has_runs_kinds_and_evidence(tmp_path) -> None:
    folder = make_study(tmp_path / "study", seeds=3)
    findings = Findings.read(folder)
    best = findings.best
    assert best is not None
    runs = trial_runs(folder, best)
    assert len(runs) == 3
    assert kinds(runs) == ["knn", "gmm"]
    assert list(baseline_runs(folder)) == ["level", "knn_log_mel"]
    evidence = findings.evidence
    assert list(evidence.estimates) == ["best", "default", "level", "knn_log_mel"]
    for name in evidence.estimates:  # the same numbers as the table that is made from results.parquet
        assert mean_of(evidence.estimates[name].table)["auc"] == pytest.approx(findings.overall(name, "auc"))
    assert "Over 3 pairs of seeds" in evidence.gain_in_words()
    table = kind_table(runs, 0.1)
    assert table.loc["knn", "holdout_auc"] == pytest.approx(findings.overall("best", "auc"))
    assert table.loc["gmm", "select_auc"] == pytest.approx(1 - table.loc["knn", "select_auc"])
    same = gather(folder, 0, 0, 0.1)
    assert same.gain is None
    assert same.gain_in_words() == ""
    assert same.estimates["default"] is same.estimates["best"]


def test_a_repeat_that_did_not_complete_does_not_count(tmp_path) -> None:
    folder = make_study(tmp_path / "study", trials=1, seeds=3)
    record = folder / "trials" / "00000" / "repeat-02" / "trial.json"
    record.write_text(record.read_text().replace('"complete"', '"failed"'), encoding="utf-8")
    assert len(trial_runs(folder, 0)) == 2
    (folder / "trials" / "00000" / "scores.parquet").unlink()
    assert trial_runs(folder, 0) == []


def test_runs_of_different_clips_are_refused() -> None:
    one = clips_of(0)
    shuffled = one.sample(frac=1, random_state=1)
    same = on_split({"A": [one], "B": [shuffled]}, "holdout")
    assert same["A"][0]["path"].tolist() == same["B"][0]["path"].tolist()
    gone = one["path"].iloc[4]
    with pytest.raises(AsdRayError, match=rf"same clips of the holdout split: {gone} \(1 in all\) is in A alone"):
        on_split({"A": [one], "B": [one[one["path"] != gone]]}, "holdout")
    with pytest.raises(AsdRayError, match=r"is in B alone"):
        on_split({"A": [one[one["path"] != gone]], "B": [one]}, "holdout")
    changed = one.assign(label=one["label"].where(one["path"] != gone, "unlike"))
    with pytest.raises(AsdRayError, match=rf"{gone}: its label is .* in A and unlike in B"):
        on_split({"A": [one], "B": [changed]}, "holdout")
    with pytest.raises(AsdRayError, match="twice"):
        on_split({"A": [one], "B": [pd.concat([one, one.iloc[:1]])]}, "holdout")


def test_a_study_without_scores_has_no_evidence(tmp_path) -> None:
    folder = make_study(tmp_path / "study", trials=1)
    scores = folder / "trials" / "00000" / "scores.parquet"
    write_table(scores, pd.DataFrame({"path": ["a.wav"], "score": [0.0]}))
    with pytest.raises(AsdRayError, match=r"scores.parquet: expected the columns .*; missing: machine"):
        gather(folder, 0, 0, 0.1)
    scores.unlink()
    assert gather(folder, 0, 0, 0.1).estimates == {}
