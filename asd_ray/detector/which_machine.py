"""Which of the machines that a detector knows a recording is of, from the recording's path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from asd_ray.errors import ConfigError

_NAMED = re.compile(r"(?:(?:normal|anomaly)_)?(?:id|section)_([0-9]{2})_")  # as DCASE 2020, 2021 and later name files
_NO_ID = re.compile("train|test|source_test|target_test|normal|anomaly|anomalous|abnormal|source|target", re.IGNORECASE)


def tell_group(path: Path, groups: Sequence[str], machine: str | None = None, machine_id: str | None = None) -> str:
    """Which of a detector's machines and IDs (``machine/id``) a recording is of.

    The machine is the nearest folder that is called like one of the detector's. The ID is in the file's name, as in
    the DCASE sets, or in the folders below the machine's, as in the layout ``folder``. What the path does not say is
    taken from ``machine`` and ``machine_id``, and need not be said where only one is left. An ID in the name that
    the detector does not know is none of its, unless ``machine_id`` says which to take.

    Raises:
        ConfigError: it cannot be told, or the path says something else than ``machine`` and ``machine_id``.
    """
    known = f"this detector knows {', '.join(name.replace('/', ' ') for name in groups)}"
    own_machine, own_id = _said(path, groups)
    told = f"{own_machine}/{own_id}"
    if told in groups:
        if machine not in (None, own_machine) or machine_id not in (None, own_id):
            raise ConfigError(
                f"{path}: its path says {told.replace('/', ' ')}, --machine and --id say "
                f"{' '.join(filter(None, (machine, machine_id)))}; leave them out or move the file; {known}."
            )
        return told
    own_machine, own_id = machine or own_machine, machine_id or own_id
    left = [name for name in groups if _fits(name, own_machine, own_id)]
    if len(left) == 1:
        return left[0]
    found = [f"{what} {value}" for what, value in (("machine", own_machine), ("id", own_id)) if value]
    raise ConfigError(
        f"{path}: cannot tell which machine and ID it is of (found {', '.join(found) or 'neither'}); give --machine "
        f"and --id as needed; {known}."
    )


def _fits(name: str, machine: str | None, machine_id: str | None) -> bool:
    own_machine, own_id = name.split("/", 1)
    return machine in (None, own_machine) and machine_id in (None, own_id)


def _said(path: Path, groups: Sequence[str]) -> tuple[str | None, str | None]:
    """Machine and ID as far as the path says them."""
    match = _NAMED.match(path.name)
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
