from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from sklearn.metrics import confusion_matrix, roc_auc_score

from asd_ray.challenge.official import label_scores, official_metrics
from asd_ray.challenge.submission import write_submission
from asd_ray.data.clips import Clip
from asd_ray.errors import AsdRayError

LABELS = ("normal", "anomaly")
EPSILON = sys.float_info.epsilon


def clips_2020() -> list[Clip]:
    """An evaluation set: names hide the label, labels came from a list."""
    rng = np.random.default_rng(0)
    clips = []
    for machine, ids in (("fan", ("01", "03", "05")), ("ToyCar", ("05", "06"))):
        for machine_id in ids:
            for number in range(30):
                label = LABELS[int(rng.random() < 0.4)]
                path = f"{machine}/test/id_{machine_id}_{number:08d}.wav"
                clips.append(Clip(path, machine, machine_id, "test", label, part="eval"))
            clips.append(Clip(f"{machine}/train/normal_id_{machine_id}_0.wav", machine, machine_id, "train", "normal"))
    return clips


def clips_2022(machines: tuple[str, ...] = ("bearing", "valve")) -> list[Clip]:
    rng = np.random.default_rng(1)
    clips = []
    for machine in machines:
        for section in ("03", "04", "05"):
            for number in range(40):
                label, domain = LABELS[rng.integers(2)], ("source", "target")[rng.integers(2)]
                path = f"{machine}/test/section_{section}_{number:04d}.wav"
                clips.append(Clip(path, machine, section, "test", label, domain, "eval"))
    return clips


def scored(clips: list[Clip], seed: int = 2) -> pd.DataFrame:
    """Scores that know a little, with ties, and decisions of them."""
    rng = np.random.default_rng(seed)
    test = [clip for clip in clips if clip.split == "test"]
    scores = [round(float(rng.normal(clip.label == "anomaly")), 1) for clip in test]
    fields = ("path", "machine", "id", "domain", "label")
    table = pd.DataFrame([[getattr(clip, field) for field in fields] for clip in test], columns=list(fields))
    return table.assign(score=scores, decision=[int(score > 0.5) for score in scores]).sample(frac=1, random_state=3)


def column(path: Path) -> np.ndarray:
    """As the evaluators read a file: values in the order of the file names."""
    with path.open() as file:
        return np.array([float(row[1]) for row in sorted(csv.reader(file))])


def labels_in_order(clips: list[Clip], machine: str, machine_id: str, value: Callable[[Clip], int]) -> np.ndarray:
    own = [clip for clip in clips if (clip.machine, clip.id, clip.split) == (machine, machine_id, "test")]
    return np.array([value(clip) for clip in sorted(own, key=lambda clip: clip.path)])


def is_anomaly(clip: Clip) -> int:
    return int(clip.label == "anomaly")


def test_the_evaluator_of_2020_gives_the_same_numbers(tmp_path: Path) -> None:
    clips = clips_2020()
    write_submission(tmp_path, scored(clips), "dcase2020")
    found = official_metrics(label_scores(tmp_path, clips), resamples=0)
    averages = []
    for machine in ("fan", "ToyCar"):
        performance = []
        for path in sorted(tmp_path.glob(f"anomaly_score_{machine}_id*")):
            machine_id = path.stem[-2:]
            y_true, y_pred = labels_in_order(clips, machine, machine_id, is_anomaly), column(path)
            assert len(y_true) == len(y_pred)
            performance.append([roc_auc_score(y_true, y_pred), roc_auc_score(y_true, y_pred, max_fpr=0.1)])
            row = found.ids.set_index(["machine", "id"]).loc[(machine, machine_id)]
            assert row[["auc", "pauc"]].tolist() == pytest.approx(performance[-1], abs=1e-12)
        averages.append(np.mean(performance, axis=0))
        mean = found.machines.set_index("machine").loc[machine]
        assert mean[["auc", "pauc"]].tolist() == pytest.approx(averages[-1].tolist(), abs=1e-12)
        assert mean["mauc"] == pytest.approx(np.min(performance, axis=0)[0], abs=1e-12)
    # The evaluator stops at the machines; the headline is their mean.
    average = found.averages.iloc[0]
    assert average[["auc", "pauc"]].tolist() == pytest.approx(np.mean(averages, axis=0).tolist(), abs=1e-12)
    # Decisions have no place in 2020; their means are arithmetic, too.
    f1 = found.ids.groupby("machine")["f1"].mean()
    assert found.machines.set_index("machine")["f1"].to_dict() == pytest.approx(f1.to_dict(), abs=1e-12)
    assert average["f1"] == pytest.approx(f1.mean(), abs=1e-12)
    own = scored(clips).query("machine == 'fan'")
    pooled = roc_auc_score(own["label"] == "anomaly", own["score"])
    assert found.machines.set_index("machine").loc["fan", "pooled_auc"] == pytest.approx(pooled, abs=1e-12)


def evaluator_2022(team: Path, clips: list[Clip], machines: tuple[str, ...]) -> tuple[pd.DataFrame, float]:
    """What the official script prints for each section, and the official score."""
    lines = {}
    for machine in machines:
        for section in ("03", "04", "05"):
            name = f"{machine}_section_{section}_test.csv"
            y_pred, decision = (
                column(team / f"anomaly_score_{name}"),
                column(team / f"decision_result_{name}").astype(int),
            )
            y_true = labels_in_order(clips, machine, section, is_anomaly)
            y_domain = labels_in_order(clips, machine, section, lambda clip: int(clip.domain == "target"))
            line = {"pauc": roc_auc_score(y_true, y_pred, max_fpr=0.1)}
            for number, domain in enumerate(("source", "target")):
                keep = (y_domain == number) | (y_true != 0)
                own = y_domain == number
                line[f"auc {domain}"] = roc_auc_score(y_true[keep], y_pred[keep])
                _, fp, fn, tp = confusion_matrix(y_true[own], decision[own]).ravel()
                precision, recall = tp / max(tp + fp, EPSILON), tp / max(tp + fn, EPSILON)
                line[f"precision {domain}"], line[f"recall {domain}"] = precision, recall
                line[f"f1 {domain}"] = 2 * precision * recall / max(precision + recall, EPSILON)
            lines[machine, section] = line
    table = pd.DataFrame(lines).T
    values = table[["auc source", "auc target", "pauc"]].to_numpy()
    return table, float(scipy.stats.hmean(np.maximum(values, EPSILON), axis=None))


def test_the_evaluator_of_2022_gives_the_same_numbers(tmp_path: Path) -> None:
    machines = ("bearing", "valve")
    clips = clips_2022(machines)
    write_submission(tmp_path, scored(clips), "dcase2022")
    expected, score = evaluator_2022(tmp_path, clips, machines)
    found = official_metrics(label_scores(tmp_path, clips), resamples=0)
    rows = found.ids.set_index(["machine", "id", "domain"])
    for (machine, section), line in expected.iterrows():
        assert rows.loc[(machine, section, "all"), "pauc"] == pytest.approx(line["pauc"], abs=1e-12)
        for domain in ("source", "target"):
            for metric in ("auc", "precision", "recall", "f1"):
                value = rows.loc[(machine, section, domain), metric]
                assert value == pytest.approx(line[f"{metric} {domain}"], abs=1e-12)
    average = found.averages.iloc[0]
    assert average["auc_pauc"] == pytest.approx(score, abs=1e-12)

    def harmonic(table: pd.DataFrame, metric: str) -> float:
        both = table[[f"{metric} source", f"{metric} target"]].to_numpy()
        return float(scipy.stats.hmean(np.maximum(both, EPSILON), axis=None))

    for metric in ("auc", "precision", "recall", "f1"):
        assert average[metric] == pytest.approx(harmonic(expected, metric), abs=1e-12)
        for machine in machines:
            mean = found.machines.set_index("machine").loc[machine, metric]
            assert mean == pytest.approx(harmonic(expected.loc[[machine]], metric), abs=1e-12)
    for domain in ("source", "target"):
        assert average[f"auc_{domain}"] == pytest.approx(scipy.stats.hmean(expected[f"auc {domain}"]), abs=1e-12)


def test_a_team_that_calls_nothing_anomalous_has_the_official_floor(tmp_path: Path) -> None:
    clips = clips_2022()
    write_submission(tmp_path, scored(clips).assign(decision=0), "dcase2022")
    average = official_metrics(label_scores(tmp_path, clips), resamples=0).averages.iloc[0]
    assert average[["precision", "recall", "f1"]].tolist() == pytest.approx([EPSILON] * 3, rel=1e-9)


def test_rows_are_paired_by_name_whatever_their_order_and_folders(tmp_path: Path) -> None:
    clips = clips_2020()
    write_submission(tmp_path, scored(clips), "dcase2020")
    before = label_scores(tmp_path, clips)
    for path in tmp_path.glob("*.csv"):
        path.write_text("".join(f"somewhere/else/{line}\n" for line in reversed(path.read_text().splitlines())))
    pd.testing.assert_frame_equal(label_scores(tmp_path, clips), before)


def test_an_evaluation_clip_of_2022_has_two_names(tmp_path: Path) -> None:
    clips = clips_2022()
    write_submission(tmp_path, scored(clips), "dcase2022")
    before = label_scores(tmp_path, clips)
    for path in tmp_path.glob("*.csv"):
        path.write_text(path.read_text().replace("section_03_", "section_03_test_"))
    pd.testing.assert_frame_equal(label_scores(tmp_path, clips), before)
    path = tmp_path / "anomaly_score_valve_section_03_test.csv"
    path.write_text(path.read_text() + "section_03_0000.wav,1\n")
    with pytest.raises(AsdRayError, match=r"line 41: found a second score for valve/test/section_03_0000\.wav"):
        label_scores(tmp_path, clips)


def edit(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))


def test_names_that_are_missing_or_too_many_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    clips = clips_2020()
    write_submission(tmp_path, scored(clips), "dcase2020")
    path = tmp_path / "anomaly_score_fan_id_03.csv"
    whole = path.read_text()
    edit(path, lambda lines: lines[:-2])
    with pytest.raises(
        AsdRayError, match=r"no score for fan/test/id_03_00000028\.wav of fan 03 .*first of 2 such clips"
    ):
        label_scores(tmp_path, clips)
    path.write_text(whole)
    edit(path, lambda lines: [*lines, "id_03_99.wav,1", "x.wav,2"])
    with pytest.raises(
        AsdRayError, match=r"line 31: id_03_99\.wav \(the first of 2 such names\) is no test clip of fan"
    ):
        label_scores(tmp_path, clips)
    path.unlink()
    with pytest.raises(AsdRayError, match=r"no score for fan/test/id_03_00000000\.wav of fan 03 .*of 30 such"):
        label_scores(tmp_path, clips)
    path.with_name("anomaly_score_pump_id_03.csv").write_text(whole)
    with pytest.raises(AsdRayError, match=r"no test clips of pump 03; it has some of ToyCar 05, .*fan 05"):
        label_scores(tmp_path, clips)
    only = [clip for clip in clips if clip.machine == "ToyCar"]
    assert set(label_scores(tmp_path, only, ["ToyCar"])["machine"]) == {"ToyCar"}


def test_a_decision_is_needed_for_every_score_if_there_are_any(tmp_path: Path) -> None:
    clips = clips_2020()
    write_submission(tmp_path, scored(clips), "dcase2020")
    (tmp_path / "decision_result_fan_id_05.csv").unlink()
    with pytest.raises(AsdRayError, match=r"no decision for fan/test/id_05_00000000\.wav"):
        label_scores(tmp_path, clips)


def test_clips_without_labels_are_named(tmp_path: Path) -> None:
    clips = clips_2020()
    write_submission(tmp_path, scored(clips), "dcase2020")
    hidden = [Clip(c.path, c.machine, c.id, c.split, "unknown", part=c.part) if c.id == "05" else c for c in clips]
    with pytest.raises(AsdRayError, match=r"fan/test/id_05_0+\.wav \(the first of 60 such scored clips\): .* no label"):
        label_scores(tmp_path, hidden)


def test_a_part_without_any_score_is_left_out(tmp_path: Path) -> None:
    clips = clips_2020()
    development = [
        Clip(f"fan/test/{label}_id_00_{number}.wav", "fan", "00", "test", label, part="dev")
        for label in LABELS
        for number in range(4)
    ]
    write_submission(tmp_path, scored([*clips, *development]), "dcase2020")
    assert set(label_scores(tmp_path, [*clips, *development])["part"]) == {"eval"}
    own = official_metrics(label_scores(tmp_path / "development", [*clips, *development]), resamples=0)
    assert own.averages["split"].tolist() == ["dev"]
    # Both together: each part has its own averages, by the rule of its own domains.
    both = pd.concat([label_scores(folder, [*clips, *development]) for folder in (tmp_path, tmp_path / "development")])
    found = official_metrics(both, resamples=0).averages.set_index("split")
    assert found.loc["dev", "auc"] == pytest.approx(own.averages["auc"].iloc[0])
    mixed = pd.concat([both[both["part"] == "dev"], label_scores_2022(tmp_path)])
    assert official_metrics(mixed, resamples=0).averages.set_index("split").loc["dev", "auc"] == pytest.approx(
        own.averages["auc"].iloc[0]
    )


def label_scores_2022(folder: Path) -> pd.DataFrame:
    clips = clips_2022()
    write_submission(folder / "2022", scored(clips), "dcase2022")
    return label_scores(folder / "2022", clips)


def test_intervals_hold_the_value_and_are_the_same_again(tmp_path: Path) -> None:
    clips = clips_2020()
    write_submission(tmp_path, scored(clips), "dcase2020")
    labelled = label_scores(tmp_path, clips)
    first, second = official_metrics(labelled, resamples=200), official_metrics(labelled, resamples=200)
    for table in (first.ids, first.averages):
        assert (table["auc_low"] < table["auc"]).all()
        assert (table["auc"] < table["auc_high"]).all()
    pd.testing.assert_frame_equal(first.averages, second.averages)
    assert "auc_low" not in official_metrics(labelled, resamples=0).ids
