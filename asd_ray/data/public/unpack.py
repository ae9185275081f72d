"""Unpack a downloaded archive without trusting it: nothing is written outside the target."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from asd_ray.errors import AsdRayError
from asd_ray.files import storage_error

MAX_MEMBERS = 100_000
MAX_RATIO = 100
"""Largest allowed ratio of unpacked to packed size (the DCASE archives: 1.1 to 1.4)."""

_SMALL = 1 << 20  # bytes allowed at any ratio
_BLOCK = 1 << 20
_REFUSED = "the archive is refused; delete it to fetch it again"

log = logging.getLogger("asd_ray")


class CorruptedFile(AsdRayError):
    """A downloaded file differs from the published one; fetching it again may help."""


@contextmanager
def explain_storage_errors(path: Path) -> Iterator[None]:
    """Turn the system's error about a full or failing disk into a ``StorageError``."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) or error from None


def require_space(folder: Path, needed: float, purpose: str) -> None:
    """Raise AsdRayError unless ``folder``'s file system has ``needed`` bytes left."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise AsdRayError(
            f"{folder}: {purpose} needs {needed / 1e6:,.1f} MB of disk space, but {free / 1e6:,.1f} MB are free; "
            "free some space or choose another folder."
        )


def unpack(
    archive: Path, target: Path, folder: str, report: Callable[[int, int], None] | None = None
) -> dict[str, int]:
    """Unpack the members in a zip file's top folder ``folder`` to ``target/folder``.

    All names are checked before the first byte is written. A member gets its final name once its CRC-32 is verified.
    Files that already have the right size and CRC-32 are kept.

    Args:
        report: called with (bytes unpacked or found, bytes of all members).

    Returns:
        Member (path relative to ``target``) -> size in bytes, without directories.

    Raises:
        CorruptedFile: not a zip file, truncated, or a wrong checksum.
        AsdRayError: a member outside the target, a link, an encrypted member, too many members, too much data for the
            archive's size, nothing in ``folder``, no space left.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _members(archive, opened)
            wanted = {name: info for name, info in members.items() if name.startswith(f"{folder}/")}
            if not wanted:
                found = f"{next(iter(members))!r} first" if members else "nothing"
                raise AsdRayError(f"{archive}: found {found} in the archive; expected recordings under {folder}/.")
            if left_out := len(members) - len(wanted):
                log.warning("%s: %d members outside %s/ are left out", archive, left_out, folder)
            _check_parents(archive, target, wanted)
            missing = {name: info for name, info in wanted.items() if not _is_there(target / name, info)}
            require_space(archive.parent, sum(info.file_size for info in missing.values()), f"unpacking {archive.name}")
            total = sum(info.file_size for info in wanted.values())
            done = total - sum(info.file_size for info in missing.values())
            for name, info in missing.items():
                _write(archive, opened, info, target / name)
                done += info.file_size
                if report:
                    report(done, total)
            return {name: info.file_size for name, info in wanted.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise CorruptedFile(f"{archive}: the archive is damaged ({error}).") from None
    except OSError as error:
        if error.errno == errno.EINVAL:  # an invalid offset in the archive
            raise CorruptedFile(f"{archive}: the archive is damaged ({error.strerror}).") from None
        raise AsdRayError(f"{archive}: cannot be unpacked to {target} ({error}).") from None
    except NotImplementedError as error:
        raise AsdRayError(
            f"{archive}: Python cannot unpack this archive ({error}); unpack it with another program into {target}."
        ) from None


def has_size(path: Path, size: int) -> bool:
    """True for a regular file (no link) of that size."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def _is_there(path: Path, info: zipfile.ZipInfo) -> bool:
    if not has_size(path, info.file_size):
        return False
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc == info.CRC


def _members(archive: Path, opened: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """List the archive's files by their checked names."""
    infos = opened.infolist()
    if len(infos) > MAX_MEMBERS:
        raise AsdRayError(f"{archive}: found {len(infos)} members; expected at most {MAX_MEMBERS}: {_REFUSED}.")
    total, packed = sum(info.file_size for info in infos), archive.stat().st_size
    if total > max(MAX_RATIO * packed, _SMALL):
        raise AsdRayError(
            f"{archive}: {packed} bytes claim to unpack to {total}; expected at most {MAX_RATIO} times as much: "
            f"{_REFUSED}."
        )
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if problem := _problem(info):
            raise AsdRayError(f"{archive}: member {info.orig_filename!r} {problem}: {_REFUSED}.")
        name = PurePosixPath(info.filename).as_posix()
        if info.is_dir():
            continue
        if name in members:
            raise AsdRayError(f"{archive}: member {name!r} is there twice: {_REFUSED}.")
        members[name] = info
    for name in members:
        if inside := [str(parent) for parent in PurePosixPath(name).parents if str(parent) in members]:
            raise AsdRayError(f"{archive}: member {inside[0]!r} is a file and a folder: {_REFUSED}.")
    return members


def _problem(info: zipfile.ZipInfo) -> str | None:
    """Name what is wrong with a member's name or kind. Windows' rules apply everywhere: data sets move around."""
    name = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if "\\" in name or "\0" in name:
        return "has a backslash or a null byte in its name"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "has an absolute path"
    if ".." in name.split("/"):
        return "leaves the target folder"
    if not PurePosixPath(name).parts:
        return "has no name"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if info.flag_bits & 0x1:
        return "is encrypted"
    return None


def _check_parents(archive: Path, target: Path, names: dict[str, zipfile.ZipInfo]) -> None:
    """Refuse links in the target that lead a member out of it."""
    root = target.resolve()
    for parent in {PurePosixPath(name).parent for name in names}:
        if (target / parent).resolve() != root / parent:
            raise AsdRayError(
                f"{target / parent}: is or is below a symbolic link; {archive.name} is not unpacked there."
            )


def _write(archive: Path, opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    beside = path.with_name(f".{path.name}.part")
    with explain_storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        try:
            with opened.open(info) as source, beside.open("xb") as out:
                shutil.copyfileobj(source, out, _BLOCK)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
