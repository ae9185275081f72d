from __future__ import annotations

from collections import Counter
from pathlib import Path

from asd_ray.bench.data import link_set
from asd_ray.bench.recordings import config
from asd_ray.data import layouts
from asd_ray.data.synthetic.recordings import plan, write


def test_the_linked_set_is_one_that_a_study_could_use(tmp_path: Path) -> None:
    recording = plan(config(18))[0]
    write(tmp_path, recording, seconds=0.1)
    link_set([tmp_path / recording.path], tmp_path / "set", 120)
    clips = layouts.scan(tmp_path / "set", "dcase2020")
    assert Counter((clip.split, clip.label) for clip in clips) == {
        ("train", "normal"): 96,
        ("test", "normal"): 12,
        ("test", "anomaly"): 12,
    }
    assert len({clip.machine for clip in clips}) == 6
    assert len({clip.id for clip in clips}) == 4
