"""Infer a recording's machine and ID from its path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from asd_ray.errors import ConfigError

_FILE_ID = re.compile(r"(?:(?:normal|anomaly)_)?(?:id|section)_([0-9]{2})_")  # file names of DCASE 2020, 2021 and later
_NO_ID = re.compile("train|test|source_test|target_test|normal|anomaly|anomalous|abnormal|source|target", re.IGNORECASE)


def infer_group(path: Path, groups: Sequence[str], machine: str | None = None, id: str | None = None) -> str:
    """Infer a recording's machine and ID from its path.

    The machine is the nearest folder with the name of a machine that the detector knows. The ID is in the file's name,
    as in the DCASE sets, or in the folders below the machine's, as in the layout ``folder``. What the path does not
    name is taken from ``machine`` and ``id``, or is clear because only one group is left. A file name may have an ID
    that the detector does not know: then ``id`` must say which one to use.

    Args:
        path: of the recording.
        groups: the machines and IDs that the detector knows, as ``machine/id``.
        machine, id: what the path does not name.

    Returns:
        One of ``groups``.

    Raises:
        ConfigError: several groups are left or none, or the path contradicts ``machine`` and ``id``.
    """
    known = f"this detector knows {', '.join(name.replace('/', ' ') for name in groups)}"
    own_machine, own_id = _named_by(path, groups)
    named = f"{own_machine}/{own_id}"
    if named in groups:
        if machine not in (None, own_machine) or id not in (None, own_id):
            raise ConfigError(
                f"{path}: its path says {named.replace('/', ' ')}, --machine and --id say "
                f"{' '.join(filter(None, (machine, id)))}; leave them out or move the file; {known}."
            )
        return named
    own_machine, own_id = machine or own_machine, id or own_id
    left = [name for name in groups if _fits(name, own_machine, own_id)]
    if len(left) == 1:
        return left[0]
    found = [f"{what} {value}" for what, value in (("machine", own_machine), ("id", own_id)) if value]
    raise ConfigError(
        f"{path}: cannot tell which machine and ID it is of (found {', '.join(found) or 'neither'}); give --machine "
        f"and --id as needed; {known}."
    )


def _fits(name: str, machine: str | None, id: str | None) -> bool:
    own_machine, own_id = name.split("/", 1)
    return machine in (None, own_machine) and id in (None, own_id)


def _named_by(path: Path, groups: Sequence[str]) -> tuple[str | None, str | None]:
    """The machine and the ID that the path names; None for what it does not name."""
    match = _FILE_ID.match(path.name)
    named = match[1] if match else None
    machines = {name.split("/", 1)[0] for name in groups}
    folders = path.absolute().parts[:-1]
    depth = max((depth for depth, folder in enumerate(folders) if folder in machines), default=None)
    if depth is None:
        return None, named
    below = "-".join(folder.removeprefix("id_") for folder in folders[depth + 1 :] if not _NO_ID.fullmatch(folder))
    if f"{folders[depth]}/{named}" not in groups and f"{folders[depth]}/{below}" in groups:
        return folders[depth], below
    return folders[depth], named
