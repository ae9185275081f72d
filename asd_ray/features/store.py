"""A feature store: parquet shards of Log-Mel features beside a manifest that says what they are.

A shard is one parquet file, uncompressed and without dictionaries (Parquet's defaults read 8 to 30 times slower here):
the columns of :class:`asd_ray.clips.Clip`, ``level_db``, and ``log_mel``, fp16 F x T in row order as fixed-size binary.
A shard's name carries the hash of what went into it (settings, clips, their sizes and times), so a shard that is there
is the right one, and a changed clip changes only its own shard. Clips are dealt to shards by a hash of their paths:
every shard is a random sample of its split, whatever the order of the files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from asd_ray.clips import CLIP_FIELDS, Clip, stable_hash
from asd_ray.config import FeatureConfig
from asd_ray.errors import AsdRayError
from asd_ray.files import write_atomically

FORMAT = 1
CLIP_COLUMNS = {
    name: pa.int64() if name in ("sample_rate", "frames", "channels") else pa.string() for name in CLIP_FIELDS
}
SHARD_CLIPS = 128  # about 10 MB each: small enough to spread over workers, large enough to read fast


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be: its file name and its clips, in order."""

    name: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class Manifest:
    """What a store holds.

    Attributes:
        settings: the feature settings that matter for the numbers.
        shards: shard file names by split, in order.
        counts: number of clips by split.
        mean, std: over all values of the training clips (the pre-norm's μ and σ).
        machines: per machine ``{"mean", "std", "train", "test"}``.
        skipped: clips left out because they could not be read (``data.skip_bad``).
    """

    settings: dict[str, Any]
    shards: dict[str, list[str]]
    counts: dict[str, int]
    mean: float
    std: float
    machines: dict[str, dict[str, float]]
    skipped: list[str]
    format: int = FORMAT

    @property
    def shape(self) -> tuple[int, int]:
        """(F, T) of a clip."""
        return int(self.settings["n_mels"]), int(self.settings["frames"])

    @property
    def hash(self) -> str:
        """Changes whenever settings, clips or their content (as seen by size and time) do."""
        return f"{stable_hash(self.settings, self.shards):016x}"


def settings_of(features: FeatureConfig, channel: int | str) -> dict[str, Any]:
    """The settings that decide what a clip's features are."""
    settings = features.model_dump(mode="json", exclude={"store"})
    return {**settings, "frames": features.frames, "channel": channel}


def plan_shards(clips: Sequence[Clip], root: Path, settings: Mapping[str, Any]) -> dict[str, list[ShardPlan]]:
    """Deals clips to shards, by split; a shard's name depends on nothing but its clips and the settings."""
    plans: dict[str, list[ShardPlan]] = {}
    for split in ("train", "test"):
        members = sorted((clip for clip in clips if clip.split == split), key=lambda clip: stable_hash(clip.path))
        # A power of two, so that a data set that grows a little keeps its shards.
        count = 1
        while count * SHARD_CLIPS < len(members):
            count *= 2
        shards: list[list[Clip]] = [[] for _ in range(count)]
        for clip in members:
            shards[stable_hash(clip.path) % count].append(clip)
        plans[split] = []
        for number, shard in enumerate(shards):
            if shard:
                content = stable_hash(
                    FORMAT,
                    sorted(settings.items()),
                    *((asdict(clip), _fingerprint(root / clip.path)) for clip in shard),
                )
                plans[split].append(ShardPlan(f"{split}-{number:05d}-{content:016x}.parquet", tuple(shard)))
    return plans


def _fingerprint(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise AsdRayError(f"{path}: cannot be read ({error.strerror}).") from None
    return status.st_size, status.st_mtime_ns


def write_shard(
    path: Path, clips: Sequence[Clip], log_mel: np.ndarray, level_db: np.ndarray, summary: Mapping[str, Any]
) -> None:
    """Writes one shard, beside and then renamed.

    Args:
        path: the parquet file.
        clips: N identities.
        log_mel: (N, F, T).
        level_db: (N,) root-mean-square levels.
        summary: what the manifest needs of the shard; kept in the file's own metadata.
    """
    values = np.ascontiguousarray(log_mel, dtype=np.float16)
    width = 2 * values.shape[1] * values.shape[2]
    columns: dict[str, pa.Array] = {
        name: pa.array([getattr(clip, name) for clip in clips], kind) for name, kind in CLIP_COLUMNS.items()
    }
    columns["level_db"] = pa.array(np.asarray(level_db, dtype=np.float32))
    columns["log_mel"] = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), len(clips), [None, pa.py_buffer(values)]
    )
    table = pa.table(columns).replace_schema_metadata({b"asd_ray": json.dumps(summary).encode()})
    write_atomically(path, lambda beside: pq.write_table(table, beside, compression="NONE", use_dictionary=False))


def shard_summary(path: Path) -> dict[str, Any] | None:
    """The summary of a shard, or None where there is no such file or its footer is damaged."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        return json.loads(metadata[b"asd_ray"])
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None


def write_manifest(store: Path, manifest: Manifest) -> None:
    text = json.dumps(asdict(manifest), indent=1, ensure_ascii=False)
    write_atomically(store / "manifest.json", lambda beside: Path(beside).write_text(text, encoding="utf-8"))


def read_manifest(store: Path) -> Manifest | None:
    """The manifest of a store, or None where there is none yet.

    Raises:
        AsdRayError: the file is there but is not a manifest of this version.
    """
    path = store / "manifest.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise AsdRayError(
            f"{path}: not a readable manifest ({error}); delete it to build the features again."
        ) from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise AsdRayError(
            f"{path}: written in format {document.get('format') if isinstance(document, dict) else None}, this version "
            f"reads format {FORMAT}; delete the folder to build the features again."
        )
    return Manifest(**document)


def require_settings(manifest: Manifest, settings: Mapping[str, Any], store: Path) -> None:
    """Refuses a store that was made with other settings, naming the first that differ."""
    differing = [key for key in settings if manifest.settings.get(key) != settings[key]]
    if differing:
        found = ", ".join(f"{key} is {manifest.settings.get(key)} there and {settings[key]} here" for key in differing)
        raise AsdRayError(f"{store}: these features were built with other settings: {found}. Choose another folder.")


@dataclass
class ClipTable:
    """Clips and their features in memory: one contiguous array, identities beside it, in the store's order.

    Attributes:
        clips: N identities.
        log_mel: (N, F, T) fp16.
        level_db: (N,) fp32.
    """

    clips: list[Clip]
    log_mel: np.ndarray
    level_db: np.ndarray


def collect(tables: Iterable[pa.Table], shape: tuple[int, int]) -> ClipTable:
    """Joins the shards' tables; ``log_mel`` is copied once, into one contiguous array."""
    clips: list[Clip] = []
    blocks: list[np.ndarray] = []
    levels: list[np.ndarray] = []
    for table in tables:
        clips += [Clip(**row) for row in table.select(list(CLIP_FIELDS)).to_pylist()]
        levels.append(table["level_db"].to_numpy())
        for chunk in table["log_mel"].chunks:
            data = np.frombuffer(chunk.buffers()[1], dtype=np.float16)
            size = shape[0] * shape[1]
            blocks.append(data[chunk.offset * size : (chunk.offset + len(chunk)) * size].reshape(-1, *shape))
    if not clips:
        return ClipTable([], np.empty((0, *shape), np.float16), np.empty(0, np.float32))
    return ClipTable(clips, np.concatenate(blocks), np.concatenate(levels))


def shard_paths(store: Path, manifest: Manifest, split: str) -> list[str]:
    return [os.fspath(store / name) for name in manifest.shards[split]]
