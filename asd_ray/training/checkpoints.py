"""A run's state on disk: one file per epoch, written beside and renamed, the last two kept. The best epoch of the stage
in training is part of each.

With several workers every one keeps what is its own (``rank_1.pt``: its memory bank); the first keeps all the rest.
"""

from __future__ import annotations

import io
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from pyarrow.fs import FileSystem

from asd_ray.files import write_atomically

log = logging.getLogger("asd_ray")
KEEP = 2


class FileCheckpoints:
    """Checkpoints of a run with one worker, as files of a folder (see :class:`asd_ray.training.loop.Checkpoints`)."""

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
        """Removes all checkpoints: the run is complete and its detector saved."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("epoch_*.pt") if re.fullmatch(r"epoch_\d{5}\.pt", path.name))


def save_rank(filesystem: FileSystem, folder: str, rank: int, state: dict[str, Any]) -> None:
    """Writes one worker's part of a checkpoint folder, which is made if it is not there."""
    filesystem.create_dir(folder)
    with filesystem.open_output_stream(f"{folder}/rank_{rank}.pt") as stream:
        stream.write(_packed(state))


def load_rank(folder: Path, rank: int) -> dict[str, Any]:
    """One worker's whole state: what all share, with its own part over it."""
    state = torch.load(folder / "rank_0.pt", map_location="cpu", weights_only=True)
    own = folder / f"rank_{rank}.pt"
    if rank > 0 and own.exists():
        state["stage_state"].update(torch.load(own, map_location="cpu", weights_only=True)["stage_state"])
    return state


def _packed(state: dict[str, Any]) -> memoryview:
    """What :func:`torch.save` makes of a state: writing to a full disk itself, it would not say what is wrong."""
    content = io.BytesIO()
    torch.save(state, content)
    return content.getbuffer()
