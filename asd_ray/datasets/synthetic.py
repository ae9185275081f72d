"""A synthetic data set: which recordings there are, how each is rendered, and their files.

Deterministic: a recording names everything that its sound depends on, so it comes out the same in any process and order.
It is a testbed: results on it say nothing about real machines.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.stats import qmc

from asd_ray.clips import stable_hash
from asd_ray.config import SyntheticConfig
from asd_ray.datasets.acoustics import Grid, Spectrum, factory, microphone, power, reflection, room, to_signal
from asd_ray.datasets.machines import MACHINES, Machine, Operation
from asd_ray.errors import AsdRayError

GENERATOR = 1
"""Version of the sounds: raised whenever a recording of the same name would sound different."""

IDS = {
    "dcase2020": ("00", "02", "04", "06", "01", "03", "05"),  # the development IDs first
    "dcase2022": ("00", "01", "02", "03", "04", "05", "06"),
}
SNR_DB = 6.0
LEVEL_DB = (-35.0, -31.0)  # RMS of a clip in dB of full scale; real clips of the public sets lie around -40
LEAK_DB = -12.0  # another machine of the hall, relative to the background
CHUNK = 16  # recordings per task

Chunk = Sequence["Recording"]
Run = Callable[[Callable[[Chunk], int], Iterable[Chunk]], Iterator[int]]


@dataclass(frozen=True)
class Recording:
    """One clip of the set, and all that its sound depends on.

    Attributes:
        path: relative to the set's root, with forward slashes.
        machine: machine type, a key of :data:`~asd_ray.datasets.machines.MACHINES`.
        id: ID (``dcase2020``) or section (``dcase2022``).
        split: ``train`` or ``test``.
        label: ``normal`` or ``anomaly``.
        domain: ``source``, ``target``, or ``none`` in the ``dcase2020`` layout.
        fault: kind, or empty for a normal clip.
        band: where the fault is heard, ``low`` or ``high``, or empty.
        severity: of the fault over 0 to 1, 0 for a normal clip.
        speed: relative to the machine's nominal speed.
        load: 0 idle to 1 full.
        snr_db: power of the healthy machine over that of the background.
        level_db: RMS of the clip in dB of full scale.
        individual: seed of the machine itself and of its place.
        seed: of everything that is random in this clip alone.
    """

    path: str
    machine: str
    id: str
    split: Literal["train", "test"]
    label: Literal["normal", "anomaly"]
    domain: str
    fault: str
    band: str
    severity: float
    speed: float
    load: float
    snr_db: float
    level_db: float
    individual: int
    seed: int


# --- Plan ------------------------------------------------------------------------------------------------------------


def plan(config: SyntheticConfig, layout: str = "dcase2020") -> list[Recording]:
    """The recordings of a set, in the order of machines and IDs.

    Within an ID and label, level, load, speed, SNR and severity are Latin hypercubes: each covers its range evenly
    for normal and for anomalous clips, so that neither loudness nor operation tells them apart, even in a small set.

    Raises:
        AsdRayError: an unknown layout, or more machine types or IDs than there are.
    """
    if layout not in IDS:
        raise AsdRayError(f"synthetic layout {layout!r}: expected one of {', '.join(IDS)}.")
    if config.machines > len(MACHINES) or config.ids > len(IDS[layout]):
        raise AsdRayError(
            f"synthetic set of {config.machines} machine types and {config.ids} IDs: there are at most "
            f"{len(MACHINES)} types ({', '.join(MACHINES)}) and {len(IDS[layout])} IDs of each."
        )
    recordings: list[Recording] = []
    for machine in list(MACHINES)[: config.machines]:
        for name in IDS[layout][: config.ids]:
            for split, label, domain, count in _strata(config, layout):
                recordings += _stratum(config, layout, machine, name, split, label, domain, count)
    return recordings


def _strata(
    config: SyntheticConfig, layout: str
) -> Iterator[tuple[Literal["train", "test"], Literal["normal", "anomaly"], str, int]]:
    """Split, label, domain and number of clips. 2022: a tenth of training is target, and half of the test."""
    if layout == "dcase2020":
        yield "train", "normal", "none", config.train
        yield "test", "normal", "none", config.test_normal
        yield "test", "anomaly", "none", config.test_anomaly
        return
    target = max(1, round(config.train / 10)) if config.train > 1 else 0
    yield "train", "normal", "source", config.train - target
    yield "train", "normal", "target", target
    for label, count in (("normal", config.test_normal), ("anomaly", config.test_anomaly)):
        yield "test", label, "source", count - count // 2  # type: ignore[misc]
        yield "test", label, "target", count // 2  # type: ignore[misc]


def _stratum(
    config: SyntheticConfig,
    layout: str,
    machine: str,
    name: str,
    split: Literal["train", "test"],
    label: Literal["normal", "anomaly"],
    domain: str,
    count: int,
) -> list[Recording]:
    key = (config.seed, layout, machine, name)
    rng = np.random.default_rng(stable_hash("stratum", *key, split, label, domain))
    faults = MACHINES[machine].faults
    kinds = (
        rng.permutation([list(faults)[i % len(faults)] for i in range(count)]) if label == "anomaly" else [""] * count
    )
    design = qmc.LatinHypercube(5, rng=rng).random(count) if count else np.empty((0, 5))
    recordings = []
    for index, (kind, (level, load, speed, snr, severity)) in enumerate(zip(kinds, design, strict=True)):
        shifted = domain == "target"
        load = float(0.6 + 0.4 * load if shifted else 0.7 * load if domain == "source" else load)
        speed = float((1.08 if shifted else 0.97) + 0.06 * speed)
        if layout == "dcase2020":
            path = f"{machine}/{split}/{label}_id_{name}_{index:08d}.wav"
        else:
            settings = f"spd_{round(100 * speed)}_load_{round(100 * load)}_mic_{1 + shifted}"
            path = f"{machine}/{split}/section_{name}_{domain}_{split}_{label}_{index:04d}_{settings}.wav"
        recordings.append(
            Recording(
                path=path,
                machine=machine,
                id=name,
                split=split,
                label=label,
                domain=domain,
                fault=str(kind),
                band=faults[kind].band if kind else "",
                severity=round(float(0.3 + 0.7 * severity), 3) if kind else 0.0,
                speed=round(speed, 4),
                load=round(load, 3),
                snr_db=round(float(getattr(config, "snr_db", SNR_DB) + 4 * snr - 2), 2),
                level_db=round(float(LEVEL_DB[0] + (LEVEL_DB[1] - LEVEL_DB[0]) * level), 2),
                individual=stable_hash("individual", config.seed, machine, name),
                seed=stable_hash("clip", *key, path),
            )
        )
    return recordings


# --- Sound -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _machine(machine: str, individual: int) -> Machine:
    return MACHINES[machine](np.random.default_rng(individual))


def _random(recording: Recording, part: str) -> np.random.Generator:
    return np.random.default_rng(stable_hash(recording.seed, part))


def render(recording: Recording, sample_rate: int = 16000, seconds: float = 10.0) -> NDArray[np.float32]:
    """The sound of a recording, (samples,) float32 within -1 to 1. A pure function of its arguments.

    Machine in its room, background at the recording's SNR (the SNR counts the healthy machine), another machine behind
    the wall, microphone; then the whole clip to the recording's level.
    """
    grid = Grid(sample_rate, round(sample_rate * seconds))
    rng = _random(recording, "scene")
    operation = Operation(
        grid,
        _random(recording, "machine"),
        _random(recording, "fault"),
        recording.speed,
        recording.load,
        recording.fault,
        recording.severity,
    )
    place = stable_hash("place", recording.individual, recording.domain == "target")
    machine = _machine(recording.machine, recording.individual).sound(operation)
    background = _background(recording, grid, place, rng)
    gain = np.sqrt(power(machine, grid, 60) / power(background, grid, 60) / 10 ** (recording.snr_db / 10))
    heard = (machine * room(place, 0.35, 0.5, grid) + gain * background) * reflection(grid, rng)
    signal = to_signal(heard * microphone(place, grid), grid)
    signal *= np.float32(10 ** (recording.level_db / 20)) / np.sqrt(np.mean(np.square(signal, dtype=np.float64)))
    return np.clip(signal, -1, 1).astype(np.float32)


def _background(recording: Recording, grid: Grid, place: int, rng: np.random.Generator) -> Spectrum:
    """(F,) the factory, and a machine of another type that leaks in through the wall."""
    hall = factory(grid, np.random.default_rng(place), rng)
    others = [name for name in MACHINES if name != recording.machine]
    other = others[place % len(others)]
    healthy = Operation(grid, rng, rng, float(rng.uniform(0.97, 1.03)), float(rng.uniform()))
    leak = _machine(other, stable_hash("leak", place)).sound(healthy) / (
        1 + 1j * np.arange(grid.samples // 2 + 1) / grid.seconds / 800
    )
    return hall + leak * np.sqrt(power(hall, grid) / power(leak, grid)) * 10 ** (LEAK_DB / 20)


# --- Files -----------------------------------------------------------------------------------------------------------


def write(root: Path, recording: Recording, sample_rate: int = 16000, seconds: float = 10.0) -> None:
    """Renders a recording to its 16-bit wav file below ``root``."""
    buffer = io.BytesIO()
    soundfile.write(buffer, render(recording, sample_rate, seconds), sample_rate, subtype="PCM_16", format="WAV")
    _replace(Path(root) / recording.path, buffer.getvalue())


def _replace(path: Path, content: bytes) -> None:
    """Writes beside and renames, so that a file is whole or not there."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise AsdRayError(f"{path}: cannot write the synthetic set here ({error.strerror}).") from None


def _write_chunk(chunk: Chunk, root: Path, sample_rate: int, seconds: float) -> int:
    for recording in chunk:
        write(root, recording, sample_rate, seconds)
    return len(chunk)


def synthesise(
    root: Path,
    config: SyntheticConfig,
    layout: str = "dcase2020",
    progress: Callable[[int, int], None] | None = None,
    run: Run | None = None,
) -> list[Recording]:
    """Writes the recordings of a set that are not there yet, ``faults.csv`` and ``synthetic.json``.

    Args:
        root: folder of the set: new, empty, or begun by an earlier call with the same ``config`` and ``layout``.
        progress: called with the numbers of recordings that are there and of all.
        run: ``(function, chunks) -> results in any order``, by which a caller renders in parallel; serial by default.

    Returns:
        All recordings of the set, written now or before.

    Raises:
        AsdRayError: the folder holds something else, or cannot be written.
    """
    root = Path(root)
    recordings = plan(config, layout)
    _claim(root, config, layout)
    rate, seconds = getattr(config, "sample_rate", 16000), getattr(config, "seconds", 10.0)
    size = 44 + 2 * round(rate * seconds)
    missing = [r for r in recordings if not _has_size(root / r.path, size)]
    chunks = [missing[i : i + CHUNK] for i in range(0, len(missing), CHUNK)]
    done = len(recordings) - len(missing)
    if progress:
        progress(done, len(recordings))
    for written in (run or map)(partial(_write_chunk, root=root, sample_rate=rate, seconds=seconds), chunks):
        done += written
        if progress:
            progress(done, len(recordings))
    _replace(root / "faults.csv", _faults_csv(recordings))
    if layout == "dcase2022":
        for (machine, name), members in _by_id(recordings).items():
            _replace(root / machine / f"attributes_{name}.csv", _attributes_csv(members))
    return recordings


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _claim(root: Path, config: SyntheticConfig, layout: str) -> None:
    """Marks a new folder as this set's, and refuses one that holds anything else."""
    mark = root / "synthetic.json"
    ours = {"generator": GENERATOR, "layout": layout, "config": config.model_dump(mode="json")}
    if not mark.exists():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise AsdRayError(
                f"{root}: there is something here that is no synthetic set (no synthetic.json); choose an empty or new folder."
            )
        _replace(mark, (json.dumps(ours, indent=2) + "\n").encode())
        return
    try:
        theirs = json.loads(mark.read_text(encoding="utf-8"))
        different = [key for key in ours if theirs.get(key) != ours[key]]
    except (OSError, ValueError, AttributeError):
        raise AsdRayError(f"{mark}: cannot be read as JSON; delete the folder {root} to make the set again.") from None
    if different:
        found = ", ".join(f"{key} {theirs.get(key)} instead of {ours[key]}" for key in different)
        raise AsdRayError(f"{root}: holds another synthetic set ({found}); choose another folder or delete this one.")


def _by_id(recordings: Iterable[Recording]) -> dict[tuple[str, str], list[Recording]]:
    groups: dict[tuple[str, str], list[Recording]] = {}
    for recording in recordings:
        groups.setdefault((recording.machine, recording.id), []).append(recording)
    return groups


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def _faults_csv(recordings: Iterable[Recording]) -> bytes:
    columns = ("path", "machine", "id", "fault", "band", "severity")
    assert set(columns) <= {field.name for field in fields(Recording)}
    return _csv(columns, ([getattr(r, name) for name in columns] for r in recordings if r.fault))


def _attributes_csv(recordings: Iterable[Recording]) -> bytes:
    """DCASE 2022's: file name, then pairs of parameter and value, which the file name has too."""
    rows = ([r.path, *Path(r.path).stem.split("_")[6:]] for r in recordings)
    return _csv(["file_name", "d1p", "d1v", "d2p", "d2v", "d3p", "d3v"], rows)
