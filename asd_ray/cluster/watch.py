"""Watch the head of Ray. If it is gone, Ray's core ends this process within a minute, without a message."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

SECONDS = 5.0  # between two checks; two in a row must fail, because one may be a fault of the network


@contextlib.contextmanager
def watched(address: str, say: Callable[[str], object], seconds: float = SECONDS) -> Iterator[None]:
    """Say when the head of Ray (its GCS) stops answering, and when it answers again, until the block ends.

    Args:
        address: of the GCS, ``HOST:PORT``.
        say: called with a sentence, in a thread.
        seconds: between two checks.
    """
    host, _, port = address.rpartition(":")
    over = threading.Event()

    def look() -> None:
        failures = 0
        while not over.wait(seconds):
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
            except OSError as error:
                failures += 1
                if failures == 2:
                    say(
                        f"the head of Ray at {address} does not answer ({error}): if it does not within a minute, "
                        "this run ends; the same command goes on from there when Ray runs again."
                    )
            else:
                if failures >= 2:
                    say(f"the head of Ray at {address} answers again.")
                failures = 0

    thread = threading.Thread(target=look, name="asd_ray-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
