from __future__ import annotations

import inspect
import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from asd_ray.bench.table import Benchmark, Comparison, Measured
from asd_ray.cli import bench as cli_bench
from asd_ray.errors import ConfigError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What is run, instead of the benchmarks themselves."""
    runs: list[tuple[str, bool]] = []

    def imported(name: str) -> SimpleNamespace:
        def run(quick: bool) -> Benchmark:
            runs.append((name, quick))
            return Benchmark(name, [Comparison("reading", Measured((8.0,), "clips/s"), Measured((4.0,), "clips/s"))])

        return SimpleNamespace(run=run)

    monkeypatch.setattr(cli_bench, "import_module", imported)
    return runs


@pytest.mark.parametrize("name", cli_bench.NAMES)
def test_every_name_is_a_module_with_a_run(name: str) -> None:
    assert list(inspect.signature(import_module(f"asd_ray.bench.{name}").run).parameters) == ["quick"]


def test_all_run_by_default_and_each_prints_its_table(
    asked: list[tuple[str, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    cli_bench.bench()
    assert asked == [(f"asd_ray.bench.{name}", False) for name in cli_bench.NAMES]
    printed = capsys.readouterr()
    assert [line for line in printed.out.splitlines() if line.startswith("## ")] == [
        f"## {name}" for name in cli_bench.NAMES
    ]
    assert "cores" in printed.err


def test_json_goes_to_standard_output_and_to_a_file(
    asked: list[tuple[str, bool]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cli_bench.bench(["scoring"], quick=True, out=tmp_path / "bench.json", as_json=True)
    assert asked == [("asd_ray.bench.scoring", True)]
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "bench.json").read_text())
    assert printed[0]["lines"][0]["value"] == 2


def test_an_unknown_name_is_refused_before_anything_runs(asked: list[tuple[str, bool]]) -> None:
    with pytest.raises(ConfigError, match="there is no benchmark 'speed'; there are features, "):
        cli_bench.bench(["scoring", "speed"])
    assert not asked
