"""What Ray Train's controller tells Ray Tune of a trial. Its process imports this module and no other of ours: a trial
waits until it has started."""

from __future__ import annotations

import re
from typing import Any

from ray.tune.integration.ray_train import TuneReportCallback


class EpochReports(TuneReportCallback):
    """Tells Ray Tune of a trial's epochs, and of workers that were lost (``lost``)."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        lost = ", ".join(f"worker {rank} ({first_line(error)})" for rank, error in sorted(worker_exceptions.items()))
        self.after_report(run_context, [{"lost": lost}], None)


def first_line(error: object) -> str:
    """An error in one line of at most 300 characters: where and how a process died, without Ray's names for it and
    its guesses at the cause."""
    died = getattr(error, "health_check_failure", error)  # what Ray Train wraps in a description of the worker
    text = re.split("There are some potential root causes|Some common causes include", str(died))[0]
    text = re.sub(r"^\t(class_name|actor_id|name|namespace): .*\n", "", text, flags=re.MULTILINE)
    return " ".join(text.split())[:300].rstrip(".")
