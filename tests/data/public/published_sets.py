"""Small stand-ins for the published archives: the same names and shape, other recordings."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from asd_ray.data.public.registry import DCASE2020, Registry, RemoteFile
from tests.data.public.range_server import noise, zipped

CLIPS_2020 = {
    machine: {
        "dev": [f"train/normal_id_{dev}_00000000.wav", f"train/normal_id_{dev}_00000001.wav"]
        + [f"test/{label}_id_{dev}_{n:08d}.wav" for label in ("normal", "anomaly") for n in range(3)],
        "additional": [f"train/normal_id_{late}_00000000.wav"],
        "eval": [f"test/id_{late}_{n:08d}.wav" for n in range(4)],
    }
    for machine, dev, late in (("fan", "00", "01"), ("ToyCar", "02", "05"))
}
ANOMALOUS = {0, 3}
RECORDINGS_2020 = {
    f"{machine}/{name}": noise() for machine, parts in CLIPS_2020.items() for names in parts.values() for name in names
}


def published(registry: Registry, files: dict[str, bytes]) -> Registry:
    """The registry with the test files' sizes and MD5s, where the real one has them."""

    def as_served(file: RemoteFile) -> RemoteFile:
        content = files.get(f"{file.record}/{file.name}", b"")
        md5 = hashlib.md5(content).hexdigest() if file.md5 else None
        return replace(file, size=len(content) if file.size is not None else None, md5=md5)

    archives, lists = (tuple(map(as_served, group)) for group in (registry.archives, registry.ground_truth))
    return replace(registry, archives=archives, ground_truth=lists)


def files_2020() -> dict[str, bytes]:
    """Two machines of DCASE 2020: archives of the published names and shape, and the list of labels."""
    files = {}
    for file in DCASE2020.archives:
        if names := CLIPS_2020.get(str(file.machine), {}).get(file.part):
            members = {f"{file.machine}/{name}": RECORDINGS_2020[f"{file.machine}/{name}"] for name in names}
            files[f"{file.record}/{file.name}"] = zipped(members)
    lines = []
    for machine, late in (("fan", "01"), ("ToyCar", "05")):
        lines.append(machine)
        for n in range(4):
            label = "anomaly" if n in ANOMALOUS else "normal"
            lines.append(f"id_{late}_{n:08d}.wav,{label}_id_{late}_{n:08d}.wav,{int(n in ANOMALOUS)}")
    return files | {"3951620/eval_data_list.csv": "".join(line + "\n" for line in lines).encode()}
