"""Report the progress of a running study: to a callback, event by event, and to the study's log file."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from asd_ray.config import Scalar
from asd_ray.report.text import format_seconds
from asd_ray.study.folder import TrialRecord

log = logging.getLogger("asd_ray")
STEP_SECONDS = 1.0  # shortest time between two events of kind "step"
Kind = Literal["phase", "step", "message", "trial_started", "epoch", "trial_ended"]


@dataclass(frozen=True)
class StudyEvent:
    """One piece of news about a running study. ``str(event)`` is a line for a person.

    Attributes:
        kind: ``phase`` (a phase begins), ``step`` (part of a phase is done; at most one a second), ``message``,
            ``trial_started``, ``epoch`` (a trial has trained one), ``trial_ended``.
        text: one line that says it all.
        phase: the phase of the study, such as ``computing Log-Mel features``.
        done, total: steps of the phase, 0 of 0 where it has none. For events of trials: trials that have ended, and
            all that will run.
        seconds_left: estimated time to the end of the phase; None while it is unknown.
        trial, repeat: number of the trial, and of its repeat with another seed (0: the trial itself); None for events
            that are not about a trial.
        values: searched key -> value of the trial.
        metrics: what the epoch reported: ``stage``, ``epoch``, ``epochs``, ``loss``, ``samples_per_s``, ...
        record: how the trial ended.
        best: the best complete trial so far.
    """

    kind: Kind
    text: str
    phase: str = ""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    trial: int | None = None
    repeat: int = 0
    values: Mapping[str, Scalar] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    record: TrialRecord | None = None
    best: TrialRecord | None = None

    def __str__(self) -> str:
        return self.text


Listener = Callable[[StudyEvent], object]


class StudyProgress:
    """The state of a running study, told to a listener. Methods may be called from any thread.

    Args:
        listener: called with every event, one call at a time; an exception that it raises ends the study.
        total: trials, repeats included.
        concurrency: trials that run at the same time.
    """

    def __init__(self, listener: Listener | None, total: int, concurrency: int = 1) -> None:
        self.listener, self.total, self.concurrency = listener, total, concurrency
        self.finished: list[TrialRecord] = []
        self.best: TrialRecord | None = None
        self.running: dict[tuple[int, int], tuple[float, dict[str, Scalar]]] = {}
        """Trial and repeat -> when it started, and its values."""
        self._durations: list[float] = []
        self._phase, self._done, self._steps = "", 0, 0
        self._phase_started = self._last_step = time.monotonic()
        self._file: logging.Handler | None = None
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def open(self, log_file: Path) -> Iterator[StudyProgress]:
        """Write events to ``log_file``, and tell the package's warnings as messages, until the block ends.

        The logger ``asd_ray`` has one more handler meanwhile; its level and propagation do not change.
        """
        log_file.parent.mkdir(parents=True, exist_ok=True)
        self._file, warnings = logging.FileHandler(log_file, encoding="utf-8"), _Warnings(self)
        self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(warnings)
        try:
            yield self
        finally:
            log.removeHandler(warnings)
            file, self._file = self._file, None
            file.close()

    def resume(self, records: Iterable[TrialRecord]) -> None:
        """Take over the trials that ended in earlier runs of the study."""
        for record in records:
            self._add(record)

    def say(self, text: str) -> None:
        """Tell a message."""
        self._write(text)
        self._tell("message", text)

    def warn(self, text: str) -> None:
        """Tell a warning."""
        self._write(text, logging.WARNING)
        self._tell("message", f"warning: {text}")

    def phase(self, name: str, total: int = 0) -> None:
        """Begin a phase, of ``total`` steps if that is known."""
        self._phase, self._done, self._steps = name, 0, total
        self._phase_started = self._last_step = time.monotonic()
        self._write(name)
        self._tell("phase", name)

    def progress(self, done: int, total: int) -> None:
        """Tell how many steps of the phase are done."""
        self._done, self._steps = done, total
        now = time.monotonic()
        if now - self._last_step < STEP_SECONDS:
            return
        self._last_step = now
        left = (now - self._phase_started) * (total - done) / done if done else None
        self._tell("step", f"{self._phase}: {done} of {total}{_left(left)}", seconds_left=left)

    def trial_started(self, number: int, repeat: int, values: dict[str, Scalar]) -> None:
        self.running[number, repeat] = time.monotonic(), values
        text = f"trial {trial_name(number, repeat)} starts: {format_values(values)}"
        self._write(text)
        self._tell_trial("trial_started", text, number, repeat, values)

    def trial_progress(self, number: int, repeat: int, result: dict[str, Any]) -> None:
        """Tell the metrics of an epoch."""
        if (number, repeat) in self.running and "epoch" in result:
            text = f"trial {trial_name(number, repeat)}: {format_epoch(result)}"
            self._write(text)
            values, left = self.running[number, repeat][1], _left(self.seconds_left())
            self._tell_trial("epoch", text + left, number, repeat, values, metrics=result)

    def trial_finished(self, record: TrialRecord) -> None:
        self.running.pop((record.trial, record.repeat), None)
        self._add(record)
        self._durations.append(record.duration_s)
        what = f"objective {100 * record.objective:.2f}" if record.objective is not None else record.reason
        text = f"trial {trial_name(record.trial, record.repeat)} {record.status}: {what} ({record.duration_s:.0f} s)"
        text = f"{text}  {format_values(record.values)}{_left(self.seconds_left())}"
        self._write(text)
        self._tell_trial("trial_ended", text, record.trial, record.repeat, record.values, record=record)

    def seconds_left(self) -> float | None:
        """Estimate the time to the last trial's end from the mean duration of the trials that ended in this session."""
        if not self._durations:
            return None
        mean = sum(self._durations) / len(self._durations)
        waiting = self.total - len(self.finished) - len(self.running)
        now = time.monotonic()
        under_way = sum(max(mean - (now - started), 0.0) for started, _ in self.running.values())
        return (max(waiting, 0) * mean + under_way) / self.concurrency

    def _add(self, record: TrialRecord) -> None:
        self.finished.append(record)
        if record.objective is not None and not record.repeat:
            self.best = max(self.best or record, record, key=lambda one: one.objective or 0.0)

    def _tell(self, kind: Kind, text: str, **fields: Any) -> None:
        fields = {"phase": self._phase, "done": self._done, "total": self._steps, **fields}
        if self.listener is not None:
            with self._lock:
                self.listener(StudyEvent(kind, text, **fields))

    def _tell_trial(
        self, kind: Kind, text: str, number: int, repeat: int, values: Mapping[str, Scalar], **fields: Any
    ) -> None:
        fields |= {"done": len(self.finished), "total": self.total, "seconds_left": self.seconds_left()}
        self._tell(kind, text, trial=number, repeat=repeat, values=values, best=self.best, **fields)

    def _write(self, text: str, level: int = logging.INFO) -> None:
        if self._file is not None:
            self._file.handle(log.makeRecord(log.name, level, __file__, 0, text, (), None))


class _Warnings(logging.Handler):
    """Hand the package's warnings to a study's progress."""

    def __init__(self, progress: StudyProgress) -> None:
        super().__init__(logging.WARNING)
        self.progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self.progress.warn(record.getMessage())


def _left(seconds: float | None) -> str:
    return f", about {format_seconds(seconds)} left" if seconds is not None and seconds >= 1 else ""


def trial_name(number: int, repeat: int) -> str:
    """``3``, or ``3 (repeat 1)``."""
    return f"{number} (repeat {repeat})" if repeat else str(number)


def format_values(values: Mapping[str, Scalar]) -> str:
    """Searched values in short: the last part of each key, numbers to three digits."""
    return "  ".join(
        f"{key.rsplit('.', 1)[-1]} {value:.3g}" if isinstance(value, float) else f"{key.rsplit('.', 1)[-1]} {value}"
        for key, value in values.items()
    )


def format_epoch(epoch: Mapping[str, Any]) -> str:
    """Metrics of an epoch in a line: ``pretrain, epoch 3 of 10, loss 3.219, k-NN AUC 61.20, 126 clips/s``."""
    parts = [str(epoch["stage"]), f"epoch {epoch['epoch']} of {epoch['epochs']}"]
    shown = {"loss": "loss {:.3f}", "knn_auc": "k-NN AUC {:.2%}", "samples_per_s": "{:.0f} clips/s"}
    parts += [form.format(epoch[key]) for key, form in shown.items() if epoch.get(key) is not None]
    return ", ".join(parts).replace("%", "")
