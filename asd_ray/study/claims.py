"""Turns: what several trials of a study want, one of them makes, and the others wait for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

SECONDS = 0.2  # between two looks for a file, which may be on storage that tells nobody of its changes


class Turns:
    """Who makes what; an actor of the study's driver, which tells it when a trial has ended, whatever the way."""

    def __init__(self) -> None:
        self.makers: dict[str, str] = {}

    async def take(self, path: str, trial: str) -> None:
        """Returns when the path is there, or when it is the trial's turn to make it."""
        while not Path(path).exists() and self.makers.setdefault(path, trial) != trial:
            await asyncio.sleep(SECONDS)

    async def ended(self, trial: str) -> None:
        """What the trial has not made is another's turn."""
        self.makers = {path: maker for path, maker in self.makers.items() if maker != trial}


def start_turns() -> Any:
    """The actor, which needs no core. One that is lost starts again; then a trial may make what another makes."""
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Turns).remote()


@dataclass(frozen=True)
class Turn:
    """A trial's way to :meth:`Turns.take`, for any process of the trial."""

    turns: Any
    trial: str

    def __call__(self, path: Path) -> None:
        ray.get(self.turns.take.remote(str(path), self.trial))
