"""The command line in this process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from asd_ray.cli import app as cli

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """Runs the command line in this process; returns exit code, standard output and standard error."""
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(cli.Commands, "interrupted", False)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["asd-ray", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    yield run
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
