"""A local HTTP server with byte ranges whose every answer a test can watch, hold back or spoil."""

from __future__ import annotations

import io
import os
import re
import threading
import wave
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BLOCK = 1024


class Cut(Exception):
    """Raised by a hook: the server drops the connection."""


class RangeServer:
    """Serves ``files`` (path without the first slash -> content).

    Attributes:
        ranges: whether Range headers are honoured.
        lengths: whether an answer says its length.
        greedy: whether a range is sent to the file's end, whatever end was asked for.
        encodings: the Accept-Encoding headers seen.
        requests: (path, Range header) of each request, in order.
        served: path -> bytes of its content that were sent, counted just before they are.
        answer: called with path and Range header; returns (status, headers) to send instead of the file, or None.
        before_block: called with path and position before each block of up to 1 KiB; may wait, or raise ``Cut``.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.ranges = True
        self.lengths = True
        self.greedy = False
        self.encodings: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.served: Counter[str] = Counter()
        self.answer: Callable[[str, str], tuple[int, dict[str, str]] | None] = lambda path, span: None
        self.before_block: Callable[[str, int], None] = lambda path, position: None
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self.http.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def spans(self, since: int = 0) -> list[str]:
        """The Range headers of all requests but the first ``since``, without those for a first byte."""
        return [span for _, span in self.requests[since:] if span != "bytes=0-0"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: RangeServer

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client may leave at any time
            super().handle()

    def do_GET(self) -> None:
        owner, path, span = self.owner, self.path.partition("?")[0].lstrip("/"), self.headers.get("Range", "")
        owner.requests.append((path, span))
        owner.encodings.add(self.headers.get("Accept-Encoding", ""))
        status, headers = owner.answer(path, span) or (0, {})
        if status or path not in owner.files:
            self._head(status or 404, headers | {"Content-Length": "0"})
            return
        content = owner.files[path]
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", span) if owner.ranges else None
        start, stop = (int(match[1]), min(int(match[2]) + 1, len(content))) if match else (0, len(content))
        if owner.greedy and span != "bytes=0-0":
            stop = len(content)
        headers = {"Content-Length": str(stop - start)} if owner.lengths else {"Connection": "close"}
        if match:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        self._head(206 if match else 200, headers)
        try:
            for position in range(start, stop, BLOCK):
                owner.before_block(path, position)
                block = content[position : min(position + BLOCK, stop)]
                owner.served[path] += len(block)
                self.wfile.write(block)
        except (Cut, ConnectionError):
            self.close_connection = True
        if not owner.lengths:
            self.close_connection = True

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[RangeServer]:
    """A running server on a free port of this machine."""
    server = RangeServer(files)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def noise() -> bytes:
    """A wav file of a tenth of a second, of noise: it does not compress."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(os.urandom(3200))
    return buffer.getvalue()


def zipped(members: Mapping[str, bytes] | Iterable[tuple[zipfile.ZipInfo | str, bytes]]) -> bytes:
    """A zip file of these members, in their order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            archive.writestr(name, content)
    return buffer.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones left out: relative path -> content."""
    files = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.as_posix(): (folder / path).read_bytes() for path in files if not path.parts[0].startswith(".")}
