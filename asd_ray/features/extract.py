"""Build one shard: compute missing columns from recordings, and reuse the features of older shards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asd_ray.config import Channel, FeatureConfig
from asd_ray.data import audio
from asd_ray.data.clips import Clip
from asd_ray.errors import AsdRayError
from asd_ray.features.log_mel import LogMel, level_db, to_int16
from asd_ray.features.plan import ShardPlan, clip_fields, shard_statistics
from asd_ray.features.storage import Storage
from asd_ray.features.store import (
    COLUMNS,
    DamagedShard,
    hash_of_settings,
    joined,
    read_shard,
    settings_of,
    views,
    write_shard,
)
from asd_ray.memory import keep_freed_memory

BATCH = 16  # clips per call on a GPU; a CPU takes one at a time, which fits into a core's caches

Sources = Mapping[str, Sequence[tuple[str, int] | None]]
"""Column -> for every clip of a plan the file and row of an older shard with its features, or None."""


@dataclass(frozen=True)
class Recipe:
    """The inputs of a build that are the same for all its shards."""

    root: Path
    store: Storage
    features: FeatureConfig
    channel: Channel
    skip_bad: bool


@dataclass(frozen=True)
class Outcome:
    """Result of a task.

    Attributes:
        files: stem -> name of a file that it wrote.
        summaries: stem -> the file's summary.
        clips: number of clips in the shard.
        decoded: number of them whose recordings were read; the others were reused.
        error: message of the error that stopped it, else empty.
    """

    files: dict[str, str]
    summaries: dict[str, dict[str, Any]]
    clips: int
    decoded: int
    error: str = ""


def to_json(plan: ShardPlan, columns: Sequence[str], sources: Sources) -> str:
    """A task's arguments as JSON, for a row of a Ray dataset."""
    fields = {"name": plan.name, "clips": list(map(clip_fields, plan.clips)), "fingerprints": plan.fingerprints}
    return json.dumps({"plan": fields, "columns": list(columns), "sources": dict(sources)})


class Extractor:
    """Builds shards in a worker of Ray Data."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        keep_freed_memory()  # every shard needs the same memory again

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        torch.set_num_threads(1)  # one worker per core: more threads would only compete
        return {"outcome": json.dumps(asdict(_outcome(row, self.recipe)))}


def serial(rows: Sequence[dict[str, Any]], recipe: Recipe) -> Iterator[Outcome]:
    """Run a build's tasks in this process, one after the other, without Ray. The files are the same byte for byte."""
    for row in rows:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the number of threads changes a sum's last bit, and so a file's name
        try:
            outcome = _outcome(row, recipe)
        finally:
            torch.set_num_threads(threads)
        yield outcome


def _outcome(row: dict[str, Any], recipe: Recipe) -> Outcome:
    work = json.loads(row["work"])
    fields = work["plan"]
    plan = ShardPlan(
        fields["name"], tuple(Clip(**clip) for clip in fields["clips"]), tuple(map(tuple, fields["fingerprints"]))
    )
    try:
        return make_shard(plan, work["columns"], work["sources"], recipe)
    except AsdRayError as error:
        return Outcome({}, {}, 0, 0, str(error))


def make_shard(plan: ShardPlan, columns: Sequence[str], sources: Sources, recipe: Recipe) -> Outcome:
    """Write a shard's files for some columns.

    Raises:
        AsdRayError: a clip cannot be read (and ``skip_bad`` is not set), or the store cannot be written.
    """
    count, features = len(plan.clips), recipe.features
    shapes = {"log_mel": (features.n_mels, features.frames), "waveform": (features.samples,)}
    values = {name: np.empty((count, *shapes[name]), COLUMNS[name]) for name in columns}
    levels = np.empty(count, np.float32)
    missing = {name: _reuse(name, sources.get(name, ()), values[name], levels, recipe.store) for name in columns}
    wanted = [position for position in range(count) if any(missing[name][position] for name in columns)]
    bad: dict[int, str] = {}
    device = torch.device("cuda" if features.gpus_per_task and torch.cuda.is_available() else "cpu")
    size = 1 if device.type == "cpu" else BATCH
    for start in range(0, len(wanted), size):
        waveforms = {}
        for position in wanted[start : start + size]:
            try:
                path = recipe.root / plan.clips[position].path
                waveforms[position] = audio.read(path, features.sample_rate, features.seconds, channel=recipe.channel)
            except AsdRayError as error:
                if not recipe.skip_bad:
                    hint = "data.skip_bad: true leaves out clips that cannot be read."
                    raise AsdRayError(f"{error} ({hint})") from None
                bad[position] = str(error)
        if not waveforms:
            continue
        chosen, read = list(waveforms), list(waveforms.values())
        batch = np.stack(read) if len(read) > 1 else read[0][None]
        if "waveform" in columns:
            values["waveform"][chosen] = to_int16(batch)
        if "log_mel" in columns:
            values["log_mel"][chosen], levels[chosen] = _log_mel(batch, features, device)
    kept = [position for position in range(count) if position not in bad]
    clips = [plan.clips[position] for position in kept]
    files, summaries = {}, {}
    for name in columns:
        rows = values.pop(name)
        rows = rows if len(kept) == count else rows[kept]
        summary: dict[str, Any] = {
            "settings": hash_of_settings(settings_of(features, recipe.channel)),
            "clips": len(kept),
            "bad": [{"path": plan.clips[position].path, "reason": reason} for position, reason in bad.items()],
        }
        written: dict[str, np.ndarray] = {name: rows}
        if name == "log_mel":
            summary["statistics"] = shard_statistics(clips, rows)
            written["level_db"] = levels[kept]
        stem = plan.stem(name)
        prints = [plan.fingerprints[position] for position in kept]
        files[stem] = write_shard(recipe.store, stem, clips, written, summary, prints)
        summaries[stem] = summary
    return Outcome(files, summaries, count, len(wanted))


def _reuse(
    column: str, sources: Sequence[tuple[str, int] | None], values: np.ndarray, levels: np.ndarray, store: Storage
) -> list[bool]:
    """Copy the features that older shards have into ``values``. Returns a mask (N,) of the clips still missing."""
    missing = [True] * len(values)
    by_file: dict[str, list[tuple[int, int]]] = {}
    for position, source in enumerate(sources):
        if source:
            by_file.setdefault(source[0], []).append((position, source[1]))
    for file, rows in by_file.items():
        also = ["level_db"] if column == "log_mel" else []
        try:
            table = read_shard(store, file, [column, *also])
        except DamagedShard:  # decode the recordings instead
            continue
        held = joined(views(table, column, values.dtype, values.shape[1:]))
        for position, row in rows:
            values[position], missing[position] = held[row], False
        if also:
            positions, numbers = zip(*rows, strict=True)
            levels[list(positions)] = table["level_db"].to_numpy()[list(numbers)]
    return missing


def _log_mel(waveforms: np.ndarray, features: FeatureConfig, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Log-Mel (B, F, T) in fp16 and levels (B,) of waveforms (B, S)."""
    with torch.inference_mode():
        batch = torch.from_numpy(waveforms).to(device)
        return _transform(features, device)(batch).half().cpu().numpy(), level_db(batch).cpu().numpy()


@lru_cache(maxsize=1)
def _transform(features: FeatureConfig, device: torch.device) -> LogMel:
    return LogMel(features).to(device)
