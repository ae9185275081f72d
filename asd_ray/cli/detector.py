"""The command ``score``: anomaly scores of recordings by a saved detector."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from asd_ray.cli.options import AsJson
from asd_ray.cli.terminal import ProgressBar
from asd_ray.errors import AsdRayError, ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from asd_ray.detector.detector import Detector


def score(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Recordings, or folders of them.")],
    detector: Annotated[Path, typer.Option("--detector", metavar="DIR", help="The detector/ folder of a study.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="CSV file to write; standard output by default, or -.")
    ] = None,
    machine: Annotated[str | None, typer.Option(help="Machine of recordings whose path does not name it.")] = None,
    machine_id: Annotated[str | None, typer.Option("--id", help="ID of recordings whose path names none.")] = None,
    device: Annotated[str, typer.Option(help="Device for the network, such as cuda.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Score recordings with a saved detector.

    Prints a CSV table of anomaly scores and decisions; needs no Ray. A recording that cannot be read is named on
    standard error; the others are scored, and the exit code is 1.
    """
    from asd_ray.detector.detector import COLUMNS, Detector
    from asd_ray.detector.which_machine import infer_group
    from asd_ray.files import write_atomically

    target = None if out is None or str(out) == "-" else out
    if target is not None and target.is_dir():
        raise ConfigError(f"--out {target}: this is a folder; expected the name of a CSV file.")
    model = Detector.load(detector)
    files = [(path, infer_group(path, model.info.groups, machine, machine_id)) for path in _recordings(paths)]
    try:
        model.method.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {device}: torch cannot use it here ({str(error).splitlines()[0]}).") from None
    failed: list[str] = []

    def bad(error: AsdRayError) -> None:
        failed.append(str(error))
        typer.echo(f"error: {error}", err=True)

    tables = _with_bar(model, files, bad)
    counts = {"scored": 0, "anomalous": 0}

    def rows() -> Iterator[tuple[Any, ...]]:
        for table in tables:
            counts["scored"] += len(table)
            counts["anomalous"] += int(table["decision"].sum())
            yield from table.astype(object).itertuples(index=False, name=None)

    if target is not None:
        write_atomically(target, lambda beside: _write_csv(Path(beside), COLUMNS, rows()))
        if as_json:
            typer.echo(json.dumps({"out": str(target), **counts, "failed": failed}))
        else:
            typer.echo(f"{counts['scored']} recordings in {target}, {counts['anomalous']} called anomalous")
    elif as_json:
        scores = [dict(zip(COLUMNS, row, strict=True)) for row in rows()]
        typer.echo(json.dumps({"scores": scores, **counts, "failed": failed}))
    else:
        _write_rows(sys.stdout, COLUMNS, rows())
    if failed:
        typer.echo(f"{len(failed)} of {len(files)} recordings could not be read", err=True)
        raise typer.Exit(1)


def _recordings(paths: Iterable[Path]) -> list[Path]:
    """List the files that are named, and the audio files in the folders that are named, each once."""
    from asd_ray.data.audio import is_audio
    from asd_ray.data.layouts.folder import files

    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            found[path] = None
            continue
        names = sorted(name for name in files(path) if is_audio(name))
        if not names:
            raise AsdRayError(f"{path}: there is no recording in this folder; expected wav, flac or ogg files.")
        found.update(dict.fromkeys(path / name for name in names))
    return list(found)


def _with_bar(
    model: Detector, files: Sequence[tuple[Path, str]], bad: Callable[[AsdRayError], None]
) -> Iterator[pd.DataFrame]:
    """Yield the detector's tables, with a progress bar on standard error while a table is computed.

    The bar is gone while a table is written, because rich sends standard output to the bar's terminal meanwhile.
    """
    bar, done = ProgressBar("recordings"), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        bar.update(done, len(files))

    tables = model.scores(files, bad, advance)
    while True:
        with bar:
            table = next(tables, None)
        if table is None:
            return
        yield table


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        _write_rows(file, header, rows)


def _write_rows(file: TextIO, header: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
