"""The layout in the data page works as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import soundfile

from asd_ray.data.layouts import scan
from asd_ray.registry import LAYOUTS

PAGE = Path(__file__).parents[2] / "asd_ray" / "data" / "README.md"


def test_the_layout_of_the_page_finds_clips(tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = ("fan_test_anomaly_0001.wav", "fan_train_normal_0001.wav", "pump_train_normal_0001.wav")
    for name in names:
        soundfile.write(tmp_path / name, np.ones(100), 16000)
    try:
        exec(code, {"__name__": "data_page"})
        assert [clip.path for clip in scan(tmp_path, "flat")] == list(names)
        [test, train] = scan(tmp_path, "flat", machines=["fan"])
        assert (test.split, test.label, train.split, train.frames) == ("test", "anomaly", "train", 100)
    finally:
        LAYOUTS.parts.pop("flat", None)
