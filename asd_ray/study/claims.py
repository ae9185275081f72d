"""Claims: one trial builds a shared artefact (features, a trained stage), and the other trials wait for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

SECONDS = 0.2  # between two checks whether a file exists


class Claims:
    """Which trial builds which path. An actor; the study's driver tells it when a trial has ended, in whatever way."""

    def __init__(self) -> None:
        self.builders: dict[str, str] = {}

    async def claim(self, path: str, trial: str) -> None:
        """Return when the path exists, or when the trial may build it."""
        while not Path(path).exists() and self.builders.setdefault(path, trial) != trial:
            await asyncio.sleep(SECONDS)

    async def ended(self, trial: str) -> None:
        """Free all that the trial has claimed. What it has not built, another trial may build."""
        self.builders = {path: builder for path, builder in self.builders.items() if builder != trial}


def start_claims() -> Any:
    """Start the actor; it reserves no core. If it is lost it starts again, and two trials may build the same."""
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Claims).remote()


@dataclass(frozen=True)
class Claim:
    """Calls :meth:`Claims.claim` for one trial, from any of its processes."""

    claims: Any
    trial: str

    def __call__(self, path: Path) -> None:
        ray.get(self.claims.claim.remote(str(path), self.trial))
