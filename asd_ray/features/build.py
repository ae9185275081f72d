"""Build a feature store with Ray Data: only shards that are missing or changed."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from asd_ray.config import Channel, FeatureConfig
from asd_ray.data.clips import Clip
from asd_ray.errors import AsdRayError
from asd_ray.features.extract import Extractor, Outcome, Recipe, Sources, serial, to_json
from asd_ray.features.plan import ShardPlan, choice, make_manifest, plan_shards
from asd_ray.features.storage import Storage
from asd_ray.features.store import (
    FINGERPRINT_COLUMNS,
    SHARD_NAME,
    Manifest,
    Place,
    hash_of_settings,
    read_manifest,
    require_settings,
    settings_of,
    shard_summary,
    write_manifest,
)

log = logging.getLogger("asd_ray")
THREADS = 8  # that read and verify files
FEW = 1000  # clips that one core can process while a worker starts
AHEAD = 16  # tasks queued at a worker
TOGETHER = 4  # shards per task: a task costs Ray 15 ms of a core, a shard takes 150 ms
Tasks = Callable[[list[dict[str, Any]], Recipe], Iterator[Outcome]]
"""Runs the tasks of a build, in any order."""


@dataclass(frozen=True)
class Built:
    """Result of a build.

    Attributes:
        manifest: of the finished store.
        decoded: number of clips whose recordings were read.
        reused: number of clips in new files whose features came from older files.
        written: number of new files.
        kept: number of valid files that were there before.
        damaged: names of files with a wrong checksum.
        deleted: number of files deleted because nothing refers to them.
    """

    manifest: Manifest
    decoded: int
    reused: int
    written: int
    kept: int
    damaged: tuple[str, ...]
    deleted: int


def build(
    clips: Sequence[Clip],
    root: Path,
    store: Place,
    features: FeatureConfig,
    channel: Channel = 0,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
    columns: Sequence[str] = ("log_mel",),
    prune: bool = False,
    tasks: Tasks | None = None,
    few: int = 0,
) -> Built:
    """Build the missing and changed shards of a feature store.

    Existing files are read once, by threads of this process, to verify their checksums (Log-Mel of 3,000 clips in the
    page cache: 0.3 s on two busy cores). If one clip of a shard has changed, the features of the others are reused.
    Finished files survive an interruption. A worker holds one shard in memory (about 10 MB of Log-Mel and 40 MB of
    waveforms), whatever the size of the data set.

    Args:
        clips: the data set; clips of split ``extra`` have absolute paths.
        root: the data set's folder.
        store: folder or URI of the store, see :class:`asd_ray.features.storage.Storage`.
        features: settings of the features; ``gpus_per_task`` decides where Log-Mel is computed.
        channel: of a recording with several channels.
        skip_bad: leave out clips that cannot be read, with a warning.
        progress: called with (clips done, clips in all).
        columns: ``log_mel``, and ``waveform`` if a method needs it. Other columns in the store stay.
        prune: delete shards that no manifest of the store lists. Use it for a store of one study and for
            ``features build``. A study that streams from a shared store loses shards whose recordings have changed.
        tasks: runs the work. By default Ray Data on all cores, for which Ray must be running;
            :func:`asd_ray.features.extract.serial` makes the same files in this process.
        few: builds of up to this many clips run with ``serial`` on a CPU: it is done before a worker has started.

    Raises:
        AsdRayError: a clip cannot be read (and ``skip_bad`` is not set), the store has other features, or the disk is
            full.
    """
    storage = store if isinstance(store, Storage) else Storage(store)
    columns = tuple(dict.fromkeys(("log_mel", *columns)))  # means and baselines need it
    settings = settings_of(features, channel)
    before = read_manifest(storage)
    if before is not None:
        require_settings(before, settings, storage)
    plans = plan_shards(clips, root, settings)
    everything = [plan for split in plans.values() for plan in split]
    listed = storage.names()
    files, summaries, damaged, incomplete = _valid_files(storage, everything, columns, listed, skip_bad)
    kept = len(files)
    work = [(plan, [name for name in columns if plan.stem(name) not in files]) for plan in everything]
    work = [(plan, names) for plan, names in work if names]
    missing = sum(len(plan.clips) for plan, _ in work)
    done = len(clips) - missing
    if tasks is None:
        tasks = serial if missing <= few and not features.gpus_per_task else _run
    if progress:
        progress(done, len(clips))
    decoded = reused = 0
    chosen = choice(clips, root, columns)
    if work:
        # These shards have no manifest yet: this file protects them from another build's prune.
        storage.write(f"building-{chosen}.json", json.dumps([plan.name for plan in everything]).encode())
        rows = _rows(storage, work, listed - set(files.values()) - set(damaged), settings)
        recipe = Recipe(root.resolve(), storage, features, channel, skip_bad)
        for outcome in tasks(rows, recipe):
            if outcome.error:
                raise AsdRayError(outcome.error)
            files |= outcome.files
            summaries |= outcome.summaries
            decoded += outcome.decoded
            reused += outcome.clips - outcome.decoded
            done += outcome.clips
            if progress:
                progress(done, len(clips))
    manifest = make_manifest(plans, files, summaries, columns, settings)
    for path in manifest.skipped:
        log.warning("left out, cannot be read: %s", path)
    if not manifest.counts["train"]:
        raise AsdRayError(f"{root}: no training clip could be read; a study needs normal clips to train on.")
    for name in (f"manifest-{chosen}.json", "manifest.json"):
        write_manifest(storage, manifest, name)
    storage.delete(f"building-{chosen}.json")
    stale = {*damaged, *incomplete} - set(files.values())
    if prune:
        stale |= _unreferenced(storage)
    for name in stale:
        storage.delete(name)
    storage.delete_dead_parts()
    return Built(manifest, decoded, reused, len(files) - kept, kept, tuple(damaged), len(stale))


def _valid_files(
    storage: Storage, plans: Sequence[ShardPlan], columns: Sequence[str], listed: set[str], skip_bad: bool
) -> tuple[dict[str, str], dict[str, dict[str, Any]], list[str], list[str]]:
    """Valid files and their summaries, both by stem; names of damaged files; names of files that skipped clips which
    are needed now."""
    wanted = {plan.stem(column) for plan in plans for column in columns}
    there = sorted(name for name in listed if SHARD_NAME.fullmatch(name) and name.rpartition("-")[0] in wanted)
    files: dict[str, str] = {}
    summaries: dict[str, dict[str, Any]] = {}
    damaged: list[str] = []
    incomplete: list[str] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for name, summary in zip(there, pool.map(lambda name: shard_summary(storage, name), there), strict=True):
            stem = name.rpartition("-")[0]
            if summary is None:
                log.warning("%s: damaged; building it again", storage.url(name))
                damaged.append(name)
            elif summary["bad"] and not skip_bad:
                incomplete.append(name)
            else:
                files[stem], summaries[stem] = name, summary
    return files, summaries, damaged, incomplete


def _rows(
    storage: Storage, work: Sequence[tuple[ShardPlan, list[str]]], others: set[str], settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """The tasks' arguments, with the places of features that older shards of the same settings have."""
    held: dict[str, dict[tuple[str, int, int], tuple[str, int]]] = {}
    missing = {name for _, names in work for name in names}
    older = sorted(name for name in others if (m := SHARD_NAME.fullmatch(name)) and m["column"] in missing)
    about = hash_of_settings(settings)

    def identities(name: str) -> pa.Table | None:
        try:
            with storage.open(name) as file:
                table = pq.read_table(file, columns=["path", *FINGERPRINT_COLUMNS], use_threads=False)
            return table if json.loads(table.schema.metadata[b"asd_ray"])["settings"] == about else None
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException):
            return None  # damaged, missing, or no shard: its clips are decoded

    with ThreadPoolExecutor(THREADS) as pool:
        for name, table in zip(older, pool.map(identities, older), strict=True):
            if table is not None:
                column = name.partition("-")[0]
                rows_of = zip(*(table[key].to_pylist() for key in table.column_names), strict=True)
                held.setdefault(column, {}).update({key: (name, row) for row, key in enumerate(rows_of)})
    rows: list[dict[str, Any]] = []
    for plan, names in work:
        keys = [(clip.path, *print_) for clip, print_ in zip(plan.clips, plan.fingerprints, strict=True)]
        sources: Sources = {name: [held.get(name, {}).get(key) for key in keys] for name in names}
        rows.append({"work": to_json(plan, names, sources)})
    return rows


def _run(rows: list[dict[str, Any]], recipe: Recipe) -> Iterator[Outcome]:
    """Run the tasks with Ray Data on every core (or share of a GPU) of the cluster, also of nodes that join later.

    Ray Data looks for finished tasks ten times a second. An actor has its next tasks queued by then; with plain tasks a
    core would wait 0.2 s, longer than a shard takes.
    """
    total, share = ray.cluster_resources(), recipe.features.gpus_per_task
    room = min(total.get("CPU", 0), total.get("GPU", 0) / share if share else len(rows), len(rows))
    workers = max(1, int(room))
    # Enough tasks that the last ones do not queue at one worker while another is idle.
    tasks = math.ceil(len(rows) / max(1, min(TOGETHER, len(rows) // (16 * workers))))
    ahead = max(1, min(AHEAD, tasks // (2 * workers)))
    pool = ray.data.ActorPoolStrategy(
        min_size=workers, max_size=tasks if ahead > 1 else workers, max_tasks_in_flight_per_actor=ahead
    )
    dataset = ray.data.from_items(rows, override_num_blocks=tasks).map(
        Extractor, fn_constructor_kwargs={"recipe": recipe}, compute=pool, num_cpus=1, num_gpus=share or None
    )
    for row in dataset.iter_rows():
        yield Outcome(**json.loads(row["outcome"]))


def _unreferenced(storage: Storage) -> set[str]:
    """Shards that no manifest lists and no running build has planned."""
    listed = storage.names()
    named: set[str] = set()
    planned: set[str] = set()
    for name in listed:
        if name.startswith("manifest-") and (manifest := read_manifest(storage, name)):
            named |= {file for shards in manifest.shards.values() for shard in shards for file in shard.files.values()}
        elif name.startswith("building-"):
            planned |= set(json.loads(storage.read(name).to_pybytes()))
    shards = {name for name in listed if SHARD_NAME.fullmatch(name)}
    return {name for name in shards - named if name.partition("-")[2].rpartition("-")[0] not in planned}
