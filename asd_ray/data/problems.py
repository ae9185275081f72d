"""Problems of a data set, in one form for the reader, the scan and ``data check``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from asd_ray.errors import AsdRayError

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    Attributes:
        severity: ``error`` would stop a study, ``warning`` may spoil its result, ``note`` is worth knowing.
        kind: short name for grouping (``truncated``, ``name``, ``length``).
        path: file or folder; relative to the data set's root in a scan or a report.
        what: what was found.
        expected: what was expected, and what to do.
    """

    severity: Severity
    kind: str
    path: str
    what: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; expected {self.expected}."

    def at(self, path: str) -> Problem:
        """Copy the problem with another path."""
        return replace(self, path=path)


class BadClip(AsdRayError):
    """An unusable recording; ``problem`` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)

    @property
    def problem(self) -> Problem:
        return self.args[0]


def bad_clip(kind: str, path: object, what: str, expected: str) -> BadClip:
    """Build the exception for a recording that would stop a study."""
    return BadClip(Problem("error", kind, str(path), what, expected))
