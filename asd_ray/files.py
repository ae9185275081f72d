"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from asd_ray.errors import AsdRayError


def write_atomically(path: Path, write: Callable[[str], object]) -> None:
    """Calls ``write`` with a path beside ``path`` and renames the result into place.

    Raises:
        AsdRayError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(os.fspath(beside))
        os.replace(beside, path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise AsdRayError(f"{path}: the disk is full; free some space and run the same command again.") from None
        raise
    finally:
        beside.unlink(missing_ok=True)


def write_folder_atomically(folder: Path, write: Callable[[Path], object]) -> None:
    """Calls ``write`` with an empty folder beside ``folder`` and renames it into place, over what was there.

    Between the two renames that this takes there is no folder for a moment, but never half of one.

    Raises:
        AsdRayError: the disk is full.
    """
    beside, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{what}") for what in ("part", "old"))
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        write(beside)
        if folder.exists():
            folder.rename(old)
        beside.rename(folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise AsdRayError(f"{folder}: the disk is full; free some space and run the same command again.") from None
        raise
    finally:
        for left in (beside, old):
            shutil.rmtree(left, ignore_errors=True)


def shown(path: Path) -> str:
    """A path as a person would type it: relative to the working folder if it lies in there."""
    path, here = path.resolve(), Path.cwd()
    return os.fspath(path.relative_to(here)) if path.is_relative_to(here) else os.fspath(path)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically, in UTF-8."""
    write_atomically(path, lambda beside: Path(beside).write_text(text, encoding="utf-8"))
