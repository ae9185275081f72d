from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from asd_ray import metrics
from asd_ray.errors import AsdRayError
from asd_ray.report.evidence import gather, in_words, kind_table, within_chance
from asd_ray.report.findings import Findings
from asd_ray.report.intervals import OVERALL, difference, estimate, machines_of, mean_of
from asd_ray.report.scored_clips import baseline_runs, kinds, on_split, trial_runs
from asd_ray.report.tables import write_table
from tests.study.made_study import make_study, scored_clips

DOMAINS = [("none",), ("source", "target")]


def clips_of(seed: int, strength: float = 1.0, domains: tuple[str, ...] = ("none",), clips: int = 9) -> pd.DataFrame:
    scored = scored_clips(np.random.default_rng(seed), strength, domains, clips)
    return scored[scored["split"] == "holdout"].reset_index(drop=True)


@pytest.mark.parametrize("domains", DOMAINS)
def test_one_seed_has_the_intervals_of_the_bootstrap(domains: tuple[str, ...]) -> None:
    clips = clips_of(0, domains=domains)
    found = estimate([clips]).table
    expected = metrics.bootstrap(clips).replace({"mean": "all"})
    for row in expected.to_dict("records"):
        overall = row["machine"] == "all"
        ours = mean_of(found) if overall else found.xs((row["machine"], row["id"], row["domain"]))
        for bound in ("auc_low", "auc_high", "pauc_low", "pauc_high"):
            assert ours[bound] == pytest.approx(row[bound], abs=1e-12)
    average = metrics.averages(metrics.per_id(clips)).iloc[0]
    assert mean_of(found)["auc"] == pytest.approx(average["auc"])
    assert mean_of(found)["mauc"] == pytest.approx(average["mauc"])
    assert found["auc_sd"].isna().all()


def test_what_is_estimated_is_the_mean_over_seeds() -> None:
    one, other = clips_of(0), clips_of(1)
    first, second, both = (estimate(runs) for runs in ([one], [other], [one, other]))
    pd.testing.assert_frame_equal(both.draws["auc"], (first.draws["auc"] + second.draws["auc"]) / 2)
    fan = [mean_of(single.table, "fan")["auc"] for single in (first, second)]
    assert mean_of(both.table, "fan")["auc"] == pytest.approx(np.mean(fan))
    assert mean_of(both.table, "fan")["auc_sd"] == pytest.approx(np.std(fan, ddof=1))
    assert both.n_seeds == 2
    assert machines_of(both.table) == ["fan", "pump", "valve", "all"]


def test_pooled_is_one_curve_per_machine() -> None:
    clips = clips_of(3)
    found = estimate([clips], resamples=0).table
    expected = []
    for machine in ("fan", "pump", "valve"):
        own = clips[clips["machine"] == machine]
        expected.append(roc_auc_score(own["label"] == "anomaly", own["score"]))
        assert mean_of(found, machine)["pooled_auc"] == pytest.approx(expected[-1])
    assert mean_of(found)["pooled_auc"] == pytest.approx(np.mean(expected))
    assert found.xs(("fan", "00", "none"))[["pooled_auc", "mauc"]].isna().all()


@pytest.mark.parametrize("domains", DOMAINS)
def test_a_difference_is_paired(domains: tuple[str, ...]) -> None:
    first, second = clips_of(0, 1.5, domains), clips_of(1, 0.5, domains)
    found = difference(estimate([first]), estimate([second]))
    expected = metrics.paired_difference(first, second)
    overall = expected[expected["machine"] == "mean"].iloc[0]
    for metric in ("auc", "pauc"):
        assert mean_of(found)[metric] == pytest.approx(overall[f"{metric}_difference"], abs=1e-12)
        assert mean_of(found)[f"{metric}_low"] == pytest.approx(overall[f"{metric}_low"], abs=1e-12)
        assert mean_of(found)[f"{metric}_high"] == pytest.approx(overall[f"{metric}_high"], abs=1e-12)
    assert np.isnan(mean_of(found)["auc_wins"])
    nothing = difference(estimate([first]), estimate([first]))
    assert (nothing[["auc", "auc_low", "auc_high"]] == 0).all(axis=None)


def test_seeds_are_paired_by_their_number() -> None:
    first, second = [clips_of(0, 2.0), clips_of(1, 2.0)], [clips_of(2, 0.0), clips_of(3, 0.0)]
    found = mean_of(difference(estimate(first, resamples=10), estimate(second, resamples=10)))
    each = [
        mean_of(estimate([a], resamples=0).table)["auc"] - mean_of(estimate([b], resamples=0).table)["auc"]
        for a, b in zip(first, second, strict=True)
    ]
    assert found["auc"] == pytest.approx(np.mean(each))
    assert found["auc_sd"] == pytest.approx(np.std(each, ddof=1))
    assert found["auc_wins"] == 2
    lonely = mean_of(difference(estimate(first, resamples=10), estimate(second[:1], resamples=10)))
    assert np.isnan(lonely["auc_sd"])


def test_an_id_without_anomalies_has_no_value_and_no_interval() -> None:
    clips = clips_of(0)
    clips = clips[~((clips["machine"] == "fan") & (clips["label"] == "anomaly"))].reset_index(drop=True)
    found = estimate([clips], resamples=20).table
    assert found.xs(("fan", "00", "none"))[["auc", "auc_low", "auc_high"]].isna().all()
    assert np.isfinite(mean_of(found)["auc_low"])


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
