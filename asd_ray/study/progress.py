"""What a running study shows: phases, trials, the best so far, the time left; in a terminal, and as lines in a log.

In a terminal one picture is redrawn in place. Elsewhere (a pipe, a cluster job) only changes are printed, as lines.
Everything is logged to ``logs/study.log`` as well.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from asd_ray.config import Scalar
from asd_ray.study.folder import TrialRecord

log = logging.getLogger("asd_ray")
LINE_SECONDS = 10.0  # a progress line at most this often where nothing is redrawn


@dataclass
class RunningTrial:
    number: int
    repeat: int
    values: dict[str, Scalar]
    started: float = field(default_factory=lambda: time.monotonic())
    epoch: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return _name(self.number, self.repeat)

    def line(self) -> str:
        return format_epoch(self.epoch) if self.epoch else "starting its workers"


class StudyView:
    """The live picture of one study. All methods are cheap and may be called from any thread."""

    def __init__(self, stream: IO[str], name: str, total: int, concurrency: int = 1) -> None:
        self.console = Console(file=stream, highlight=False)
        self.name, self.total, self.concurrency = name, total, concurrency
        self.phase_name, self.phase_done, self.phase_total = "", 0, 0
        self.phase_started = self.started = time.monotonic()
        self.last_line = 0.0
        self.running: dict[tuple[int, int], RunningTrial] = {}
        self.finished: list[TrialRecord] = []
        self.spent: list[float] = []
        self.where = ""

    @contextlib.contextmanager
    def open(self, log_file: Path) -> Iterator[StudyView]:
        """Shows the view, and sends the log to ``log_file`` (warnings also to the terminal), until the block ends."""
        log_file.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(log_file, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        warnings = _ConsoleHandler(self.console)
        level, propagate = log.level, log.propagate
        log.setLevel(logging.INFO)
        log.propagate = False
        log.addHandler(handler)
        log.addHandler(warnings)
        try:
            if self.console.is_terminal:
                # What others write to Python's streams belongs in the log file, not above the picture.
                with Live(
                    get_renderable=self._picture,
                    console=self.console,
                    refresh_per_second=2,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                ):
                    yield self
            else:
                yield self
        finally:
            log.removeHandler(handler)
            log.removeHandler(warnings)
            handler.close()
            log.setLevel(level)
            log.propagate = propagate

    def say(self, text: str) -> None:
        """A line that stays: above the picture in a terminal, and in the log."""
        log.info(text)
        self.console.print(text, markup=False, soft_wrap=True)

    def phase(self, name: str, total: int = 0) -> None:
        """Begins a phase, of ``total`` steps if that is known."""
        self.phase_name, self.phase_done, self.phase_total = name, 0, total
        self.phase_started = self.last_line = time.monotonic()
        log.info(name)

    def progress(self, done: int, total: int) -> None:
        """How far the phase is."""
        self.phase_done, self.phase_total = done, total
        self._line(self._phase_line())

    def trial_started(self, number: int, repeat: int, values: dict[str, Scalar]) -> None:
        trial = self.running[number, repeat] = RunningTrial(number, repeat, values)
        log.info("trial %s starts: %s", trial.name, format_values(values))

    def trial_progress(self, number: int, repeat: int, result: dict[str, Any]) -> None:
        trial = self.running.get((number, repeat))
        if trial is not None and "epoch" in result:
            trial.epoch = result
            log.info("trial %s: %s", trial.name, trial.line())
            self._line(f"trial {trial.name}: {trial.line()}{self._left()}")

    def trial_finished(self, record: TrialRecord) -> None:
        self.running.pop((record.trial, record.repeat), None)
        self.finished.append(record)
        self.spent.append(record.duration_s)
        what = f"objective {100 * record.objective:.2f}" if record.objective is not None else record.reason
        name = _name(record.trial, record.repeat)
        text = f"trial {name} {record.status}: {what} ({record.duration_s:.0f} s)"
        self.say(f"{text}  {format_values(record.values)}{self._left()}")

    def seconds_left(self) -> float | None:
        """Estimate from the mean duration of the trials that ended in this session."""
        if not self.spent:
            return None
        mean = sum(self.spent) / len(self.spent)
        waiting = self.total - len(self.finished) - len(self.running)
        now = time.monotonic()
        under_way = sum(max(mean - (now - trial.started), 0.0) for trial in self.running.values())
        return (max(waiting, 0) * mean + under_way) / self.concurrency

    def _left(self) -> str:
        left = self.seconds_left()
        return f", about {format_seconds(left)} left" if left is not None and left >= 1 else ""

    def _phase_line(self) -> str:
        if not self.phase_total:
            return self.phase_name
        elapsed = time.monotonic() - self.phase_started
        left = elapsed * (self.phase_total - self.phase_done) / self.phase_done if self.phase_done else None
        rest = f", {format_seconds(left)} left" if left is not None and left >= 1 else ""
        return f"{self.phase_name}: {self.phase_done} of {self.phase_total}{rest}"

    def _line(self, text: str) -> None:
        """A line of progress where no picture is redrawn, not more often than every few seconds."""
        now = time.monotonic()
        if not self.console.is_terminal and now - self.last_line >= LINE_SECONDS:
            self.last_line = now
            self.console.print(text, markup=False, soft_wrap=True)

    def _picture(self) -> Group:
        elapsed = format_seconds(time.monotonic() - self.started)
        head = Text.assemble((f"study {self.name}", "bold"), f"  {elapsed}  {self.where}")
        lines: list[Any] = [head]
        if self.running or self.finished:
            complete = [record for record in self.finished if record.objective is not None and not record.repeat]
            best = max(complete, key=lambda record: record.objective or 0.0, default=None)
            text = f"{len(self.finished)} of {self.total} trials ended"
            if best is not None:
                text += f", best so far trial {best.trial} with objective {100 * (best.objective or 0):.2f}"
            lines.append(Text(text + self._left()))
            table = Table(box=None, pad_edge=False)
            for column in ("trial", "values", "now"):
                table.add_column(column, overflow="fold")
            for trial in list(self.running.values()):
                table.add_row(trial.name, format_values(trial.values), trial.line())
            if self.running:
                lines.append(table)
        if self.phase_name and not self.running:
            lines.append(Text(self._phase_line()))
        return Group(*lines)


class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(f"{record.levelname.lower()}: {record.getMessage()}", markup=False, soft_wrap=True)


def _name(number: int, repeat: int) -> str:
    return f"{number} (repeat {repeat})" if repeat else str(number)


def format_values(values: dict[str, Scalar]) -> str:
    """Searched values in short: the last part of each key, numbers to three digits."""
    return "  ".join(
        f"{key.rsplit('.', 1)[-1]} {value:.3g}" if isinstance(value, float) else f"{key.rsplit('.', 1)[-1]} {value}"
        for key, value in values.items()
    )


def format_epoch(epoch: Mapping[str, Any]) -> str:
    """``pretrain, epoch 3 of 10, loss 3.219, k-NN AUC 61.20, 126 clips/s``, of what the epoch reported."""
    parts = [str(epoch["stage"]), f"epoch {epoch['epoch']} of {epoch['epochs']}"]
    shown = {"loss": "loss {:.3f}", "knn_auc": "k-NN AUC {:.2%}", "samples_per_s": "{:.0f} clips/s"}
    parts += [form.format(epoch[key]) for key, form in shown.items() if epoch.get(key) is not None]
    return ", ".join(parts).replace("%", "")


def format_seconds(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 05 min``."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"
