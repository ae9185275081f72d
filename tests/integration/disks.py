"""A small disk that a test may fill."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path


def mounted(folder: Path, size: str) -> bool:
    """Mounts an empty file system of a size; False where this user may not."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0


def fill(path: Path) -> None:
    """Writes a file until its disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
