from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from asd_ray.cli import terminal
from asd_ray.cli.terminal import ProgressBar, StudyView
from asd_ray.study.folder import TrialRecord
from asd_ray.study.progress import StudyProgress


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock's time, which the test sets."""
    time = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: time[0])
    return time


def test_a_pipe_gets_lines_of_what_ended_and_now_and_then_of_what_goes_on(now: list[float]) -> None:
    stream = io.StringIO()
    with StudyView(stream, "s") as view:
        progress = StudyProgress(view, total=2)
        progress.phase("computing features", 100)
        for done in (10, 20, 30):
            now[0] += 6.0
            progress.progress(done, 100)
        progress.trial_started(0, 0, {"method.pretrain.alpha": 0.4})
        progress.trial_progress(0, 0, {"stage": "pretrain", "epoch": 1, "epochs": 4, "loss": 2.0})
        progress.trial_finished(TrialRecord(0, {"method.pretrain.alpha": 0.4}, 0, "complete", 0.75, duration_s=3.0))
        progress.say("something [of] note")
    assert stream.getvalue().splitlines() == [
        "computing features: 20 of 100, about 48 s left",  # the first came too soon after the phase began
        "trial 0 complete: objective 75.00 (3 s)  alpha 0.4, about 3 s left",
        "something [of] note",
    ]


def test_the_picture_shows_trials_best_and_phase() -> None:
    view = StudyView(io.StringIO(), "s")
    progress = StudyProgress(view, total=3)

    def picture() -> str:
        console = Console(file=io.StringIO(), width=100)
        console.print(view.picture())
        return console.file.getvalue()  # type: ignore[attr-defined]

    progress.phase("starting Ray")
    assert "starting Ray" in picture()
    progress.trial_started(0, 0, {})
    progress.trial_finished(TrialRecord(0, {}, 0, "complete", 0.5, duration_s=3.0))
    progress.trial_started(1, 0, {"a.alpha": 0.2})
    assert "starting its workers" in picture()
    progress.trial_progress(1, 0, {"stage": "finetune", "epoch": 3, "epochs": 4})
    shown = picture()
    assert "1 of 3 trials ended, best so far trial 0 with objective 50.00" in shown
    assert "finetune, epoch 3 of 4" in shown
    assert "alpha 0.2" in shown


def test_a_progress_bar_goes_on_where_it_was_left() -> None:
    bar = ProgressBar("clips", io.StringIO())
    for done in (3, 10):
        with bar as update:
            update(done, 10)
    [task] = bar.bar.tasks
    assert (task.completed, task.total) == (10, 10)


def test_the_terminal_is_quiet_for_libraries_and_open_for_us(tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from asd_ray.cli.terminal import quiet_terminal
with quiet_terminal(Path({os.fspath(tmp_path)!r}) / "logs" / "ray.log") as terminal:
    print("from Python")
    os.write(2, b"from C\\n")
    terminal.write("to the terminal\\n")
print("afterwards")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("to the terminal\nafterwards\n", "")
    assert set((tmp_path / "logs" / "ray.log").read_text().splitlines()) == {"from Python", "from C"}
