"""A feature store: parquet shards beside a manifest that says what they are.

A shard is some clips of one split. Each of its columns of features (``log_mel``: fp16, F x T in row order;
``waveform``: int16, S samples at full scale 32768) is a parquet file of its own, so that what a study does not ask for
is neither computed nor read. Beside its features a file has the fields of ``Clip``, the recording's
size and time and, with ``log_mel``, ``level_db``. Features are fixed-size binary, uncompressed, without dictionaries
(Parquet's defaults read 8 to 30 times slower).

A file's name is ``<column>-<split>-<number>-<content>-<crc>.parquet``: ``content`` is a hash of what goes into it
(settings, clips, their sizes and times), ``crc`` the CRC-32 of the file itself. So a file that is there under the name
of a plan is the right one, and every reader can tell a damaged one without asking anybody. Clips are dealt to shards by
a hash of their paths: every shard is a random sample of its split, whatever the order of the files.

Studies with different clips can share a store. Every choice (folder, splits, machines, IDs, columns) has a manifest
of its own, ``manifest-<choice>.json``, and what one of them names is kept; ``manifest.json`` is a copy of the last one.
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
REMEDY = "run the same command again, which makes it anew."
SHARD_NAME = re.compile(r"(?P<column>[a-z_]+)-[a-z]+-\d{5}-[0-9a-f]{16}-(?P<crc>[0-9a-f]{8})\.parquet")
CLIP_COLUMNS = {
    name: pa.int64() if name in ("sample_rate", "frames", "channels") else pa.string() for name in CLIP_FIELDS
}
FINGERPRINT_COLUMNS = {"bytes": pa.int64(), "modified_ns": pa.int64()}


class DamagedShard(StorageError):
    """A shard's file is gone, or is not what was written."""


@dataclass(frozen=True)
class Shard:
    """One shard that is there: its number of clips, and its file for each column."""

    clips: int
    files: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """What a store holds for one choice of clips and columns.

    Attributes:
        settings: the feature settings that matter for the numbers.
        shards: by split, in the store's order.
        counts: number of clips by split (``train``, ``test``, ``extra``).
        mean, std: over all Log-Mel values of the training clips (the pre-norm's μ and σ).
        machines: per machine the number of clips by split and, of its training clips, ``mean`` and ``std``.
        skipped: clips left out because they could not be read (``data.skip_bad``).
        data_hash: of the clips' identities (paths, labels, lengths) and file sizes: the same for a copy of the data.
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
        """Changes whenever settings, clips or the features themselves do."""
        names = [(split, shard.files.get("log_mel")) for split, shards in self.shards.items() for shard in shards]
        return f"{stable_hash(self.settings, names):016x}"

    def column(self, name: str) -> tuple[np.dtype, tuple[int, ...]]:
        """What a column holds of each clip: type and shape, (F, T) or (S,)."""
        samples = round(self.settings["seconds"] * self.settings["sample_rate"])
        return COLUMNS[name], self.shape if name == "log_mel" else (samples,)

    def bytes_per_clip(self, columns: Iterable[str]) -> int:
        """Size of a clip in memory."""
        return sum(int(np.prod(shape)) * kind.itemsize for kind, shape in map(self.column, columns))


def settings_of(features: FeatureConfig, channel: int | str) -> dict[str, Any]:
    """The settings that decide what a clip's features are; not by which preset's name they were chosen, or where."""
    settings = features.model_dump(mode="json", exclude={"store", "preset", "gpus_per_task"})
    return {**settings, "frames": features.frames, "channel": channel}


def hash_of_settings(settings: Mapping[str, Any]) -> str:
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
    """Writes one file of a shard, whole or not at all.

    Args:
        store: folder or URI.
        stem: the file's name without checksum and ending.
        clips: N identities.
        columns: ``level_db`` (N,) and ``log_mel`` (N, F, T), or ``waveform`` (N, S), in the types that are stored.
        summary: what the manifest needs of the shard; kept in the file's own metadata.
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


def _sound(store: Storage, name: str) -> pa.Buffer:
    """A file's content, its checksum verified (1 to 6 GB/s, by the zlib that Python is linked with)."""
    known = SHARD_NAME.fullmatch(name)
    try:
        content = store.read(name)
    except FileNotFoundError:
        raise DamagedShard(f"{store.url(name)}: this shard is gone; {REMEDY}") from None
    if known is None or zlib.crc32(content) != int(known["crc"], 16):
        raise DamagedShard(f"{store.url(name)}: this shard is damaged (its checksum differs); {REMEDY}")
    return content


def read_shard(store: Place, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One file of a shard, or some of its columns.

    Raises:
        DamagedShard: the file is gone, or its checksum differs.
    """
    reader = pa.BufferReader(_sound(_storage(store), name))
    return pq.read_table(reader, columns=None if columns is None else list(columns), use_threads=False)


def shard_summary(store: Place, name: str) -> dict[str, Any] | None:
    """The summary of a file that is there and undamaged, else None. Reads the whole file."""
    try:
        content = _sound(_storage(store), name)
        return json.loads((pq.read_schema(pa.BufferReader(content)).metadata or {})[b"asd_ray"])
    except (DamagedShard, KeyError, ValueError, pa.ArrowException):
        return None


def read_joined(store: Place, shard: Shard, columns: Sequence[str], also: Sequence[str] = ()) -> pa.Table:
    """The clips of a shard with the features asked for.

    Args:
        columns: of features.
        also: further columns beside the clips' own (``level_db``).

    Raises:
        AsdRayError: a file is damaged, or two of them do not hold the same clips.
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


def clips_of(table: pa.Table) -> list[Clip]:
    """Identities of a table's rows."""
    return [Clip(*values) for values in zip(*(table[name].to_pylist() for name in CLIP_FIELDS), strict=True)]


def views(table: pa.Table, column: str, kind: np.dtype, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """A table's features as arrays (n, *shape), one for each of its chunks, without copying them."""
    size = int(np.prod(shape))
    for chunk in table[column].chunks:
        data = np.frombuffer(chunk.buffers()[1], dtype=kind)
        yield data[chunk.offset * size : (chunk.offset + len(chunk)) * size].reshape(-1, *shape)


def joined(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Arrays as one, copied only if there are several."""
    parts = list(arrays)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


# --- Manifests -------------------------------------------------------------------------------------------------------


def write_manifest(store: Place, manifest: Manifest, name: str = "manifest.json") -> None:
    """Writes a manifest, unless it is there already."""
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
    """The last manifest of a store, or that of a name; None where there is none yet.

    Raises:
        AsdRayError: the file is there but is not a manifest of this version.
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
    """Refuses a store that was made with other settings, naming all that differ."""
    differing = [key for key in settings if manifest.settings.get(key) != settings[key]]
    if differing:
        found = ", ".join(f"{key} is {manifest.settings.get(key)} there and {settings[key]} here" for key in differing)
        raise AsdRayError(f"{store}: these features were built with other settings: {found}. Choose another folder.")


# --- Reading outside of training -------------------------------------------------------------------------------------


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
    tables = list(tables)
    clips = [clip for table in tables for clip in clips_of(table)]
    if not clips:
        return ClipTable([], np.empty((0, *shape), np.float16), np.empty(0, np.float32))
    blocks = [view for table in tables for view in views(table, "log_mel", COLUMNS["log_mel"], shape)]
    return ClipTable(clips, np.concatenate(blocks), np.concatenate([table["level_db"].to_numpy() for table in tables]))


def read_tables(store: Place, manifest: Manifest, split: str) -> Iterator[ClipTable]:
    """The Log-Mel features of a split, one shard in memory at a time."""
    for shard in manifest.shards.get(split, []):
        yield collect([read_joined(store, shard, ("log_mel",), ("level_db",))], manifest.shape)


def shard_paths(store: Place, manifest: Manifest, split: str, column: str = "log_mel") -> list[str]:
    """Paths or URIs of a split's files with a column."""
    storage = _storage(store)
    return [storage.url(shard.files[column]) for shard in manifest.shards.get(split, [])]


def _storage(store: Place) -> Storage:
    return store if isinstance(store, Storage) else Storage(store)
