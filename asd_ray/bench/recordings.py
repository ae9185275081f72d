"""Recordings for benchmarks: a few hundred synthetic ones, linked under thousands of names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from asd_ray.config.data import SyntheticConfig
from asd_ray.data.clips import Clip
from asd_ray.data.synthetic import recordings as synthetic

MACHINES = 6


def make_recordings(folder: Path, count: int) -> list[Path]:
    """Render ``count`` recordings of 10 s at 16 kHz into a folder; for ``count`` see :func:`config`."""
    return [folder / recording.path for recording in synthetic.synthesise(folder, config(count))]


def config(count: int) -> SyntheticConfig:
    """Settings of a synthetic set of ``count`` recordings; ``count`` is a multiple of 6, at least 18."""
    return SyntheticConfig(machines=MACHINES, ids=1, train=count // MACHINES - 2, test_normal=1, test_anomaly=1)


def link_clips(recordings: Sequence[Path], folder: Path, count: int) -> list[Clip]:
    """Link recordings under ``count`` names in a new folder; hard links share the page cache.

    Returns:
        Normal training clips.
    """
    folder.mkdir(parents=True)
    clips = []
    for number in range(count):
        name = f"normal_id_00_{number:08d}.wav"
        os.link(recordings[number % len(recordings)], folder / name)
        clips.append(
            Clip(name, f"machine-{number % MACHINES}", "00", "train", "normal", sample_rate=16_000, frames=160_000)
        )
    return clips
