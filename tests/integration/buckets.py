"""A local S3 server with a bucket, which a test may stop for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "features"


class Bucket:
    """Named ``features``; it keeps what is in it while its server is stopped.

    Attributes:
        variables: the environment in which it is found, as a user would set it.
    """

    def __init__(self) -> None:
        self.server = self._serve(0)
        host, self.port = self.server.get_host_and_port()
        self.variables = {
            "AWS_ENDPOINT_URL": f"http://{host}:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.variables.items():
                patch.setenv(name, value)
            boto3.client("s3").create_bucket(Bucket=BUCKET)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Refuses every connection for as long as the block."""
        self.stop()
        try:
            yield
        finally:
            self.server = self._serve(self.port)

    def stop(self) -> None:
        self.server.stop()
        assert self.server._server is not None
        self.server._server.server_close()  # moto leaves its port open

    @staticmethod
    def _serve(port: int) -> ThreadedMotoServer:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        server.start()
        return server
