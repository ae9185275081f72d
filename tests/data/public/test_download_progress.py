from __future__ import annotations

import pytest

from asd_ray.data.public.download import Meter, Progress, progress_line


def test_the_rate_is_that_of_the_last_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asd_ray.data.public.download.INTERVAL", 0.5)
    seen: list[Progress] = []
    times = iter([0.0, 1.0, 1.2, 11.0, 12.0, 30.0, 30.1])
    meter = Meter(seen.append, "a.zip", "download", 1, 2, clock=lambda: next(times))
    for done in (1000, 2000, 2100, 2200, 3300, 3300, 5000):
        meter(done, 5000)
    assert [p.done for p in seen] == [1000, 2000, 2200, 3300, 3300, 5000]  # 1.2 s came too soon after 1 s
    assert [p.rate for p in seen] == pytest.approx([0, 1000, 20, 1300 / 11, 0, 1700 / 18.1])
    assert seen[0].seconds_left is None
    assert seen[1].seconds_left == pytest.approx(3.0)
    assert seen[-1].seconds_left == 0.0


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (
            Progress("dev_data_fan.zip", "download", 3, 18, 412_000_000, 1_354_774_772, 8_100_000.0, 116.4),
            "[3/18] dev_data_fan.zip  download  0.41 of 1.35 GB   30%  8.1 MB/s  1 min 56 s left",
        ),
        (
            Progress("a.zip", "unpack", 1, 1, 1_500_000, None, 0.0, None),
            "[1/1] a.zip  unpack  1.50 MB  0.0 MB/s",
        ),
        (
            Progress("a.zip", "download", 1, 1, 0, 10**6, 100.0, 10_000.0),
            "[1/1] a.zip  download  0.00 of 1.00 MB    0%  0.0 MB/s  2 h 46 min left",
        ),
    ],
)
def test_progress_line(progress: Progress, line: str) -> None:
    assert progress_line(progress) == line
