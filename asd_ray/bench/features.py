"""Benchmark ``features``: extraction and reading of features, beside loops and libraries without Ray."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from asd_ray.bench import extraction, reading
from asd_ray.bench.memory import MISSING
from asd_ray.bench.processes import in_new_process, in_processes
from asd_ray.bench.recordings import link_clips, make_recordings
from asd_ray.bench.table import Benchmark, Comparison, Measured, duration, joined, say
from asd_ray.data.clips import Clip

CORES = os.cpu_count() or 1
EFFICIENCY = 0.85  # target: share of all cores
RAY_SECONDS = 20  # start and end of a new process with a new Ray; for forecasts only


@dataclass(frozen=True)
class Size:
    """Size of the measurements: numbers of recordings, clips, builds and repeats."""

    recordings: int
    clips: int
    small: int
    read: int
    builds: int
    repeats: int


FULL = Size(recordings=240, clips=20_000, small=2_000, read=4_000, builds=3, repeats=5)
QUICK = Size(recordings=24, clips=256, small=128, read=256, builds=1, repeats=2)


def run(quick: bool) -> Benchmark:
    """Measure: at most half an hour on two cores; with ``quick``, a minute or two."""
    size = QUICK if quick else FULL
    result = Benchmark("features")
    with tempfile.TemporaryDirectory(prefix="asd_ray-bench-") as name:
        folder = Path(name)
        say(f"features: {size.recordings} synthetic recordings, {duration(size.recordings * 0.08)}")
        recordings = make_recordings(folder / "recordings", size.recordings)
        result.lines += _extraction(folder, recordings, size)
        result.lines += _memory(folder, recordings, size)
        result.lines += _reading(folder, recordings, size)
    return result


def _extraction(folder: Path, recordings: list[Path], size: Size) -> list[Comparison]:
    clips = link_clips(recordings, folder / "clips", size.clips)
    say(f"features: loops on one core, {duration(15 + 0.025 * len(recordings) * (1 + size.repeats))}")
    before = in_new_process(extraction.one_core, recordings, size.repeats)
    expected = size.clips / before[extraction.OURS].median / CORES
    say(f"features: {size.builds} builds of {size.clips:,} clips, {duration(size.builds * (expected + RAY_SECONDS))}")
    seconds = []
    for _ in range(size.builds):
        seconds.append(in_new_process(extraction.build_seconds, clips, folder / "clips", folder / "store"))
        shutil.rmtree(folder / "store")
    say("features: loops on one core again, and on all cores at once")
    after = in_new_process(extraction.one_core, recordings, size.repeats)
    together = in_processes(extraction.loop_beside_others, [(recordings, size.repeats)] * CORES)
    loops = {name: joined([before[name], after[name]]) for name in before}
    build = Measured(tuple(size.clips / value for value in seconds), "clips/s")
    every = Measured(tuple(map(sum, zip(*(part.values for part in together), strict=True))), "clips/s")
    target = EFFICIENCY * CORES
    what = f"extraction of {size.clips:,} clips"
    note = (
        f"from the call of build() on a new Ray to its manifest, {CORES} cores; the clips are {len(recordings)} "
        f"synthetic recordings of 10 s under {size.clips:,} names, so the page cache holds them; the target is "
        f"{EFFICIENCY} x {CORES} cores. The loops are measured before and after the builds."
    )
    librosa, ours = loops.get(extraction.LIBROSA), loops[extraction.BASELINE]
    missing = "librosa is not installed; pip install 'asd-ray[bench]'"
    return [
        Comparison(
            what,
            build,
            loops[extraction.TORCHAUDIO],
            f"our decoder and {extraction.TORCHAUDIO} in a loop on one core",
            target,
            note=note,
        ),
        Comparison(
            f"{what}, against the cores",
            build,
            every,
            f"our decoder and {extraction.OURS} in a loop on {CORES} cores at once: the limit",
        ),
        Comparison(
            "Log-Mel on one core",
            loops[extraction.OURS],
            loops[extraction.TORCHAUDIO],
            f"the same decoder with {extraction.TORCHAUDIO}, one clip at a time",
        ),
        Comparison(
            "vectors of the official baseline on one core",
            ours,
            librosa,
            "the baseline's own way with librosa" if librosa else missing,
            5 if librosa else None,
        ),
    ]


def _memory(folder: Path, recordings: list[Path], size: Size) -> list[Comparison]:
    sizes = (size.small, size.clips)
    forecast = duration(2 * RAY_SECONDS + sum(sizes) / 200)
    say(f"features: memory of builds of {sizes[0]:,} and {sizes[1]:,} clips, {forecast}")
    peaks = []
    for count in sizes:
        root, store = folder / f"memory-{count}", folder / "store"
        clips = link_clips(recordings, root, count)
        try:
            peaks.append(Measured((in_new_process(extraction.build_memory, clips, root, store),), "GiB"))
        except ModuleNotFoundError:
            return [Comparison("memory of a build", Measured((), "GiB"), reference_is=MISSING)]
        shutil.rmtree(store)
    what = [f"memory of a build of {count:,} clips" for count in sizes]
    note = (
        "highest sum of the unique memory (USS) of the driver, Ray's own processes and its workers, every 0.2 s, above "
        f"the sum before the build, when {CORES} idle workers had started"
    )
    return [
        Comparison(what[0], peaks[0], limit=2, at_most=True, note=note),
        Comparison(what[1], peaks[1], limit=2, at_most=True),
        Comparison(f"{what[1]}, growth", peaks[1], peaks[0], f"{sizes[0]:,} clips", 1.1, at_most=True),
    ]


def _reading(folder: Path, recordings: list[Path], size: Size) -> list[Comparison]:
    say(f"features: reading {size.read:,} clips, {duration(2 * RAY_SECONDS + size.read / 200)}")
    root, store = folder / "read", folder / "store"
    clips: list[Clip] = link_clips(recordings, root, size.read)
    found = in_new_process(reading.read, clips, root, store, 2 * size.repeats)
    ours, defaults = in_new_process(reading.formats, recordings, folder / "formats", size.repeats)
    cached, streamed = found["cached 1"], found["streamed 1"]
    line = partial(Comparison, limit=20_000)
    note = (
        f"every epoch of {size.read:,} clips in shuffled batches of {reading.BATCH}, in actors of one thread; the "
        "first maps the object store's memory and so is slower; what is streamed comes from the page cache"
    )
    return [
        line("reading cached, one worker", cached[0], note=note),
        line("reading cached, each of two workers at once", found["cached 2"][0]),
        Comparison("first batch of a cached epoch", cached[1], limit=0.1, at_most=True),
        Comparison("first batch of a cached epoch, two workers", found["cached 2"][1], limit=0.1, at_most=True),
        Comparison(
            "reading cached, against Ray Data",
            cached[0],
            found["ray data"][0],
            "iter_torch_batches of the same clips, materialised, shuffled in a buffer of 1,024",
        ),
        Comparison("reading streamed, one worker", streamed[0]),
        Comparison("first batch of a streamed epoch", streamed[1]),
        Comparison("reading one shard", ours, defaults, "fp16 tensors with pyarrow's defaults (snappy, dictionary)"),
    ]
