from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from tensorboardX.proto import event_pb2

from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.trial_log import TrialLog, own_values

VALUES = {"method.pretrain.alpha": 0.25, "method.finetune.head": "arcface", "method.pretrain.balanced": None}


def epoch(number: int, stage: str = "pretrain", **more: object) -> dict[str, object]:
    """A result as Ray Tune hands it to callbacks."""
    own = {"stage": stage, "epoch": number, "epochs": 4, "loss": 2 / number, "samples_per_s": 126.4, "seconds": 2.06}
    tunes = {"pid": 11, "hostname": "node-1", "training_iteration": number, "done": False, "config": {}, "date": "x"}
    return {**own, **tunes, **more}


def lines(folder: StudyFolder, number: int, repeat: int = 0) -> list[str]:
    """The lines of a log without their times, which all have the same form."""
    text = (folder.trial(number, repeat) / "trial.log").read_text(encoding="utf-8")
    assert all(datetime.fromisoformat(line[:23]) and line[23] == " " for line in text.splitlines())
    return [line[24:] for line in text.splitlines()]


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """Tag, step and value of every scalar in a folder's event files (records: length, checksum, bytes, checksum)."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value if v.HasField("simple_value")]
    return found


def test_a_trials_course_is_told_line_by_line(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    log = TrialLog(folder)
    log.starts((3, 0), VALUES)
    log.epoch((3, 0), epoch(1))
    log.epoch((3, 0), epoch(2, knn_auc=0.6123, recalled=True))
    log.epoch((3, 0), {"objective": 0.7, "status": "complete", "pid": 11})  # the trial's last result is no epoch
    log.lost((3, 0), "the worker\ndied")
    log.starts((3, 0), VALUES)
    log.epoch((3, 0), epoch(3, "finetune"))
    log.ended(TrialRecord(3, VALUES, 7, "complete", 0.7013, epochs=3, duration_s=65.0))
    shown = "method.pretrain.alpha = 0.25, method.finetune.head = arcface, method.pretrain.balanced = None"
    assert lines(folder, 3) == [
        f"starts: {shown}",
        "runs on node-1, process 11",
        "pretrain, epoch 1 of 4, loss 2.000, 126 clips/s, 2.1 s",
        "pretrain, epoch 2 of 4, loss 1.000, k-NN AUC 61.23, 126 clips/s, 2.1 s (trained by an earlier trial)",
        "interrupted: the worker died; it goes on from its last checkpoint",
        f"starts again: {shown}",
        "runs on node-1, process 11",
        "finetune, epoch 3 of 4, loss 0.667, 126 clips/s, 2.1 s",
        "complete after 1 min 05 s: objective 70.13",
    ]
    assert log.writers == {}


@pytest.mark.parametrize(("status", "reason"), [("failed", "pretrain: loss is nan"), ("pruned", "stopped after 2")])
def test_a_trial_without_an_objective_ends_with_its_reason(tmp_path: Path, status: str, reason: str) -> None:
    folder = StudyFolder(tmp_path)
    log = TrialLog(folder)
    log.starts((0, 2), {})
    log.ended(TrialRecord(0, {}, 7, status, reason=reason, repeat=2, duration_s=3.0))
    assert lines(folder, 0, 2) == ["starts: the study file's own values", f"{status} after 3 s: {reason}"]
    assert scalars(folder.trial(0, 2)) == []


def test_curves_have_the_trials_own_metrics_by_epoch_over_interruptions(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    first = TrialLog(folder)
    first.epoch((3, 0), epoch(1, uniformity=float("nan")))
    first.lost((3, 0), "killed")
    again = TrialLog(folder)
    again.epoch((3, 0), epoch(2, "finetune", accuracy=0.5))
    again.ended(TrialRecord(3, VALUES, 7, "complete", 0.75, epochs=2))
    common = {("samples_per_s", 126.4), ("seconds", 2.06)}
    expected = {("pretrain/loss", 1, 2.0), *((f"pretrain/{name}", 1, value) for name, value in common)}
    expected |= {("finetune/loss", 2, 1.0), ("finetune/accuracy", 2, 0.5), ("objective", 2, 0.75)}
    expected |= {(f"finetune/{name}", 2, value) for name, value in common}
    found = scalars(folder.trial(3))
    assert {(tag, step) for tag, step, _ in found} == {(tag, step) for tag, step, _ in expected}
    assert sorted(value for *_, value in found) == pytest.approx(sorted(value for *_, value in expected))
    written = b"".join(path.read_bytes() for path in folder.trial(3).glob("events.*"))
    assert b"method.pretrain.alpha" in written  # the hyperparameters, for TensorBoard's HPARAMS page
    assert b"arcface" in written


def test_what_tune_adds_is_no_metric() -> None:
    assert own_values(epoch(1, parts=[1], recalled=True)) == {
        **{"stage": "pretrain", "epoch": 1, "epochs": 4, "loss": 2.0, "samples_per_s": 126.4, "seconds": 2.06},
        "recalled": True,
    }
