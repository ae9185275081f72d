from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from asd_ray.data.public import transfer
from asd_ray.errors import AsdRayError
from tests.data.public.range_server import BLOCK, Cut, RangeServer, serve

CHUNK = 4 * BLOCK
CONTENT = os.urandom(10 * CHUNK + 700)
SIZE = len(CONTENT)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(transfer, "CHUNK", CHUNK)
    monkeypatch.setattr(transfer, "BLOCK", BLOCK)
    monkeypatch.setattr(transfer, "BACKOFF", 0.0)


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with serve({"a.zip": CONTENT}) as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "store" / "a.zip"


def get(
    server: RangeServer, target: Path, connections: int = 4, report: Callable[[int], None] = lambda n: None
) -> None:
    """Locates and fetches the file, and finds it whole."""
    with transfer.open_session(connections) as session:
        source = transfer.locate(session, f"{server.url}/a.zip")
        transfer.fetch(session, source, target, connections, report)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["a.zip"]


def chunks(*numbers: int) -> list[str]:
    """The Range headers of these chunks."""
    return [f"bytes={n * CHUNK}-{min((n + 1) * CHUNK, SIZE) - 1}" for n in numbers]


def test_each_range_is_asked_for_once(server: RangeServer, target: Path) -> None:
    told: list[int] = []
    get(server, target, report=told.append)
    assert sorted(server.spans()) == sorted(chunks(*range(11)))
    assert (told[0], told[-1]) == (0, SIZE)
    assert told == sorted(told)
    assert server.encodings == {"identity"}  # ranges of a compressed answer would be others


def test_ranges_are_fetched_in_parallel(server: RangeServer, target: Path) -> None:
    """None of the first four is answered before all four have been asked for."""
    together = threading.Barrier(4, timeout=30)

    def meet(path: str, position: int) -> None:
        if server.spans() and position in (0, CHUNK, 2 * CHUNK, 3 * CHUNK):
            together.wait()

    server.before_block = meet
    get(server, target)


# An empty file has no first byte to ask a server with ranges for.
@pytest.mark.parametrize(("size", "ranges"), [(0, False), (1, True), (CHUNK, True), (CHUNK + 1, True), (CHUNK, False)])
def test_sizes_around_a_chunk(tmp_path: Path, size: int, ranges: bool) -> None:
    with serve({"b": CONTENT[:size]}) as server, transfer.open_session(2) as session:
        server.ranges = ranges
        transfer.fetch(session, transfer.locate(session, f"{server.url}/b"), tmp_path / "b", 2, lambda done: None)
    assert (tmp_path / "b").read_bytes() == CONTENT[:size]


def test_an_interrupt_costs_only_the_unfinished_ranges(server: RangeServer, target: Path) -> None:
    def interrupt(done: int) -> None:
        if done >= 3.5 * CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(server, target, connections=1, report=interrupt)
    asked = len(server.requests)
    assert not target.exists()
    finished = json.loads(Path(f"{target}.part.json").read_text())["finished"]
    assert finished == [0, CHUNK, 2 * CHUNK]
    told: list[int] = []
    get(server, target, report=told.append)
    assert told[0] == 3 * CHUNK
    assert sorted(server.spans(asked)) == sorted(chunks(*range(3, 11)))


def test_a_killed_process_is_resumed(server: RangeServer, target: Path) -> None:
    """SIGKILL while the server holds the fourth range back; the process itself says that three are in the journal."""
    release = threading.Event()

    def hold(path: str, position: int) -> None:
        if position == 3 * CHUNK:
            release.wait(60)
            raise Cut

    server.before_block = hold
    script = f"""
from pathlib import Path
from asd_ray.data.public import transfer
transfer.CHUNK, transfer.BLOCK = {CHUNK}, {BLOCK}
target = Path({str(target)!r})
journal = Path({str(target)!r} + ".part.json")
def say(done):
    if journal.exists() and "[0, {CHUNK}, {2 * CHUNK}]" in journal.read_text():
        print("three ranges", flush=True)
session = transfer.open_session(1)
transfer.fetch(session, transfer.locate(session, {server.url + "/a.zip"!r}), target, 1, say)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "three ranges\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        release.set()
    assert process.returncode == -signal.SIGKILL
    server.before_block = lambda path, position: None
    asked = len(server.requests)
    get(server, target)
    assert sorted(server.spans(asked)) == sorted(chunks(*range(3, 11)))


def test_a_connection_that_breaks_again_and_again_continues_where_it_broke(
    server: RangeServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More often, in one range, than failures in a row are allowed: those with bytes in between do not add up."""
    monkeypatch.setattr(transfer, "CHUNK", 2 * SIZE)
    broken: set[int] = set()

    def cut(path: str, position: int) -> None:
        if position % (2 * BLOCK) == 0 and position and position not in broken:
            broken.add(position)
            raise Cut

    server.before_block = cut
    get(server, target, connections=1)
    assert len(broken) == 20 > transfer.ATTEMPTS
    assert server.served["a.zip"] == SIZE + 1


def test_a_slow_server_is_seen_to_progress(server: RangeServer, target: Path) -> None:
    """The server sends a block only after the client has told of the one before."""
    told = threading.Semaphore(0)
    seen: list[int] = []

    def wait(path: str, position: int) -> None:
        if server.spans():
            assert told.acquire(timeout=30)

    def tell(done: int) -> None:
        if not seen or done > seen[-1]:
            seen.append(done)
            told.release()

    server.before_block = wait
    get(server, target, connections=1, report=tell)
    assert seen == [*range(0, SIZE, BLOCK), SIZE]


def test_a_silent_server_is_waited_for_no_longer_than_the_timeout(
    server: RangeServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One connection gets no bytes; the next attempt does."""
    monkeypatch.setattr(transfer, "TIMEOUT", (10.0, 0.5))
    release, held = threading.Event(), threading.Event()

    def hold(path: str, position: int) -> None:
        if position == CHUNK and not held.is_set():
            held.set()
            release.wait(30)
            raise Cut

    server.before_block = hold
    get(server, target)
    release.set()
    assert server.spans().count(chunks(1)[0]) >= 2


def test_server_errors_are_retried(server: RangeServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[tuple[int, dict[str, str]] | None] = [(503, {}), (429, {"Retry-After": "7"}), None]
    answers += [(500, {}), (502, {}), (504, {})]
    server.answer = lambda path, span: answers.pop(0) if answers else None
    waits: list[float] = []
    monkeypatch.setattr(transfer, "BACKOFF", 0.001)
    monkeypatch.setattr(transfer.time, "sleep", waits.append)
    get(server, target, connections=1)
    assert answers == []
    assert waits == [0.001, 7.0]


def test_waits_double_up_to_a_minute_and_then_the_request_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BACKOFF", 1.0)
    monkeypatch.setattr(transfer, "ATTEMPTS", 9)
    error = transfer._Transient("the server answered 503")
    assert [transfer._delay("http://x", error, n) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    with pytest.raises(AsdRayError, match=r"http://x: the server answered 503, 9 times in a row; check the network"):
        transfer._delay("http://x", error, 9)


def test_a_server_that_keeps_failing_is_given_up(server: RangeServer, target: Path) -> None:
    server.answer = lambda path, span: (503, {}) if span in chunks(2) else None
    with pytest.raises(AsdRayError, match=r"a\.zip: the server answered 503 .*, 5 times in a row; check the network"):
        get(server, target, connections=1)
    assert server.spans() == [*chunks(0, 1), *chunks(2) * 5]
    server.answer = lambda path, span: None
    get(server, target, connections=1)
    assert server.spans()[7:] == chunks(*range(2, 11))


def test_a_server_that_is_not_there_is_named() -> None:
    with serve({}) as server:
        url = server.url
    with transfer.open_session(1) as session:
        with pytest.raises(AsdRayError, match=rf"{url}/a\.zip: the connection failed \(.*refused\), 5 times in a row"):
            transfer.locate(session, f"{url}/a.zip")
        with pytest.raises(AsdRayError, match="http://: the request failed"):
            transfer.locate(session, "http://")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_the_server_refuses_is_not_asked_for_again(server: RangeServer, target: Path, status: int) -> None:
    server.answer = lambda path, span: (status, {})
    with pytest.raises(AsdRayError, match=rf"{server.url}/a\.zip: the server answered {status} .*--base-url"):
        get(server, target)
    assert len(server.requests) == 1


def test_a_server_that_sends_the_whole_file_for_a_range_is_not_believed(server: RangeServer, target: Path) -> None:
    def forget_ranges(path: str, span: str) -> None:
        server.ranges = len(server.requests) != 3

    server.answer = forget_ranges
    get(server, target, connections=1)
    assert server.spans()[:3] == chunks(0, 1, 1)


def test_a_server_that_sends_more_than_the_range_is_not_believed(server: RangeServer, target: Path) -> None:
    server.greedy = True
    with pytest.raises(AsdRayError, match="another range than was asked for, 5 times"):
        get(server, target, connections=1)
    assert server.spans() == chunks(0) * 5


def test_a_file_that_changes_its_size_meanwhile_is_not_mixed(server: RangeServer, target: Path) -> None:
    def grow(path: str, span: str) -> None:
        if span == chunks(2)[0]:
            server.files["a.zip"] = CONTENT + b"more"

    server.answer = grow
    with pytest.raises(AsdRayError, match="another range than was asked for"):
        get(server, target, connections=1)
    assert not target.exists()


@pytest.mark.parametrize("lengths", [True, False])
def test_a_server_without_ranges_gets_one_request(server: RangeServer, target: Path, lengths: bool) -> None:
    server.ranges, server.lengths = False, lengths
    told: list[int] = []
    get(server, target, report=told.append)
    assert server.spans() == [""]
    assert told[-1] == SIZE


def test_without_ranges_a_broken_stream_starts_again(server: RangeServer, target: Path) -> None:
    server.ranges = False
    told: list[int] = []

    def cut(path: str, position: int) -> None:
        if position == 8 * BLOCK and len(server.spans()) == 1:
            raise Cut

    server.before_block = cut
    get(server, target, report=told.append)
    assert told == [*range(0, 9 * BLOCK, BLOCK), *range(0, SIZE, BLOCK), SIZE, SIZE]


def test_without_ranges_a_stream_that_always_breaks_is_given_up(server: RangeServer, target: Path) -> None:
    """Although bytes came each time: the file would never end."""
    server.ranges = False

    def cut(path: str, position: int) -> None:
        if position == 8 * BLOCK:
            raise Cut

    server.before_block = cut
    with pytest.raises(AsdRayError, match=r"the connection failed .*, 5 times in a row"):
        get(server, target)
    assert server.spans() == [""] * 5


def test_a_full_disk_is_one_error_and_can_be_resumed(
    server: RangeServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def receive(session, source, span, out, stop):
        if span.start == 3 * CHUNK:
            out = SimpleNamespace(seek=out.seek, write=full)
        return original(session, source, span, out, stop)

    original = transfer._receive
    monkeypatch.setattr(transfer, "_receive", receive)
    with pytest.raises(AsdRayError, match=r"a\.zip\.part: the disk is full; free some space and run the same command"):
        get(server, target, connections=1)
    monkeypatch.setattr(transfer, "_receive", original)
    asked = len(server.requests)
    get(server, target)
    assert sorted(server.spans(asked)) == sorted(chunks(*range(3, 11)))


@pytest.mark.parametrize("journal", ["", "[]", '{"size": 1, "chunk": 4096, "finished": [0]}', '{"finished": {}}', None])
def test_a_journal_that_does_not_fit_is_left_aside(server: RangeServer, target: Path, journal: str | None) -> None:
    """The last one fits, but the file that it is about is gone; nor may it vouch for the next one."""
    target.parent.mkdir()
    if journal is not None:
        Path(f"{target}.part").write_bytes(bytes(SIZE))
    fits = json.dumps({"size": SIZE, "chunk": CHUNK, "finished": list(range(0, SIZE, CHUNK))})
    Path(f"{target}.part.json").write_text(fits if journal is None else journal)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    with pytest.raises(KeyboardInterrupt):
        get(server, target, report=lambda done: signal.raise_signal(signal.SIGINT))
    assert server.spans() == []
    get(server, target)
    assert sorted(server.spans()) == sorted(chunks(*range(11)))


def test_credentials_are_not_shown() -> None:
    assert transfer.without_credentials("https://me:secret@host:8/a?b=c") == "https://host:8/a?b=c"
    assert transfer.without_credentials("https://host/a@b") == "https://host/a@b"
