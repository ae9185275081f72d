from __future__ import annotations

import queue
import socket

from asd_ray.cluster.watch import watched


def listening(port: int = 0) -> socket.socket:
    server = socket.create_server(("127.0.0.1", port), reuse_port=True)
    server.settimeout(20)
    return server


def test_a_head_that_goes_and_comes_back_is_a_line_each() -> None:
    said: queue.Queue[str] = queue.Queue()
    server = listening()
    port = server.getsockname()[1]
    with watched(f"127.0.0.1:{port}", said.put, seconds=0.01):
        for _ in range(3):  # it is looked at, and nothing is said of a head that answers
            server.accept()[0].close()
        assert said.empty()
        server.close()
        gone = said.get(timeout=20)
        assert gone.startswith(f"the head of Ray at 127.0.0.1:{port} does not answer")
        assert "the same command goes on" in gone
        with listening(port) as back:
            back.accept()[0].close()
            assert said.get(timeout=20) == f"the head of Ray at 127.0.0.1:{port} answers again."
    assert said.empty()
