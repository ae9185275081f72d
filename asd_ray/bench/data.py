"""Benchmark ``data``: index, decoding and rendering of recordings, beside soundfile in a plain loop."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from asd_ray.bench.processes import in_new_process
from asd_ray.bench.recordings import MACHINES, make_recordings
from asd_ray.bench.table import Benchmark, Comparison, Measured, duration, interleaved, say

SAMPLE_RATE, SECONDS = 16_000, 10.0


def run(quick: bool) -> Benchmark:
    """Measure in one process of one thread, on files in the page cache."""
    recordings, clips, repeats = (24, 600, 2) if quick else (120, 20_000, 5)
    with tempfile.TemporaryDirectory(prefix="asd_ray-bench-") as name:
        folder = Path(name)
        say(f"data: {recordings} synthetic recordings, {duration(recordings * 0.08)}")
        paths = make_recordings(folder / "recordings", recordings)
        root = folder / "set"
        link_set(paths, root, clips)
        say(f"data: indexing {clips:,} files, decoding and rendering, {duration(10 + repeats * (clips / 2_000 + 10))}")
        index, headers, decode, plain, render = in_new_process(_measure, root, paths, clips, repeats)
    note = (
        f"{clips:,} files of {recordings} recordings in the layout of DCASE 2020; the index says machine, ID, split, "
        "label, rate and length of each"
    )
    return Benchmark(
        "data",
        [
            Comparison(
                "index of a data set", index, headers, "soundfile.info of every file, names not read", note=note
            ),
            Comparison("decoding 10 s", decode, plain, "soundfile.read: the limit of a decoder that checks nothing"),
            Comparison("rendering 10 s of a synthetic machine", render, note="one thread; studies render on all cores"),
        ],
    )


def link_set(recordings: Sequence[Path], root: Path, count: int) -> None:
    """Make a data set in the layout of DCASE 2020 from hard links; four in five clips are for training."""
    for number in range(count):
        machine, part, index = f"machine{number % MACHINES}", number // MACHINES, number // MACHINES // 5
        split = "test" if part % 5 == 0 else "train"
        label = "anomaly" if split == "test" and index % 2 else "normal"
        path = root / machine / split / f"{label}_id_{part % 4:02d}_{part:08d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(recordings[number % len(recordings)], path)


def _measure(root: Path, recordings: Sequence[Path], clips: int, repeats: int) -> list[Measured]:
    import soundfile

    from asd_ray.bench.recordings import config
    from asd_ray.data import audio, layouts
    from asd_ray.data.synthetic import recordings as synthetic

    files = sorted(root.rglob("*.wav"))
    planned = synthetic.plan(config(18))
    works: list[Callable[[], int]] = [
        lambda: len(layouts.scan(root, "dcase2020")),
        partial(_each, files, soundfile.info),
        partial(_each, recordings, lambda path: audio.read(path, SAMPLE_RATE, SECONDS)),
        partial(_each, recordings, lambda path: soundfile.read(path, dtype="float32")),
        partial(_each, planned, synthetic.render),
    ]
    found = len(layouts.scan(root, "dcase2020"))  # warms the page cache, too
    assert found == clips == len(files), f"{found} of {clips} clips were found"
    return interleaved(works, repeats)


def _each(items: Sequence[object], work: Callable[..., object]) -> int:
    for item in items:
        work(item)
    return len(items)
