"""Infer a recording's machine, ID, label and fault from its path and the data set's side files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from asd_ray.data.clips import Clip
from asd_ray.data.layouts import dcase2020, dcase2022, folder
from asd_ray.data.side_files import Fault, read_faults, read_labels
from asd_ray.errors import AsdRayError


@dataclass(frozen=True)
class Caption:
    """A recording's identity; ``clip`` is None if its machine is unknown."""

    path: Path
    clip: Clip | None = None
    fault: Fault | None = None

    def __str__(self) -> str:
        """Machine, ID, label, fault and domain above the file name; the file name alone for an unknown machine."""
        if self.clip is None:
            return self.path.name
        label = "label not known" if self.clip.label == "unknown" else self.clip.label
        domain = "" if self.clip.domain == "none" else f", {self.clip.domain} domain"
        return f"{self.clip.machine} {self.clip.id}, {label}{self._kind()}{domain}\n{self.path.name}"

    def _kind(self) -> str:
        if self.fault is None:
            return ""
        severity = f"severity {self.fault.severity}" if self.fault.severity else ""
        known = ", ".join(filter(None, [self.fault.band, severity]))
        return f": {self.fault.kind}" + (f" ({known})" if known else "")


def caption(path: Path) -> Caption:
    """Build a recording's caption.

    Sources: a path ``<machine>/<train or test>/<name of DCASE 2020 or 2022>``, with hidden labels from
    ``test_labels.csv``; else a ``clips.csv`` in a folder above. ``faults.csv`` at the root adds the fault.

    Raises:
        AsdRayError: ``test_labels.csv`` or ``faults.csv`` is invalid.
    """
    absolute = path.absolute()
    root, clip = _from_name(absolute) or _from_list(absolute) or (absolute.parent, None)
    fault = read_faults(root).get(absolute.relative_to(root).as_posix())
    return Caption(path, clip, fault)


def _from_name(path: Path) -> tuple[Path, Clip] | None:
    """Find the data set's root and the clip if folder and name match a DCASE layout."""
    split, machine = path.parent, path.parent.parent
    for reader in (dcase2020, dcase2022):
        if split.name not in reader.FOLDERS or not machine.name:
            continue
        try:
            fields = reader.parse(split.name, path.stem)
        except ValueError:  # the name contradicts the folder: trust neither
            return None
        if fields is None:
            continue
        clip = Clip(path=f"{machine.name}/{split.name}/{path.name}", machine=machine.name, **fields)
        label, domain = read_labels(machine, reader.key).get(reader.key(path.stem), (clip.label, clip.domain))
        if clip.label == "unknown" and clip.split == "test":
            clip = replace(clip, label=label, domain=domain if clip.domain == "none" else clip.domain)  # type: ignore[arg-type]
        return machine.parent, clip
    return None


def _from_list(path: Path) -> tuple[Path, Clip] | None:
    for root in path.parents:
        if not (root / folder.LIST).is_file():
            continue
        try:
            clips, _ = folder.find(root)
        except AsdRayError:
            continue  # another kind of file with that name
        for clip in clips:
            if root / clip.path == path:
                return root, clip
    return None
