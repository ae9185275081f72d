"""Download one file over HTTP: byte ranges in parallel, retried, and resumed after an interrupt.

Public archives throttle each connection (Zenodo: about 0.25 MB/s for one, 8 MB/s for 32), hence the parallel ranges.
All ranges go into ``NAME.part`` beside the target; ``NAME.part.json`` lists the finished ones. After a crash only
unfinished ranges are fetched again. Workers fetch and write; the calling thread keeps the journal and reports progress.
A server without ranges gets one plain request, from the start each time.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from asd_ray.data.public.unpack import explain_storage_errors
from asd_ray.errors import AsdRayError
from asd_ray.files import write_text

CHUNK = 16 << 20
"""Bytes per range request."""
BLOCK = 64 << 10
"""Bytes per read from a connection."""
TIMEOUT = (10.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes."""
ATTEMPTS = 5
"""Failures in a row before giving up."""
BACKOFF = 1.0
"""Seconds to wait after the first failure; doubled after each further one, up to a minute."""
_RETRIED = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class Source:
    """A file on a server: size in bytes (None: unknown), and whether the server supports ranges."""

    url: str
    size: int | None
    ranges: bool


class _Transient(Exception):
    """A failure worth a retry; ``wait`` is the server's Retry-After in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def open_session(connections: int) -> requests.Session:
    """Open a session that keeps up to ``connections`` connections per server."""
    session = requests.Session()
    session.headers["User-Agent"] = "asd-ray"
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_connections=2, pool_maxsize=connections))
    return session


def locate(session: requests.Session, url: str) -> Source:
    """Request a file's first byte to learn its size and whether ranges work.

    Raises:
        AsdRayError: the file is missing (404), or the server is unreachable or keeps failing.
    """
    failures = 0
    while True:
        try:
            with _get(session, url, "bytes=0-0") as response:
                if response.status_code == 206:
                    b"".join(_blocks(response))  # read all, so that the connection is reused
                    match = re.fullmatch(r"bytes 0-0/(\d+)", response.headers.get("Content-Range", ""))
                    if match is None:
                        raise _Transient("the server answered with another range than was asked for")
                    return Source(url, int(match[1]), ranges=True)
                length = response.headers.get("Content-Length", "")
                return Source(url, int(length) if length.isdecimal() else None, ranges=False)
        except _Transient as error:
            failures += 1
            time.sleep(_delay(url, error, failures))


def fetch(
    session: requests.Session, source: Source, target: Path, connections: int, report: Callable[[int], None]
) -> None:
    """Fetch a file, or the rest of an interrupted fetch, to ``target``.

    The size is checked; verifying the content is the caller's task.

    Args:
        report: called with the bytes present: at the start, as they arrive, and at least once per second.

    Raises:
        AsdRayError: the server keeps failing, the file is gone, or the disk is full. Fetched bytes are kept.
    """
    part = target.with_name(f"{target.name}.part")
    journal = part.with_name(f"{part.name}.json")
    with explain_storage_errors(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        spans, finished = _plan(source, part, journal)
        done = sum(min(CHUNK, (source.size or 0) - start) for start in finished)
        report(done)
        pending: SimpleQueue[range] = SimpleQueue()
        events: SimpleQueue[int | range | BaseException] = SimpleQueue()
        stop = threading.Event()
        waiting = [span for span in spans if span.start not in finished]
        for span in waiting:
            pending.put(span)
        # Daemons: a worker waiting for a silent server must not block the end of an interrupted program.
        workers = [
            threading.Thread(target=_work, args=(session, source, part, pending, events, stop), daemon=True)
            for _ in range(min(connections, len(waiting)))
        ]
        try:
            for worker in workers:
                worker.start()
            left = len(waiting)
            while left:
                try:
                    event = events.get(timeout=1.0)
                except Empty:
                    event = 0
                if isinstance(event, BaseException):
                    raise event
                if isinstance(event, range):
                    left -= 1
                    finished.add(event.start)
                    if source.ranges:
                        write_text(journal, _journal(source, finished))
                else:
                    done += event
                report(done)
        finally:
            stop.set()
            deadline = time.monotonic() + 1.0
            for worker in workers:
                worker.join(max(0.0, deadline - time.monotonic()))
        os.replace(part, target)
        journal.unlink(missing_ok=True)


def partial_bytes(target: Path) -> int:
    """Count the bytes on disk of an interrupted ``fetch`` to ``target``."""
    try:
        return target.with_name(f"{target.name}.part").stat().st_blocks * 512
    except OSError:
        return 0


def without_credentials(url: str) -> str:
    """Remove user and password from a URL."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _plan(source: Source, part: Path, journal: Path) -> tuple[list[range], set[int]]:
    """List the file's ranges and the starts of the finished ones. Creates ``part`` as a sparse file if missing."""
    if not source.ranges or source.size is None:
        part.write_bytes(b"")
        return [range(source.size or 0)], set()
    spans = [range(start, min(start + CHUNK, source.size)) for start in range(0, source.size, CHUNK)]
    with suppress(OSError, ValueError, KeyError, TypeError):
        noted = json.loads(journal.read_text(encoding="utf-8"))
        if (noted["size"], noted["chunk"], part.stat().st_size) == (source.size, CHUNK, source.size):
            return spans, {span.start for span in spans} & set(noted["finished"])
    journal.unlink(missing_ok=True)  # first: an old journal must not describe the new file
    with part.open("wb") as out:
        out.truncate(source.size)
    return spans, set()


def _journal(source: Source, finished: set[int]) -> str:
    return json.dumps({"size": source.size, "chunk": CHUNK, "finished": sorted(finished)})


def _work(
    session: requests.Session,
    source: Source,
    part: Path,
    pending: SimpleQueue[range],
    events: SimpleQueue[int | range | BaseException],
    stop: threading.Event,
) -> None:
    """Fetch ranges until none is left. Posts received bytes, finished ranges, and the error that ends the worker."""
    try:
        with part.open("r+b") as out:
            while not stop.is_set():
                try:
                    span = pending.get_nowait()
                except Empty:
                    return
                for received in _receive(session, source, span, out, stop):
                    events.put(received)
                out.flush()
                if not stop.is_set():
                    events.put(span)
    except BaseException as error:
        events.put(error)


def _receive(
    session: requests.Session, source: Source, span: range, out: BinaryIO, stop: threading.Event
) -> Iterator[int]:
    """Write a range to its place; yield the bytes received, negative for bytes to fetch again."""
    position, failures = span.start, 0
    while True:
        try:
            wanted = f"bytes={position}-{span.stop - 1}" if source.ranges else None
            with _get(session, source.url, wanted) as response:
                expected = f"bytes {position}-{span.stop - 1}/{source.size}"
                if source.ranges and response.headers.get("Content-Range") != expected:
                    raise _Transient("the server answered with another range than was asked for")
                out.seek(position)
                for block in _blocks(response):
                    if stop.is_set():
                        return
                    data = block[: span.stop - position] if source.size is not None else block
                    out.write(data)
                    position += len(data)
                    failures = 0 if source.ranges else failures
                    yield len(data)
            if source.size is None or position == span.stop:
                return
            raise _Transient(f"the connection ended at byte {position} of {source.size}")
        except _Transient as error:
            failures += 1
            if not source.ranges:
                yield span.start - position
                position = span.start
            if stop.wait(_delay(source.url, error, failures)):
                return


def _get(session: requests.Session, url: str, span: str | None) -> requests.Response:
    """Send a request; the caller reads the body."""
    # identity: a compressed answer would have another size and other ranges.
    headers = {"Accept-Encoding": "identity"} | ({"Range": span} if span else {})
    try:
        response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _Transient(_reason(error)) from None
    except requests.RequestException as error:
        raise AsdRayError(f"{without_credentials(url)}: the request failed ({type(error).__name__}).") from None
    status = response.status_code
    if status in (200, 206):
        return response
    response.close()
    if status in _RETRIED:
        after = response.headers.get("Retry-After", "")
        raise _Transient(f"the server answered {status} {response.reason}", float(after) if after.isdecimal() else 0.0)
    raise AsdRayError(
        f"{without_credentials(url)}: the server answered {status} {response.reason}; expected the file. "
        "Check the address, or name a mirror that has it (--base-url)."
    )


def _blocks(response: requests.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_content(BLOCK)
    except requests.RequestException as error:
        raise _Transient(_reason(error)) from None


def _delay(url: str, error: _Transient, failures: int) -> float:
    """Seconds to wait before the next attempt.

    Raises:
        AsdRayError: too many failures.
    """
    if failures >= ATTEMPTS:
        raise AsdRayError(
            f"{without_credentials(url)}: {error}, {failures} times in a row; check the network and the server, "
            "then run the same command again: what is there is kept."
        ) from None
    return min(60.0, max(error.wait, BACKOFF * 2 ** (failures - 1)))


def _reason(error: BaseException) -> str:
    """Describe the innermost cause of a failed connection."""
    while error.__context__ is not None:
        error = error.__context__
    return f"the connection failed ({error or type(error).__name__})"
