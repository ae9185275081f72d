"""Download a public data set: fetch, verify, unpack, attach the labels of the evaluation set.

Every step can be interrupted and repeated; complete steps are skipped. ``<root>/.downloads`` keeps the state: an
archive until it is unpacked, then a list of its members.

A mirror (``base_url``, or the environment variable ``ASD_RAY_BASE_URL``) has each file at
``{base_url}/{record}/{file}``, for example ``{base_url}/3678171/dev_data_fan.zip`` and
``{base_url}/dcase2022_evaluator/ground_truth_data/ground_truth_fan_section_03_test.csv`` (records: ``registry``).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import requests

from asd_ray.data.public import ground_truth, transfer
from asd_ray.data.public.registry import PARTS, Registry, RemoteFile, find_registry
from asd_ray.data.public.unpack import CorruptedFile, has_size, require_space, unpack
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.files import alone, write_text

BASE_URL_VARIABLE = "ASD_RAY_BASE_URL"
EXPANSION = 1.35
"""Upper estimate of unpacked over packed size of a DCASE archive (2020: 1.12 to 1.32)."""

INTERVAL = 0.2
"""Seconds between two progress reports of a step."""
WINDOW = 10.0
"""Seconds over which the rate is averaged."""

_STORE = ".downloads"

log = logging.getLogger("asd_ray")


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a download.

    Attributes:
        file: name.
        step: ``download`` or ``unpack``.
        number: of the file, from 1.
        count: number of files.
        done: bytes done.
        total: bytes in all; None if the server does not say.
        rate: bytes per second over the last ten seconds.
        seconds_left: of this step at that rate; None if unknown.
    """

    file: str
    step: str
    number: int
    count: int
    done: int
    total: int | None
    rate: float
    seconds_left: float | None


class Meter:
    """Turn a step's byte counts into ``Progress``, a few times per second and at its end."""

    def __init__(
        self,
        notify: Callable[[Progress], None] | None,
        file: str,
        step: str,
        number: int,
        count: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notify, self._clock = notify, clock
        self._what = (file, step, number, count)
        self._samples: deque[tuple[float, int]] = deque()

    def __call__(self, done: int, total: int | None) -> None:
        if self._notify is None:
            return
        now = self._clock()
        if self._samples and now - self._samples[-1][0] < INTERVAL and done != total:
            return
        self._samples.append((now, done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - WINDOW:
            self._samples.popleft()
        start, before = self._samples[0]
        rate = max(0.0, (done - before) / (now - start)) if now > start else 0.0
        left = (total - done) / rate if rate and total is not None else None
        self._notify(Progress(*self._what, done, total, rate, left))


def progress_line(progress: Progress) -> str:
    """Format as ``[3/18] fan.zip  download  0.41 of 1.35 GB   30%  8.1 MB/s  1 min 56 s left``."""
    unit, scale = ("GB", 1e9) if max(progress.done, progress.total or 0) >= 1e9 else ("MB", 1e6)
    amount = f"{progress.done / scale:.2f}"
    if progress.total is not None:
        amount += f" of {progress.total / scale:.2f} {unit}  {progress.done / max(progress.total, 1):4.0%}"
    else:
        amount += f" {unit}"
    place = f"[{progress.number}/{progress.count}] {progress.file}  {progress.step}"
    line = f"{place}  {amount}  {progress.rate / 1e6:.1f} MB/s"
    if progress.seconds_left is None:
        return line
    seconds = round(progress.seconds_left)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    left = f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return f"{line}  {left} left"


def download(
    name: str,
    root: str | Path,
    machines: Sequence[str] | None = None,
    parts: Sequence[str] = PARTS,
    base_url: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    connections: int = 8,
    registry: Registry | None = None,
) -> list[Path]:
    """Download the missing files of a public data set to ``<root>/<machine>/train|test/``.

    With the part ``eval``, each machine also gets its ``test_labels.csv`` from the published ground truth.

    Args:
        name: ``dcase2020`` or ``dcase2022``.
        machines: machine types; all by default.
        parts: any of ``dev``, ``additional``, ``eval``.
        base_url: a mirror (see the module); by default ``ASD_RAY_BASE_URL``, else the publishers.
        progress: called in the calling thread, a few times per second.
        connections: parallel requests per file.
        registry: replaces the registry of ``name``.

    Returns:
        The machines' folders.

    Raises:
        ConfigError: an unknown name, machine or part; an invalid base URL.
        AsdRayError: a missing file, a failing server, a file corrupted twice, a refused archive, too little disk
            space, another download to the same root.

    Example:
        >>> download("dcase2020", "dcase2020", machines=["fan"], parts=["dev"])
    """
    registry = registry or find_registry(name)
    base_url = base_url or os.environ.get(BASE_URL_VARIABLE) or None
    if base_url and not base_url.startswith(("http://", "https://")):
        raise ConfigError(f"base URL {base_url!r}: expected an address that starts with http:// or https://.")
    if connections < 1:
        raise ConfigError(f"found {connections} connections; expected at least 1.")
    chosen, archives = registry.select(machines, parts)
    root = Path(root)
    store = root / _STORE
    try:
        store.mkdir(parents=True, exist_ok=True)
        (store / "lock").touch()
    except OSError as error:
        raise AsdRayError(f"{store}: cannot be written ({error.strerror}); choose another folder.") from None
    running = f"{store}: another download to this folder is running"
    with alone(store / "lock", running), transfer.open_session(connections) as session:
        job = _Job(session, root, base_url, progress, connections)
        archives = [file for file in archives if not job.is_unpacked(file)]
        lists = {}
        if "eval" in parts:
            renewed = {file.machine for file in archives if file.part == "eval"}
            for machine in chosen:
                if machine in renewed or not ground_truth.is_attached(registry, root / machine):
                    lists[machine] = [file for file in registry.ground_truth if file.machine in (machine, None)]
        job.locate([*archives, *dict.fromkeys(file for files in lists.values() for file in files)])
        job.check_space(archives)
        for file in archives:
            job.obtain([file], partial(job.unpack, file))
        for machine, files in lists.items():
            job.obtain(files, partial(ground_truth.attach, registry, root / machine))
        job.remove({file for files in lists.values() for file in files})
    return [root / machine for machine in chosen]


class _Job:
    """One call of ``download``: its files on the server and on disk."""

    def __init__(
        self,
        session: requests.Session,
        root: Path,
        base_url: str | None,
        progress: Callable[[Progress], None] | None,
        connections: int,
    ) -> None:
        self._session, self._root, self._base_url = session, root, base_url
        self._progress, self._connections = progress, connections
        self._sources: dict[RemoteFile, transfer.Source] = {}
        self._numbers: dict[RemoteFile, int] = {}

    def is_unpacked(self, file: RemoteFile) -> bool:
        """True if the archive was unpacked and all members still exist."""
        try:
            noted = json.loads(self._marker(file).read_text(encoding="utf-8"))
            if (noted["size"], noted["md5"]) != (file.size, file.md5):
                return False
            return all(has_size(self._root / name, size) for name, size in noted["members"].items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def locate(self, files: Sequence[RemoteFile]) -> None:
        """Ask the server for all files first: a missing one should not surface hours later."""
        self._numbers = {file: number for number, file in enumerate(files, 1)}
        for file in files:
            if not self._path(file).exists():
                self._source(file)

    def check_space(self, archives: Sequence[RemoteFile]) -> None:
        """Require space for all archives unpacked and the largest one packed (an unpacked archive is removed)."""
        missing = [file for file in archives if file in self._sources]
        sizes = [self._sources[file].size or 0 for file in missing]
        there = sum(transfer.partial_bytes(self._path(file)) for file in missing)
        require_space(self._root, EXPANSION * sum(sizes) + max(sizes, default=0) - there, "the download")

    def obtain(self, files: Sequence[RemoteFile], use: Callable[[list[Path]], object]) -> None:
        """Fetch files and use them; a second time if one is corrupted."""
        try:
            self._attempt(files, use)
        except CorruptedFile as error:
            log.warning("%s It is fetched again.", error)
            self._attempt(files, use)

    def unpack(self, file: RemoteFile, paths: list[Path]) -> None:
        """Unpack a verified archive, list its members, and remove it."""
        (archive,) = paths
        members = unpack(archive, self._root, str(file.machine), self._meter(file, "unpack"))
        noted = {"size": file.size, "md5": file.md5, "members": members}
        write_text(self._marker(file), json.dumps(noted))
        archive.unlink()

    def remove(self, files: set[RemoteFile]) -> None:
        for file in files:
            self._path(file).unlink(missing_ok=True)

    def _attempt(self, files: Sequence[RemoteFile], use: Callable[[list[Path]], object]) -> None:
        paths = [self._path(file) for file in files]
        try:
            for file, path in zip(files, paths, strict=True):
                if not path.exists():
                    self._fetch(file, path)
                self._verify(file, path)
            use(paths)
        except CorruptedFile:
            for path in paths:
                path.unlink(missing_ok=True)
            raise

    def _fetch(self, file: RemoteFile, path: Path) -> None:
        source, meter = self._source(file), self._meter(file, "download")
        transfer.fetch(self._session, source, path, self._connections, lambda done: meter(done, source.size))

    def _verify(self, file: RemoteFile, path: Path) -> None:
        size = path.stat().st_size
        if file.size is not None and size != file.size:
            raise CorruptedFile(f"{path}: found {size} bytes; expected {file.size}.")
        if file.md5 and (found := _md5(path)) != file.md5:
            raise CorruptedFile(f"{path}: the file is corrupted: found MD5 {found}; expected {file.md5}.")

    def _source(self, file: RemoteFile) -> transfer.Source:
        if file not in self._sources:
            source = transfer.locate(self._session, file.url(self._base_url))
            if file.size is not None and source.size not in (None, file.size):
                raise AsdRayError(
                    f"{transfer.without_credentials(source.url)}: the server has {source.size} bytes; expected "
                    f"{file.size}, the published file's size. Name a server that has the whole file (--base-url)."
                )
            self._sources[file] = source
        return self._sources[file]

    def _meter(self, file: RemoteFile, step: str) -> Meter:
        return Meter(self._progress, Path(file.name).name, step, self._numbers[file], len(self._numbers))

    def _path(self, file: RemoteFile) -> Path:
        return self._root / _STORE / file.record / file.name

    def _marker(self, file: RemoteFile) -> Path:
        path = self._path(file)
        return path.with_name(f"{path.name}.unpacked.json")


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
