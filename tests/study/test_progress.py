from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest

from asd_ray.study import progress as live
from asd_ray.study.folder import TrialRecord
from asd_ray.study.progress import StudyView, format_seconds, format_values


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
    view = StudyView(io.StringIO(), "s", total=10, concurrency=2)
    assert view.seconds_left() is None
    view.finished = [TrialRecord(0, {}, 0, "complete", 0.5, duration_s=1.0)]  # of an earlier run: says nothing of now
    assert view.seconds_left() is None
    view.trial_started(1, 0, {})
    view.trial_started(2, 0, {})
    clock.now = 40.0
    view.trial_finished(TrialRecord(1, {}, 0, "complete", 0.5, duration_s=40.0))
    view.trial_started(3, 0, {})
    clock.now = 50.0
    # six wait (240 s), one runs since 50 s (0 s left), one since 10 s (30 s left), two at a time
    assert view.seconds_left() == pytest.approx((6 * 40 + 0 + 30) / 2)


def test_a_pipe_gets_lines_and_the_log_gets_everything(clock: Clock, tmp_path: Path) -> None:
    stream = io.StringIO()
    view = StudyView(stream, "s", total=2)
    log_file = tmp_path / "logs" / "study.log"
    with view.open(log_file):
        view.phase("computing features", 100)
        for done in (10, 20, 100):
            clock.now += 6.0
            view.progress(done, 100)
        view.trial_started(0, 0, {"method.pretrain.alpha": 0.4})
        view.trial_progress(0, 0, {"stage": "pretrain", "epoch": 1, "epochs": 4, "loss": 2.0, "samples_per_s": 99.0})
        view.trial_finished(TrialRecord(0, {"method.pretrain.alpha": 0.4}, 0, "complete", 0.75, duration_s=3.0))
        view.trial_started(1, 0, {})
        view.trial_finished(TrialRecord(1, {}, 0, "failed", reason="pretrain: loss is nan"))
        view.trial_started(0, 2, {})
        view.trial_finished(TrialRecord(0, {}, 0, "complete", 0.5, repeat=2))
        logging.getLogger("asd_ray").warning("left out: x.wav")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "computing features: 20 of 100, 48 s left"  # the first came too soon after the phase began
    assert "trial 0 complete: objective 75.00 (3 s)  alpha 0.4, about 3 s left" in lines
    assert any(line.startswith("trial 1 failed: pretrain: loss is nan") for line in lines)
    assert any(line.startswith("trial 0 (repeat 2) complete: objective 50.00") for line in lines)
    assert lines[-1] == "warning: left out: x.wav"
    logged = log_file.read_text()
    assert "trial 0: pretrain, epoch 1 of 4, loss 2.000, 99 clips/s" in logged
    assert "WARNING left out: x.wav" in logged
    view.say("after the end")
    assert "after the end" not in log_file.read_text()


def test_the_picture_shows_trials_best_and_phase(clock: Clock) -> None:
    from rich.console import Console

    view = StudyView(io.StringIO(), "s", total=3)

    def picture() -> str:
        console = Console(file=io.StringIO(), width=100)
        console.print(view._picture())
        return console.file.getvalue()  # type: ignore[attr-defined]

    view.phase("starting Ray")
    assert "starting Ray" in picture()
    view.trial_started(0, 0, {})
    view.trial_finished(TrialRecord(0, {}, 0, "complete", 0.5, duration_s=3.0))
    view.trial_started(1, 0, {"a.alpha": 0.2})
    assert "starting its workers" in picture()
    view.trial_progress(1, 0, {"stage": "finetune", "epoch": 3, "epochs": 4})
    shown = picture()
    assert "1 of 3 trials ended, best so far trial 0 with objective 50.00" in shown
    assert "finetune, epoch 3 of 4" in shown
    assert "alpha 0.2" in shown
