"""Which of the machines that a detector knows a recording is of, from the recording's path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asd_ray.datasets import dcase2020, dcase2022
from asd_ray.errors import ConfigError

# Folders between a machine's and its recordings that do not name the individual (the layouts folder and of 2021).
_NO_ID = {
    "train",
    "test",
    "source_test",
    "target_test",
    "normal",
    "anomaly",
    "anomalous",
    "abnormal",
    "source",
    "target",
}


def tell_class(path: Path, classes: Sequence[str], machine: str | None = None, machine_id: str | None = None) -> str:
    """Which of a detector's classes (``machine/id``) a recording belongs to.

    Its path says it where a folder is called like a machine of the detector and the ID is in the file's name (as in
    the DCASE sets) or in the folders below the machine's (as in the layout ``folder``). What the path does not say is
    taken from ``machine`` and ``machine_id``, and needs not be said where only one class is possible.

    Raises:
        ConfigError: it cannot be told, or the path says something else than ``machine`` and ``machine_id``.
    """
    told = _told(path, classes)
    asked = [name for name in classes if _is(name, machine, machine_id)]
    known = f"this detector knows {', '.join(name.replace('/', ' ') for name in classes)}"
    if told is not None and told not in asked:
        raise ConfigError(
            f"{path}: its path says {told.replace('/', ' ')}, --machine and --id say "
            f"{' '.join(filter(None, (machine, machine_id)))}; leave them out or move the file; {known}."
        )
    if told is not None:
        return told
    named = _id_in_name(path.stem)
    if machine_id is None and named is not None:
        asked = [name for name in asked if _is(name, None, named)]
    if len(asked) == 1:
        return asked[0]
    hint = f"its name says id {named}, no machine" if named else "its path does not say it"
    raise ConfigError(
        f"{path}: cannot tell which machine and ID it is of ({hint}); give --machine and --id as needed; {known}."
    )


def _is(name: str, machine: str | None, machine_id: str | None) -> bool:
    own_machine, own_id = name.split("/", 1)
    return machine in (None, own_machine) and machine_id in (None, own_id)


def _id_in_name(stem: str) -> str | None:
    for layout in (dcase2020, dcase2022):
        try:
            fields = layout.parse("test", stem)
        except ValueError:  # a training clip's name
            fields = layout.parse("train", stem)
        if fields is not None:
            return str(fields["id"])
    return None


def _told(path: Path, classes: Sequence[str]) -> str | None:
    machines = {name.split("/", 1)[0] for name in classes}
    folders = path.absolute().parts[:-1]
    for depth in range(len(folders) - 1, -1, -1):
        if folders[depth] in machines:
            below = "-".join(name.removeprefix("id_") for name in folders[depth + 1 :] if name.lower() not in _NO_ID)
            named = _id_in_name(path.stem)
            for machine_id in (named, below or ("00" if named is None else None)):
                if machine_id is not None and f"{folders[depth]}/{machine_id}" in classes:
                    return f"{folders[depth]}/{machine_id}"
    return None
