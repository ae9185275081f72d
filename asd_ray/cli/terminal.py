"""What commands show while they work: a running study, a progress bar, and nothing of what libraries print."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from asd_ray.study.progress import StudyEvent

LINE_SECONDS = 10.0  # shortest time between two lines of progress where nothing is redrawn


@contextlib.contextmanager
def quiet_terminal(log_file: Path, stdout: bool = True) -> Iterator[IO[str]]:
    """Send what this process and Ray print to a file. Yields a stream that still reaches the terminal.

    The file descriptors are redirected, not only Python's streams, because Ray's C++ core writes to them.

    Args:
        log_file: what is printed is appended to it.
        stdout: the stream is standard output; else standard error, because a script reads standard output.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    terminal = os.fdopen(
        os.dup(saved[0 if stdout else 1]), "w", buffering=1, encoding=sys.stdout.encoding or "utf-8", errors="replace"
    )
    try:
        with log_file.open("ab", buffering=0) as sink:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
        yield terminal
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        terminal.close()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        os.close(saved[0])
        os.close(saved[1])


class ProgressBar:
    """A progress bar on standard error. As a context it yields its ``update``; it may be entered again.

    Args:
        what: is counted, such as ``clips``.
        stream: terminal to draw on instead.
    """

    def __init__(self, what: str, stream: IO[str] | None = None) -> None:
        console = Console(file=stream) if stream else Console(stderr=True)
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, transient=True)
        self.task = self.bar.add_task("", total=None)

    def update(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` are done."""
        self.bar.update(self.task, completed=done, total=total)

    def __enter__(self) -> Callable[[int, int], None]:
        self.bar.start()
        return self.update

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()


@dataclass
class _Trial:
    name: str
    values: str
    epoch: str = "starting its workers"


class StudyView:
    """Show a study's events: a picture that is redrawn in a terminal, lines in a pipe or a job's log.

    Args:
        stream: the terminal, or what takes its place.
        name: of the study.
    """

    def __init__(self, stream: IO[str], name: str) -> None:
        self.console = Console(file=stream, highlight=False)
        self.name = name
        self.started, self.last_line = time.monotonic(), 0.0
        self.phase = ""
        self.trials = ""
        self.running: dict[tuple[int, int], _Trial] = {}
        # What others write to Python's streams belongs in the log file, not above the picture.
        options: dict[str, Any] = {"transient": True, "redirect_stdout": False, "redirect_stderr": False}
        self.live = Live(get_renderable=self.picture, console=self.console, refresh_per_second=2, **options)

    def __enter__(self) -> StudyView:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.stop()

    def __call__(self, event: StudyEvent) -> None:
        """Show an event."""
        if event.trial is not None:
            self._follow_trial(event)
        if event.kind in ("phase", "step"):
            self.phase = event.text
        if event.kind == "phase":
            self.last_line = time.monotonic()
        elif event.kind in ("message", "trial_ended"):
            self._print(event.text)
        elif event.kind in ("step", "epoch") and not self.console.is_terminal:
            now = time.monotonic()
            if now - self.last_line >= LINE_SECONDS:
                self.last_line = now
                self._print(event.text)

    def _follow_trial(self, event: StudyEvent) -> None:
        from asd_ray.report.text import format_seconds
        from asd_ray.study.progress import format_epoch, format_values, trial_name

        key = (event.trial or 0, event.repeat)
        if event.kind == "trial_started":
            self.running[key] = _Trial(trial_name(*key), format_values(event.values))
        elif event.kind == "epoch":
            self.running[key].epoch = format_epoch(event.metrics)
        else:
            self.running.pop(key, None)
        self.trials = f"{event.done} of {event.total} trials ended"
        if event.best is not None:
            self.trials += (
                f", best so far trial {event.best.trial} with objective {100 * (event.best.objective or 0):.2f}"
            )
        if event.seconds_left is not None and event.seconds_left >= 1:
            self.trials += f", about {format_seconds(event.seconds_left)} left"

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def picture(self) -> Group:
        """What the terminal shows now."""
        from asd_ray.report.text import format_seconds

        elapsed = format_seconds(time.monotonic() - self.started)
        lines: list[Any] = [Text.assemble((f"study {self.name}", "bold"), f"  {elapsed}")]
        if self.trials:
            lines.append(Text(self.trials))
        if self.running:
            table = Table(box=None, pad_edge=False)
            for column in ("trial", "values", "now"):
                table.add_column(column, overflow="fold")
            for trial in list(self.running.values()):
                table.add_row(trial.name, trial.values, trial.epoch)
            lines.append(table)
        elif self.phase:
            lines.append(Text(self.phase))
        return Group(*lines)
