"""A feature store: parquet shards, and manifests that list them.

A shard holds some clips of one split. Each column of features is a parquet file of its own, so a study computes and
reads only the columns it needs: ``log_mel`` (fp16, F x T in row order) and ``waveform`` (int16, S samples at full scale
32768). A file also has the fields of ``Clip``, the recording's size and modification time and, with ``log_mel``,
``level_db``. Features are fixed-size binary, uncompressed and without dictionaries (Parquet's defaults read 8 to 30
times slower).

A file's name is ``<column>-<split>-<number>-<content>-<crc>.parquet``. ``content`` is a hash of the settings, clips,
file sizes and times; ``crc`` is the CRC-32 of the file. So a file with the planned name has the planned content, and
any reader detects a damaged file. A hash of a clip's path chooses its shard: every shard is a random sample of its
split.

Studies with different clips can share a store. Each choice of folder, splits, machines, IDs and columns has its own
``manifest-<choice>.json``, and the files that a manifest lists are kept. ``manifest.json`` is a copy of the newest.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from asd_ray.config import FeatureConfig
from asd_ray.data.clips import CLIP_FIELDS, Clip, stable_hash
from asd_ray.errors import AsdRayError, StorageError
from asd_ray.features.storage import Storage

FORMAT = 2
Place = str | Path | Storage
COLUMNS = {"log_mel": np.dtype(np.float16), "waveform": np.dtype(np.int16)}
REMEDY = "run the same command again: it makes a new file."
SHARD_NAME = re.compile(r"(?P<column>[a-z_]+)-[a-z]+-\d{5}-[0-9a-f]{16}-(?P<crc>[0-9a-f]{8})\.parquet")
CLIP_COLUMNS = {
    name: pa.int64() if name in ("sample_rate", "frames", "channels") else pa.string() for name in CLIP_FIELDS
}
FINGERPRINT_COLUMNS = {"bytes": pa.int64(), "modified_ns": pa.int64()}


class DamagedShard(StorageError):
    """A shard's file is missing or damaged."""


@dataclass(frozen=True)
class Shard:
    """A shard of a store: its number of clips, and its file for each column."""

    clips: int
    files: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """The shards of a store for one choice of clips and columns.

    Attributes:
        settings: the settings that decide the features' values.
        shards: by split, in the store's order.
        counts: number of clips by split (``train``, ``test``, ``extra``).
        mean, std: over all Log-Mel values of the training clips (the pre-norm's μ and σ).
        machines: machine -> number of clips by split, and ``mean`` and ``std`` of its training clips.
        skipped: paths of clips that could not be read and were left out (``data.skip_bad``).
        data_hash: hash of the clips (paths, labels, lengths) and their file sizes; the same for a copy of the data.
    """

    settings: dict[str, Any]
    shards: dict[str, list[Shard]]
    counts: dict[str, int]
    mean: float
    std: float
    machines: dict[str, dict[str, float]]
    skipped: list[str]
    data_hash: str = ""
    format: int = FORMAT

    @property
    def shape(self) -> tuple[int, int]:
        """(F, T) of a clip."""
        return int(self.settings["n_mels"]), int(self.settings["frames"])

    @property
    def settings_hash(self) -> str:
        return hash_of_settings(self.settings)

    @property
    def hash(self) -> str:
        """A hash of the settings, the clips and the features' values."""
        names = [(split, shard.files.get("log_mel")) for split, shards in self.shards.items() for shard in shards]
        return f"{stable_hash(self.settings, names):016x}"

    def column(self, name: str) -> tuple[np.dtype, tuple[int, ...]]:
        """A column's type, and its shape for one clip: (F, T) or (S,)."""
        samples = round(self.settings["seconds"] * self.settings["sample_rate"])
        return COLUMNS[name], self.shape if name == "log_mel" else (samples,)

    def bytes_per_clip(self, columns: Iterable[str]) -> int:
        """Bytes of one clip's columns in memory."""
        return sum(int(np.prod(shape)) * kind.itemsize for kind, shape in map(self.column, columns))


def settings_of(features: FeatureConfig, channel: int | str) -> dict[str, Any]:
    """The settings that decide a clip's features: without the preset's name and the store's place."""
    settings = features.model_dump(mode="json", exclude={"store", "preset", "gpus_per_task"})
    return {**settings, "frames": features.frames, "channel": channel}


def hash_of_settings(settings: Mapping[str, Any]) -> str:
    """A hash of feature settings and the store's format, 16 hexadecimal digits."""
    return f"{stable_hash(FORMAT, sorted(settings.items())):016x}"


# --- Shards ----------------------------------------------------------------------------------------------------------


def write_shard(
    store: Place,
    stem: str,
    clips: Sequence[Clip],
    columns: Mapping[str, np.ndarray],
    summary: Mapping[str, Any],
    fingerprints: Sequence[tuple[int, int]] | None = None,
) -> str:
    """Write one file of a shard atomically.

    Args:
        store: folder or URI.
        stem: the file's name without checksum and ending.
        clips: N identities.
        columns: ``level_db`` (N,) and ``log_mel`` (N, F, T), or ``waveform`` (N, S), in the stored types.
        summary: the shard's part of the manifest; stored in the file's metadata.
        fingerprints: the recordings' (bytes, modification time in ns), 0 by default.

    Returns:
        The file's name.

    Raises:
        AsdRayError: the disk is full, or the store cannot be written.
    """
    arrays: dict[str, pa.Array] = {
        name: pa.array([getattr(clip, name) for clip in clips], kind) for name, kind in CLIP_COLUMNS.items()
    }
    for number, (name, kind) in enumerate(FINGERPRINT_COLUMNS.items()):
        arrays[name] = pa.array([print_[number] for print_ in fingerprints or [(0, 0)] * len(clips)], kind)
    for name, values in columns.items():
        values = np.ascontiguousarray(values)
        if values.ndim > 1:
            width = pa.binary(values[0].nbytes if len(values) else int(np.prod(values.shape[1:])) * values.itemsize)
            arrays[name] = pa.FixedSizeBinaryArray.from_buffers(width, len(clips), [None, pa.py_buffer(values)])
        else:
            arrays[name] = pa.array(values)
    table = pa.table(arrays).replace_schema_metadata({b"asd_ray": json.dumps(summary).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="NONE", use_dictionary=False)
    content = sink.getvalue()
    name = f"{stem}-{zlib.crc32(content):08x}.parquet"
    _storage(store).write(name, content)
    return name


def _read_verified(store: Storage, name: str) -> pa.Buffer:
    """Read a file and verify its checksum (1 to 6 GB/s, depending on Python's zlib)."""
    known = SHARD_NAME.fullmatch(name)
    try:
        content = store.read(name)
    except FileNotFoundError:
        raise DamagedShard(f"{store.url(name)}: this shard is missing; {REMEDY}") from None
    if known is None or zlib.crc32(content) != int(known["crc"], 16):
        raise DamagedShard(f"{store.url(name)}: this shard is damaged (its checksum differs); {REMEDY}")
    return content


def read_shard(store: Place, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one file of a shard, or some of its columns.

    Raises:
        DamagedShard: the file is missing, or its checksum differs.
    """
    reader = pa.BufferReader(_read_verified(_storage(store), name))
    return pq.read_table(reader, columns=None if columns is None else list(columns), use_threads=False)


def shard_summary(store: Place, name: str) -> dict[str, Any] | None:
    """The summary of a file, or None if the file is missing or damaged. Reads the whole file."""
    try:
        content = _read_verified(_storage(store), name)
        return json.loads((pq.read_schema(pa.BufferReader(content)).metadata or {})[b"asd_ray"])
    except (DamagedShard, KeyError, ValueError, pa.ArrowException):
        return None


def read_joined(store: Place, shard: Shard, columns: Sequence[str], also: Sequence[str] = ()) -> pa.Table:
    """Read the clips of a shard with some columns of features.

    Args:
        store: folder or URI.
        shard: to read.
        columns: of features, one or more.
        also: further columns (``level_db``).

    Raises:
        AsdRayError: a file is damaged, or the files have different clips.
    """
    first, *others = columns
    table = read_shard(store, shard.files[first], [*CLIP_FIELDS, *also, first])
    for column in others:
        other = read_shard(store, shard.files[column], ["path", column])
        if not other["path"].equals(table["path"]):
            names = f"{shard.files[first]} and {shard.files[column]}"
            raise AsdRayError(f"{store}: {names} do not hold the same clips; delete both and build the features again.")
        table = table.append_column(column, other[column])
    return table


def read_in_task(
    storage: Storage, shard: Shard, columns: tuple[str, ...]
) -> tuple[pa.Table | None, pa.Table | None, str]:
    """Read a shard in a Ray task. It stands here because the task's process imports this module, and no torch.

    Returns:
        The columns of features, the clips' fields, and an error message. With an error the tables are None.
    """
    try:
        table = read_joined(storage, shard, columns)
    except AsdRayError as error:
        return None, None, str(error)
    return table.select(list(columns)), table.select(list(CLIP_FIELDS)), ""


def clips_of(table: pa.Table) -> list[Clip]:
    """The clips of a table's rows."""
    return [Clip(*values) for values in zip(*(table[name].to_pylist() for name in CLIP_FIELDS), strict=True)]


def views(table: pa.Table, column: str, kind: np.dtype, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """A table's features as arrays (n, *shape), one per chunk, without a copy."""
    size = int(np.prod(shape))
    for chunk in table[column].chunks:
        data = np.frombuffer(chunk.buffers()[1], dtype=kind)
        yield data[chunk.offset * size : (chunk.offset + len(chunk)) * size].reshape(-1, *shape)


def joined(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Concatenate arrays; a single array is not copied."""
    parts = list(arrays)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


# --- Manifests -------------------------------------------------------------------------------------------------------


def write_manifest(store: Place, manifest: Manifest, name: str = "manifest.json") -> None:
    """Write a manifest, unless the file has the same content already."""
    hashes = {"settings_hash": manifest.settings_hash, "hash": manifest.hash}  # for people and other programs
    text = json.dumps({**asdict(manifest), **hashes}, indent=1, ensure_ascii=False).encode()
    storage = _storage(store)
    try:
        if storage.read(name).to_pybytes() == text:
            return
    except FileNotFoundError:
        pass
    storage.write(name, text)


def read_manifest(store: Place, name: str = "manifest.json") -> Manifest | None:
    """Read a store's newest manifest, or the one of a name; None if there is none.

    Raises:
        AsdRayError: the file is not a manifest of this version.
    """
    storage = _storage(store)
    path = storage.url(name)
    try:
        document = json.loads(storage.read(name).to_pybytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise AsdRayError(
            f"{path}: not a readable manifest ({error}); delete it to build the features again."
        ) from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise AsdRayError(
            f"{path}: written in format {document.get('format') if isinstance(document, dict) else None}, this version "
            f"reads format {FORMAT}; delete the folder to build the features again."
        )
    shards = {split: [Shard(**shard) for shard in shards] for split, shards in document.pop("shards").items()}
    return Manifest(shards=shards, **{key: document[key] for key in document if key not in ("settings_hash", "hash")})


def require_settings(manifest: Manifest, settings: Mapping[str, Any], store: Place) -> None:
    """Raise AsdRayError if a store was built with other settings; names every difference."""
    differing = [key for key in settings if manifest.settings.get(key) != settings[key]]
    if differing:
        found = ", ".join(f"{key} is {manifest.settings.get(key)} there and {settings[key]} here" for key in differing)
        raise AsdRayError(f"{store}: these features were built with other settings: {found}. Choose another folder.")


# --- Reading outside of training -------------------------------------------------------------------------------------


@dataclass
class ClipTable:
    """Clips and their Log-Mel features in memory, in the store's order.

    Attributes:
        clips: N clips.
        log_mel: (N, F, T) fp16.
        level_db: (N,) fp32.
    """

    clips: list[Clip]
    log_mel: np.ndarray
    level_db: np.ndarray


def collect(tables: Iterable[pa.Table], shape: tuple[int, int]) -> ClipTable:
    """Join shards' tables; ``log_mel`` becomes one contiguous array."""
    tables = list(tables)
    clips = [clip for table in tables for clip in clips_of(table)]
    if not clips:
        return ClipTable([], np.empty((0, *shape), np.float16), np.empty(0, np.float32))
    blocks = [view for table in tables for view in views(table, "log_mel", COLUMNS["log_mel"], shape)]
    return ClipTable(clips, np.concatenate(blocks), np.concatenate([table["level_db"].to_numpy() for table in tables]))


def read_tables(store: Place, manifest: Manifest, split: str) -> Iterator[ClipTable]:
    """Read the Log-Mel features of a split, one shard in memory at a time."""
    for shard in manifest.shards.get(split, []):
        yield collect([read_joined(store, shard, ("log_mel",), ("level_db",))], manifest.shape)


def _storage(store: Place) -> Storage:
    return store if isinstance(store, Storage) else Storage(store)
