"""What can be wrong with a data set, told the same way by the reader, the scan and ``data check``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from asd_ray.errors import AsdRayError

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing found.

    Attributes:
        severity: ``error`` would stop a study, ``warning`` may spoil its result, ``note`` is worth knowing.
        kind: short name to group by (``truncated``, ``name``, ``length``).
        path: file or folder; relative to the data set's root in a scan or a report.
        what: what was found.
        expected: what was expected, and where it helps, what to do.
    """

    severity: Severity
    kind: str
    path: str
    what: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; expected {self.expected}."

    def at(self, path: str) -> Problem:
        """The same problem under another path."""
        return replace(self, path=path)


class BadClip(AsdRayError):
    """A recording that cannot be used; ``problem`` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)

    @property
    def problem(self) -> Problem:
        return self.args[0]


def bad_clip(kind: str, path: object, what: str, expected: str) -> BadClip:
    """The exception for a recording that would stop a study."""
    return BadClip(Problem("error", kind, str(path), what, expected))
