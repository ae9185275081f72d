"""Write files atomically, lock folders, and tell a full or failing disk from other errors."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from asd_ray.errors import AsdRayError, StorageError

log = logging.getLogger("asd_ray")

FULL = (errno.ENOSPC, errno.EDQUOT)
FAILING = (errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN)


def write_atomically(path: Path, write: Callable[[str], object]) -> None:
    """Call ``write`` with a path beside ``path`` and rename the result into place.

    Raises:
        StorageError: the disk is full or fails.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(os.fspath(beside))
        os.replace(beside, path)
    except Exception as error:
        raise storage_error(path, error) or error from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def write_folder_atomically(folder: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with an empty folder beside ``folder`` and rename it into place, over the old folder.

    For a moment between two renames there is no folder, but there is never half a folder.

    Raises:
        StorageError: the disk is full or fails.
    """
    beside, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{what}") for what in ("part", "old"))
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        write(beside)
        if folder.exists():
            folder.rename(old)
        beside.rename(folder)
    except Exception as error:
        raise storage_error(folder, error) or error from None
    finally:
        for left in (beside, old):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def alone(file: Path, what: str, patience: float = 0.0, say: Callable[[str], object] = log.warning) -> Iterator[None]:
    """Hold a lock until the block ends, so that two processes do not write the same files.

    The system releases the lock when the process ends, however it ends. On a file system without locks, nothing is
    locked.

    Args:
        file: the lock; its content says who holds it.
        what: what the other process does, for messages.
        patience: seconds to wait for the other process.
        say: called once with a message if there is a wait.

    Raises:
        AsdRayError: another process holds it.
    """
    deadline, told = time.monotonic() + patience, False
    with file.open("a+", encoding="utf-8") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                held.seek(0)
                other = f"{what} ({held.read().strip() or 'by another process'})"
                if time.monotonic() >= deadline:
                    raise AsdRayError(
                        f"{other}; wait for its end, or stop it, and run the same command again."
                    ) from None
                if not told:
                    say(f"{other}; waiting for its end for up to {patience:.0f} s.")
                    told = True
                time.sleep(0.2)
            except OSError:
                break
        with suppress(OSError):  # a full disk has no room for the name of the holder
            os.ftruncate(held.fileno(), 0)
            os.write(held.fileno(), f"process {os.getpid()} on {platform.node()}".encode())
        yield


def storage_error(path: Path, error: BaseException) -> StorageError | None:
    """Explain an error that storage has caused; None for any other error.

    Args:
        path: the file or folder that was being written.
        error: from Python, pyarrow, safetensors or SQLite. Libraries have the error's number in their text, or nowhere.
    """
    if isinstance(error, StorageError):
        return error
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := re.search(r"(?:os error|errno) (\d+)", text)):
        number = int(found[1])
    if number in FULL or "database or disk is full" in text:
        return StorageError(f"{path}: the disk is full; free some space and run the same command again.")
    if number in FAILING or "disk I/O error" in text or "readonly database" in text:
        reason = os.strerror(number) if number else "I/O error"
        return StorageError(f"{path}: the storage fails ({reason}); run the same command again when it works.")
    return None


def shown(path: Path) -> str:
    """A path as a person would type it: relative to the working folder if it lies in it."""
    path, here = path.resolve(), Path.cwd()
    return os.fspath(path.relative_to(here)) if path.is_relative_to(here) else os.fspath(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    write_atomically(path, lambda beside: Path(beside).write_text(text, encoding="utf-8"))
