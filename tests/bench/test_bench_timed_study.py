from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pytest

from asd_ray.bench.timed_study import times
from asd_ray.errors import AsdRayError
from asd_ray.study.folder import StudyFolder, TrialRecord


def add_trial(out: Path, number: int, begin: float, end: float, status: str = "complete") -> None:
    folder = StudyFolder(out)
    folder.start_trial(number, {})
    folder.write_history(number, 0, [{"epoch": 1, "seconds": 2.0}, {"epoch": 2, "seconds": 1.0}])
    folder.finish_trial(TrialRecord(number, {}, 0, status, reason="" if status == "complete" else "no clips"))
    first, last = (datetime.fromtimestamp(begin + after).isoformat(" ", "milliseconds") for after in (5.5, 8.0))
    log = f"x y starts\n{first} pretrain, epoch 1 of 2, loss 3.2\n{last} finetune, epoch 2 of 2, loss 1.5\n"
    (folder.trial(number) / "trial.log").write_text(log)
    os.utime(folder.trial(number) / "values.json", (begin, begin))
    os.utime(folder.trial(number) / "trial.json", (end, end))


def test_a_trial_lasts_from_its_choice_or_the_end_of_the_one_before_to_its_own_end(tmp_path: Path) -> None:
    for number, begin, end in ((0, 1000.0, 1010.0), (1, 1011.0, 1015.0)):
        add_trial(tmp_path, number, begin, end)
    found = times(tmp_path, 30.0)
    assert found.wall == 30.0
    assert found.steps == (3.0, 3.0)
    assert found.trials == (10.0, 5.0)
    assert found.outside == [7.0, 2.0]
    assert found.starts == pytest.approx((3.5, 4.5))
    assert found.training == pytest.approx((4.5, 4.5))


def test_a_study_with_a_failed_trial_is_not_measured(tmp_path: Path) -> None:
    add_trial(tmp_path, 0, 1.0, 2.0, "failed")
    with pytest.raises(AsdRayError, match="trial 0 is failed: no clips"):
        times(tmp_path, 30.0)


def test_trials_at_the_same_time_share_the_places_there_are(tmp_path: Path) -> None:
    for number, begin, end in ((0, 1000.0, 1010.0), (1, 1001.0, 1015.0)):
        add_trial(tmp_path, number, begin, end)
    found = times(tmp_path, 30.0, at_once=2)
    assert found.trials == (10.0, 14.0)
    assert found.span == 15.0
    assert found.training == pytest.approx((4.5, 4.5))
    assert found.share_outside(found.training) == pytest.approx(1 - 9 / 60)
    assert times(tmp_path, 30.0).share_outside(found.steps) == pytest.approx(1 - 6 / 30)
