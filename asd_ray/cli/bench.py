"""The command ``bench``: measure how fast asd_ray is."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asd_ray.errors import ConfigError
from asd_ray.files import write_text

if TYPE_CHECKING:
    from asd_ray.bench.table import Benchmark

NAMES = ("features", "data", "augment", "step", "ray", "scaling", "trial", "scoring", "study")


def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help=f"Benchmarks: {', '.join(NAMES)}. By default all, which takes an hour."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do a small fraction of the work, to see that it runs.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write JSON to this file, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Measure the speed of asd_ray's parts.

    Every part is measured beside a reference, what a user would run instead, in the same run. Prints both, their ratio
    and the target. Run it on a machine that does nothing else. Progress is on standard error.
    """
    from asd_ray.bench.table import described, say

    unknown = [name for name in names or () if name not in NAMES]
    if unknown:
        raise ConfigError(f"bench: there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}.")
    say(described())
    results: list[Benchmark] = []
    for name in names or NAMES:
        result: Benchmark = import_module(f"asd_ray.bench.{name}").run(quick)
        results.append(result)
        if not as_json:
            typer.echo(f"## {name}\n\n{result.table()}\n")
    text = json.dumps([result.as_dict() for result in results], indent=1, ensure_ascii=False)
    if out is not None:
        write_text(out, text)
    if as_json:
        typer.echo(text)
    else:
        typer.echo(f"Measured on {described()}{' with --quick: numbers without meaning' if quick else ''}.")
