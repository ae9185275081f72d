"""A synthetic data set: plan of its recordings, their sound, and their files.

Deterministic: a ``Recording`` holds everything that its sound depends on, so it is the same in any process and order.
The set is a testbed: results on it say nothing about real machines. ``bench.calibration`` measures how hard it is.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from asd_ray.config import SyntheticConfig
from asd_ray.data.clips import stable_hash
from asd_ray.data.side_files import csv_text
from asd_ray.data.synthetic.acoustics import (
    Grid,
    Spectrum,
    factory,
    lowpass,
    microphone,
    reflection,
    rms,
    room,
    to_signal,
)
from asd_ray.data.synthetic.machines import MACHINES
from asd_ray.data.synthetic.mechanics import Machine, Operation
from asd_ray.errors import AsdRayError
from asd_ray.files import write_atomically

GENERATOR = 3
"""Version of the recordings; raised when a recording's sound or name changes."""

IDS = {
    "dcase2020": ("00", "02", "04", "06", "01", "03", "05"),  # the development IDs first
    "dcase2022": ("00", "01", "02", "03", "04", "05", "06"),
}
SAMPLE_RATE, SECONDS = 16000, 10.0
OPERATION = {  # domain -> range of relative speed, range of load
    "none": ((0.97, 1.03), (0.0, 1.0)),
    "source": ((0.97, 1.03), (0.0, 0.7)),
    "target": ((1.08, 1.14), (0.6, 1.0)),
}
SEVERITY = (0.3, 1.0)
LEVEL_DB = (-40.5, -39.5)  # RMS of a clip in dB of full scale; about -40 in the public sets
LEAK_DB = -12.0  # a machine behind the wall, relative to the hall's noise
CHUNK = 16  # recordings per task

Split = Literal["train", "test"]
Label = Literal["normal", "anomaly"]
FAULT_COLUMNS = ("path", "machine", "id", "fault", "band", "severity")
ATTRIBUTE_COLUMNS = ("file_name", "d1p", "d1v", "d2p", "d2v", "d3p", "d3v")  # DCASE 2022's: parameters and values

Chunk = Sequence["Recording"]
ParallelMap = Callable[[Callable[[Chunk], Any], Iterable[Chunk]], Iterator[Any]]


@dataclass(frozen=True)
class Recording:
    """One clip and everything that its sound depends on.

    Attributes:
        path: relative to the set's root, with forward slashes.
        machine: machine type, a key of ``machines.MACHINES``.
        id: ID (``dcase2020``) or section (``dcase2022``).
        split: ``train`` or ``test``.
        label: ``normal`` or ``anomaly``.
        domain: ``source``, ``target``, or ``none`` in the ``dcase2020`` layout.
        fault: kind, or empty for a normal clip.
        band: frequency range of the fault, ``low`` or ``high``, or empty.
        severity: of the fault, 0 to 1; 0 for a normal clip.
        speed: relative to the machine's nominal speed.
        load: 0 (idle) to 1 (full).
        snr_db: power of the healthy machine over the background, in dB.
        level_db: RMS of the clip in dB of full scale.
        individual: seed of the machine and its place.
        seed: of everything random in this clip alone.
    """

    path: str
    machine: str
    id: str
    split: Split
    label: Label
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
    """Plan the recordings of a set, in the order of machines and IDs.

    Within an ID and label, level, load, speed, SNR and severity form a Latin hypercube: each covers its range evenly
    for normal and for anomalous clips, so that neither loudness nor operation separates them, even in a small set.

    Raises:
        AsdRayError: an unknown layout, or too many machine types or IDs.
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
            for stratum in _strata(config, layout):
                recordings += _stratum(config, layout, machine, name, *stratum)
    return recordings


def _strata(config: SyntheticConfig, layout: str) -> Iterator[tuple[Split, Label, str, int]]:
    """Split, label, domain, number of clips. DCASE 2022: a tenth of training and half of the test clips are target."""
    if layout == "dcase2020":
        yield "train", "normal", "none", config.train
        yield "test", "normal", "none", config.test_normal
        yield "test", "anomaly", "none", config.test_anomaly
        return
    target = max(1, round(config.train / 10)) if config.train > 1 else 0
    yield "train", "normal", "source", config.train - target
    yield "train", "normal", "target", target
    yield "test", "normal", "source", (config.test_normal + 1) // 2
    yield "test", "normal", "target", config.test_normal // 2
    yield "test", "anomaly", "source", (config.test_anomaly + 1) // 2
    yield "test", "anomaly", "target", config.test_anomaly // 2


def _stratum(
    config: SyntheticConfig, layout: str, machine: str, name: str, split: Split, label: Label, domain: str, count: int
) -> Iterator[Recording]:
    """Plan the recordings of one ID, split, label and domain. The target domain has more speed and load."""
    rng = np.random.default_rng(stable_hash("stratum", config.seed, layout, machine, name, split, label, domain))
    faults = MACHINES[machine].faults
    first = config.test_anomaly - count  # the target domain continues with the next kinds
    kinds = [list(faults)[(first + index) % len(faults)] if label == "anomaly" else "" for index in range(count)]
    from scipy.stats import qmc  # here: its import takes 0.4 s, which rendering processes save

    design = qmc.LatinHypercube(5, rng=rng).random(count).tolist()
    (slowest, fastest), (idle, full) = OPERATION[domain]
    for index, (kind, (level, snr, speed, load, severity)) in enumerate(zip(kinds, design, strict=True)):
        speed, load = slowest + (fastest - slowest) * speed, idle + (full - idle) * load
        if layout == "dcase2020":
            path = f"{machine}/{split}/{label}_id_{name}_{index:08d}.wav"
        else:
            # Coarse as in DCASE 2022, so that several clips share a value.
            steps = f"spd_{10 * round(10 * speed)}_load_{50 * round(2 * load)}"
            settings = f"{steps}_mic_{1 + (domain == 'target')}"
            path = f"{machine}/{split}/section_{name}_{domain}_{split}_{label}_{index:04d}_{settings}.wav"
        yield Recording(
            path=path,
            machine=machine,
            id=name,
            split=split,
            label=label,
            domain=domain,
            fault=kind,
            band=faults[kind].band if kind else "",
            severity=round(SEVERITY[0] + (SEVERITY[1] - SEVERITY[0]) * severity, 3) if kind else 0.0,
            speed=round(speed, 4),
            load=round(load, 4),
            snr_db=round(config.snr_db - 1 + 2 * snr, 2),
            level_db=round(LEVEL_DB[0] + (LEVEL_DB[1] - LEVEL_DB[0]) * level, 2),
            individual=stable_hash("individual", config.seed, machine, name),
            seed=stable_hash("clip", config.seed, path),
        )


# --- Sound -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _machine(machine: str, individual: int) -> Machine:
    return MACHINES[machine](np.random.default_rng(individual))


def _random(recording: Recording, part: str) -> np.random.Generator:
    return np.random.default_rng(stable_hash(recording.seed, part))


def render(recording: Recording, sample_rate: int = SAMPLE_RATE, seconds: float = SECONDS) -> NDArray[np.float32]:
    """Render a recording's sound, (samples,) float32 within -1 to 1; a pure function of its arguments.

    The machine in its room, the hall's noise, another machine behind the wall, and the microphone. The clip is then
    scaled to the recording's level, so that no fault makes it louder.
    """
    grid = Grid(sample_rate, round(sample_rate * seconds))
    rng = _random(recording, "scene")
    operation = Operation(
        grid,
        rng=_random(recording, "machine"),
        fault_rng=_random(recording, "fault"),
        speed=recording.speed,
        load=recording.load,
        fault=recording.fault,
        severity=recording.severity,
    )
    place = stable_hash("place", recording.individual, recording.domain == "target")
    machine = _machine(recording.machine, recording.individual).sound(operation)
    noise = _background(recording.machine, place, grid, rng)
    # From 60 Hz on: a hall is loud below, but no microphone picks it up.
    noise *= rms(machine, grid, 60) / rms(noise, grid, 60) / 10 ** (recording.snr_db / 20)
    heard = (machine * room(place, 0.35, 0.5, grid) + noise) * reflection(grid, rng) * microphone(place, grid)
    signal = to_signal(heard, grid).astype(np.float64)
    signal *= 10 ** (recording.level_db / 20) / np.sqrt(np.mean(signal**2))
    return np.clip(signal, -1, 1).astype(np.float32)


def _background(machine: str, place: int, grid: Grid, rng: np.random.Generator) -> Spectrum:
    """(F,) noise of the hall and of a healthy machine of another type behind the wall."""
    hall = factory(grid, np.random.default_rng(place), rng)
    others = [name for name in MACHINES if name != machine]
    neighbour = _machine(others[place % len(others)], stable_hash("neighbour", place))
    operation = Operation(grid, rng=rng, fault_rng=rng, speed=rng.uniform(0.97, 1.03), load=rng.uniform())
    leak = neighbour.sound(operation) * lowpass(grid, 800)
    return hall + leak * (rms(hall, grid) / rms(leak, grid) * 10 ** (LEAK_DB / 20))


# --- Files -----------------------------------------------------------------------------------------------------------


def write(root: Path, recording: Recording, sample_rate: int = SAMPLE_RATE, seconds: float = SECONDS) -> None:
    """Render a recording to its 16-bit wav file below ``root``, atomically.

    Raises:
        AsdRayError: the file cannot be written.
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, render(recording, sample_rate, seconds), sample_rate, subtype="PCM_16", format="WAV")
    _put(Path(root) / recording.path, buffer.getvalue())


def _put(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, lambda beside: Path(beside).write_bytes(content))
    except OSError as error:
        raise AsdRayError(f"{path}: cannot be written ({error.strerror}); make the folder writable.") from None


def _write_chunk(chunk: Chunk, root: Path, sample_rate: int, seconds: float) -> int:
    for recording in chunk:
        write(root, recording, sample_rate, seconds)
    return len(chunk)


def synthesise(
    root: Path,
    config: SyntheticConfig,
    layout: str = "dcase2020",
    progress: Callable[[int, int], None] | None = None,
    parallel_map: ParallelMap | None = None,
) -> list[Recording]:
    """Write the missing recordings of a set, ``faults.csv`` and ``synthetic.json``.

    Args:
        root: folder of the set: new, empty, or begun by an earlier call with the same ``config`` and ``layout``.
        progress: called with (recordings done, all recordings).
        parallel_map: ``(function, chunks) -> results in any order``, to render in parallel; serial by default.

    Returns:
        All recordings of the set.

    Raises:
        AsdRayError: the folder holds something else, or cannot be written.
    """
    root = Path(root)
    recordings = plan(config, layout)
    _claim(root, config, layout)
    missing = [recording for recording in recordings if not _is_whole(root / recording.path)]
    done = len(recordings) - len(missing)
    if progress:
        progress(done, len(recordings))
    chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
    write_chunk = partial(_write_chunk, root=root, sample_rate=SAMPLE_RATE, seconds=SECONDS)
    for written in (parallel_map or map)(write_chunk, chunks):
        done += written
        if progress:
            progress(done, len(recordings))
    rows = [FAULT_COLUMNS, *([getattr(r, name) for name in FAULT_COLUMNS] for r in recordings if r.fault)]
    _put(root / "faults.csv", csv_text(rows).encode())
    if layout == "dcase2022":
        for (machine, name), members in groupby(recordings, lambda recording: (recording.machine, recording.id)):
            rows = [ATTRIBUTE_COLUMNS, *([r.path, *Path(r.path).stem.split("_")[6:]] for r in members)]
            _put(root / machine / f"attributes_{name}.csv", csv_text(rows).encode())
    return recordings


def read_description(root: Path) -> tuple[SyntheticConfig, str] | None:
    """Read the configuration and layout of a synthetic set; None in a folder without ``synthetic.json``.

    Raises:
        AsdRayError: ``synthetic.json`` is invalid or of another version.
    """
    mark = root / "synthetic.json"
    try:
        document = json.loads(mark.read_text(encoding="utf-8"))
        layout = str(document.pop("layout"))
        return SyntheticConfig.model_validate({key: document[key] for key in SyntheticConfig.model_fields}), layout
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AsdRayError(f"{mark}: does not describe a synthetic set ({error}); make the set again.") from None


def _is_whole(path: Path) -> bool:
    """True if a file has the size that ``write`` gives it."""
    try:
        return path.stat().st_size == 44 + 2 * round(SAMPLE_RATE * SECONDS)
    except OSError:
        return False


def _claim(root: Path, config: SyntheticConfig, layout: str) -> None:
    """Mark a new folder with ``synthetic.json``; refuse a folder with other content."""
    mark = root / "synthetic.json"
    ours = {"generator": GENERATOR, "layout": layout, **config.model_dump(mode="json")}
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        _put(mark, (json.dumps(ours, indent=2) + "\n").encode())
        return
    try:
        theirs = json.loads(mark.read_text(encoding="utf-8"))
        different = [key for key in {**ours, **theirs} if theirs.get(key) != ours.get(key)]
    except (OSError, ValueError, TypeError, AttributeError):
        raise AsdRayError(
            f"{root}: is not empty and has no readable synthetic.json; expected a synthetic set; choose another folder."
        ) from None
    if different:
        found = ", ".join(f"{key} {theirs.get(key)} instead of {ours.get(key)}" for key in different)
        raise AsdRayError(f"{root}: holds another synthetic set ({found}); choose another folder or delete this one.")
