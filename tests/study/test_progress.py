from __future__ import annotations

import logging
from pathlib import Path

import pytest

from asd_ray.report.text import format_seconds
from asd_ray.study import progress as live
from asd_ray.study.folder import TrialRecord
from asd_ray.study.progress import StudyEvent, StudyProgress, format_values


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_values_in_short() -> None:
    values = {"method.pretrain.alpha": 0.37444, "method.pretrain.queue_size": 4096, "a.encoder": "resnet18"}
    assert format_values(values) == "alpha 0.374  queue_size 4096  encoder resnet18"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(live.time, "monotonic", clock)
    return clock


def test_the_time_left_counts_waiting_and_running_trials(clock: Clock) -> None:
    progress = StudyProgress(None, total=10, concurrency=2)
    assert progress.seconds_left() is None
    progress.resume([TrialRecord(0, {}, 0, "complete", 0.5, duration_s=1.0)])  # an earlier run says nothing of this one
    assert progress.seconds_left() is None
    progress.trial_started(1, 0, {})
    progress.trial_started(2, 0, {})
    clock.now = 40.0
    progress.trial_finished(TrialRecord(1, {}, 0, "complete", 0.5, duration_s=40.0))
    progress.trial_started(3, 0, {})
    clock.now = 50.0
    # six wait (240 s), one runs since 50 s (0 s left), one since 10 s (30 s left), two at a time
    assert progress.seconds_left() == pytest.approx((6 * 40 + 0 + 30) / 2)


def test_a_listener_gets_events_and_the_log_gets_lines(clock: Clock, tmp_path: Path) -> None:
    events: list[StudyEvent] = []
    progress = StudyProgress(events.append, total=2)
    log_file = tmp_path / "logs" / "study.log"
    with progress.open(log_file):
        progress.phase("computing features", 100)
        for done in (10, 11, 20, 100):
            clock.now += 6.0 if done != 11 else 0.1
            progress.progress(done, 100)
        progress.trial_started(0, 0, {"method.pretrain.alpha": 0.4})
        epoch = {"stage": "pretrain", "epoch": 1, "epochs": 4, "loss": 2.0, "samples_per_s": 99.0}
        progress.trial_progress(0, 0, epoch)
        progress.trial_finished(TrialRecord(0, {"method.pretrain.alpha": 0.4}, 0, "complete", 0.75, duration_s=3.0))
        progress.trial_started(1, 0, {})
        progress.trial_finished(TrialRecord(1, {}, 0, "failed", reason="pretrain: loss is nan"))
        progress.trial_started(0, 2, {})
        progress.trial_finished(TrialRecord(0, {}, 0, "complete", 0.9, repeat=2))
        logging.getLogger("asd_ray").warning("left out: x.wav")
    kinds = ["phase", "step", "step", "step"]
    kinds += ["trial_started", "epoch", "trial_ended", *["trial_started", "trial_ended"] * 2, "message"]
    assert [event.kind for event in events] == kinds
    steps = [event for event in events if event.kind == "step"]
    assert [event.done for event in steps] == [10, 20, 100]  # 11 came too soon after 10
    assert str(steps[1]) == "computing features: 20 of 100, about 48 s left"
    [trained] = [event for event in events if event.kind == "epoch"]
    assert (trained.trial, trained.metrics, trained.done, trained.total) == (0, epoch, 0, 2)
    ended = [event for event in events if event.kind == "trial_ended"]
    assert str(ended[0]) == "trial 0 complete: objective 75.00 (3 s)  alpha 0.4, about 3 s left"
    assert str(ended[1]).startswith("trial 1 failed: pretrain: loss is nan")
    assert str(ended[2]).startswith("trial 0 (repeat 2) complete: objective 90.00")
    assert all(event.best is not None and event.best.objective == 0.75 for event in ended)
    assert ended[0].record is not None
    assert str(events[-1]) == "warning: left out: x.wav"
    logged = log_file.read_text()
    assert "INFO trial 0: pretrain, epoch 1 of 4, loss 2.000, 99 clips/s" in logged
    assert "WARNING left out: x.wav" in logged
    progress.say("after the end")
    assert "after the end" not in log_file.read_text()


def test_a_study_leaves_the_logger_as_it_was(tmp_path: Path) -> None:
    log = logging.getLogger("asd_ray")
    before = log.level, log.propagate, [*log.handlers]
    progress = StudyProgress(None, total=1)
    with progress.open(tmp_path / "study.log"):
        assert (log.level, log.propagate) == before[:2]
    assert (log.level, log.propagate, log.handlers) == before
