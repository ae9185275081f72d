"""Checkpoints of a run: one file per epoch, written atomically; the last two stay.

A checkpoint contains the best epoch of the current stage. With several workers each one saves its own part
(``rank_1.pt``: its memory bank), and the first saves everything that all share.
"""

from __future__ import annotations

import io
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from asd_ray.files import write_atomically

log = logging.getLogger("asd_ray")
KEEP = 2


class FileCheckpoints:
    """Checkpoints of a run with one worker, as files in a folder (see :class:`asd_ray.training.loop.Checkpoints`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self) -> dict[str, Any] | None:
        for path in reversed(self._files()):
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # a damaged file costs one epoch, not the run
                log.warning("%s: not a readable checkpoint (%s); taking the one before.", path, error)
        return None

    def save(self, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        path = self.folder / f"epoch_{metrics['epoch']:05d}.pt"
        content = _packed(state)
        write_atomically(path, lambda beside: Path(beside).write_bytes(content))
        for old in self._files()[:-KEEP]:
            old.unlink()

    def delete(self) -> None:
        """Remove all checkpoints: the run is complete and its detector saved."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("epoch_*.pt") if re.fullmatch(r"epoch_\d{5}\.pt", path.name))


def save_rank(folder: Path, rank: int, state: dict[str, Any]) -> None:
    """Write one worker's part of a checkpoint into a folder."""
    (folder / f"rank_{rank}.pt").write_bytes(_packed(state))


def load_rank(folder: Path, rank: int) -> dict[str, Any]:
    """Read one worker's state: the shared part, updated with its own."""
    state = torch.load(folder / "rank_0.pt", map_location="cpu", weights_only=True)
    own = folder / f"rank_{rank}.pt"
    if rank > 0 and own.exists():
        state["stage_state"].update(torch.load(own, map_location="cpu", weights_only=True)["stage_state"])
    return state


def _packed(state: dict[str, Any]) -> memoryview:
    """Serialise a state in memory first, so that a full disk gives a clear error."""
    content = io.BytesIO()
    torch.save(state, content)
    return content.getbuffer()
