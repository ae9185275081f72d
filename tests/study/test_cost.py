from __future__ import annotations

import heapq
import json
import os
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from asd_ray.cli.app import app
from asd_ray.cluster.session import concurrency
from asd_ray.config.study_file import parse_study
from asd_ray.errors import ConfigError
from asd_ray.study.cost import TRAIN_START_S, Speed, cost, estimate, measured, said
from asd_ray.study.folder import StudyFolder, TrialRecord

BEGAN = datetime(2026, 3, 1, 12, 0, 0).timestamp()


def study(trials: int = 4, method: dict | None = None, data: dict | None = None, **resources: object):
    document = {
        "name": "s",
        "method": method or {"name": "sia_moco", "pretrain": {"epochs": 6}, "finetune": {"epochs": 4}},
        "search": {"num_trials": trials},
        "resources": resources,
    }
    return parse_study({**document, **({"data": data} if data else {})}, "s.yaml")


def makespan(trials: int, repeats: int, concurrency: int, seconds: float) -> float:
    """One after the other: whoever is free takes the next trial; repeats begin when the last trial has ended."""
    now = 0.0
    for runs in (trials, repeats):
        free = [now] * concurrency
        for _ in range(runs):
            heapq.heapreplace(free, free[0] + seconds)
        now = max(free)
    return now


@settings(deadline=None)
@given(
    trials=st.integers(1, 60),
    seeds=st.integers(1, 4),
    best=st.integers(1, 8),
    concurrency=st.integers(1, 20),
    rate=st.floats(1, 5000),
    clips=st.integers(1, 50_000),
)
def test_a_study_takes_as_long_as_its_trials_one_after_the_other(
    trials: int, seeds: int, best: int, concurrency: int, rate: float, clips: int
) -> None:
    plan = study(trials)
    plan = plan.model_copy(update={"search": plan.search.model_copy(update={"seeds": seeds, "repeat_best": best})})
    found = estimate(plan, Speed({"": rate}, {"": clips}, overhead_s=7.0, setup_s=30.0), concurrency)
    trial = 7 + 10 * clips / rate
    repeats = (seeds - 1) * min(best + 1, trials)
    assert found.trial_s == pytest.approx(trial)
    assert found.trials == trials + repeats
    assert found.seconds == pytest.approx(30 + makespan(trials, repeats, concurrency, trial))
    assert found.cpu_hours == pytest.approx((trials + repeats) * trial / 3600)


def test_reserved_gpus_count_while_trials_run() -> None:
    speed = Speed({"pretrain": 100.0, "finetune": 400.0}, {"": 1000}, overhead_s=0.0)
    found = estimate(study(8, workers=2, gpus_per_worker=0.5, cpus_per_worker=3), speed, 4)
    assert found.trial_s == pytest.approx(6 * 10 + 4 * 2.5)
    assert found.waves == 2
    assert found.gpu_hours == pytest.approx(8 * 70 * 2 * 0.5 / 3600)
    assert found.cpu_hours == pytest.approx(8 * 70 * 2 * 3 / 3600)
    assert str(found) == "2 min 20 s and 0.2 GPU-hours: 8 runs, 4 at a time, 1 min 10 s each"


def test_concurrency_is_given_or_the_limit_or_what_fits_or_one() -> None:
    somewhere = Speed({"": 100.0}, {"": 1000}, 1.0, resources={"CPU": 8.0, "GPU": 2.0})
    unknown = Speed({"": 100.0}, {"": 1000}, 1.0)
    assert estimate(study(workers=2), somewhere).concurrency == 4
    assert estimate(study(workers=2, gpus_per_worker=1), somewhere).concurrency == 1
    assert estimate(study(max_concurrent_trials=3), somewhere).concurrency == 3
    assert estimate(study(max_concurrent_trials=3), somewhere, 5).concurrency == 5
    assert estimate(study(), unknown).concurrency == 1


def test_a_growing_cluster_gets_as_many_trials_as_the_study_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asd_ray.cluster.session.ray.cluster_resources", lambda: {"CPU": 2.0})
    asked = study(max_concurrent_trials=8).resources
    assert (concurrency(asked, growing=True), concurrency(asked)) == (8, 2)
    assert concurrency(study().resources, growing=True) == 2  # no limit: as many as fit now


def test_stages_that_do_not_run_cost_nothing() -> None:
    assert study().method.stage_epochs == {"pretrain": 6, "finetune": 4}
    alone = {"name": "sia_moco", "pretrain": {"epochs": 6}, "finetune": {"epochs": 4, "coupling": "none"}}
    assert study(method=alone).method.stage_epochs == {"finetune": 4}
    assert study(method={"name": "autoencoder", "train": {"epochs": 9}}).method.stage_epochs == {"train": 9}
    for method in (alone, {"name": "os_scl", "train": {"epochs": 5}}):
        plan = study(method=method)
        assert sum(plan.method.stage_epochs.values()) == plan.method.epochs
    finetuned = Speed({"finetune": 100.0}, {"": 100}, 0.0)
    assert estimate(study(method=alone), finetuned).trial_s == pytest.approx(4)
    with pytest.raises(ConfigError, match="no measurement for the stage pretrain, only of finetune; give --rate"):
        estimate(study(), finetuned)


def test_a_rate_needs_clips_unless_the_study_makes_them() -> None:
    made = {"layout": "synthetic", "synthetic": {"machines": 3, "ids": 2, "train": 24}}
    speed = said(study(data=made, workers=2), 100.0, None)
    assert speed.clips == {"": 144}
    assert speed.overhead_s - said(study(data=made), 100.0, None).overhead_s == TRAIN_START_S
    assert said(study(data=made), 100.0, 7).clips == {"": 7}
    for data in ({"layout": "dcase2020", "root": "data"}, {**made, "root": "data"}):
        with pytest.raises(ConfigError, match="give --clips"):
            said(study(data=data), 100.0, None)


def ran(folder: Path, walls: dict[int, float], status: str = "complete", recalled: int = 0) -> Path:
    """A study whose trials took ``walls`` seconds each, one after the other, after a set-up of 60 s: three epochs of
    pre-training (200 clips at 50, 100 and 100 clips/s) and one of fine-tuning (150 clips at 300 clips/s)."""
    made = StudyFolder(folder)
    made.open(study(workers=2))
    (folder / "env.json").write_text(json.dumps({"ray_resources": {"CPU": 8.0}}))
    lines = (
        "12:00:00,500 INFO starting Ray",
        "12:01:00,100 INFO trials",
        "12:01:03,900 INFO trial 0 starts: alpha 0.4",
    )
    (folder / "logs" / "study.log").write_text("".join(f"2026-03-01 {line}\n" for line in lines))
    now = BEGAN + 60
    epochs = [("pretrain", 4.0, 50.0), ("pretrain", 2.0, 100.0), ("pretrain", 2.0, 100.0), ("finetune", 0.5, 300.0)]
    history = [{"stage": stage, "seconds": seconds, "samples_per_s": rate} for stage, seconds, rate in epochs]
    for number, wall in walls.items():
        made.start_trial(number, {})
        os.utime(made.trial(number) / "values.json", (now, now))
        made.write_history(number, 0, history)
        made.finish_trial(TrialRecord(number, {}, 0, status, epochs=4, duration_s=wall - 3, recalled_epochs=recalled))
        now += wall
        os.utime(made.trial(number) / "trial.json", (now, now))
    return folder


def test_a_speed_is_measured_from_the_trials_that_ended(tmp_path: Path) -> None:
    speed = measured(ran(tmp_path / "s", {0: 20.5, 1: 21.5, 2: 90.0}))
    assert speed.rates == pytest.approx({"pretrain": 600 / 8, "finetune": 300})  # all clips over all seconds
    assert speed.clips == pytest.approx({"pretrain": 200, "finetune": 150})
    assert speed.overhead_s == pytest.approx(21.5 - 8.5)  # the median, with the start of the trial's process
    assert speed.setup_s == pytest.approx(60)
    assert speed.resources == {"CPU": 8.0}
    assert speed.trials == 3
    again = estimate(study(3, method=study().method.model_dump(), workers=2), speed, 1)
    assert again.trial_s == pytest.approx(13 + 6 * 200 / 75 + 4 * 150 / 300)
    assert estimate(study(8, workers=2), speed).concurrency == 4
    assert measured(tmp_path / "s", clips=1000).clips == {"": 1000}


def test_a_copied_folder_still_has_the_durations(tmp_path: Path) -> None:
    folder = ran(tmp_path / "s", {0: 20.5})
    for path in folder.glob("trials/*/*.json"):
        os.utime(path, (BEGAN, BEGAN))
    (folder / "logs" / "study.log").unlink()
    (folder / "env.json").write_text("{")
    speed = measured(folder)
    assert speed.overhead_s == pytest.approx(20.5 - 3 - 8.5)
    assert speed.setup_s == 0
    assert speed.resources == {}


@pytest.mark.parametrize(("status", "recalled"), [("pruned", 0), ("complete", 3)])
def test_trials_that_did_not_train_all_their_stages_are_no_measure(tmp_path: Path, status: str, recalled: int) -> None:
    folder = ran(tmp_path / "s", {0: 20.5}, status, recalled)
    with pytest.raises(ConfigError, match="none of its trials"):
        measured(folder)
    with pytest.raises(ConfigError, match="holds no study"):
        measured(tmp_path)


def test_validate_prints_an_estimate(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("name: s\nmethod: {pretrain: {epochs: 6}, finetune: {epochs: 4}}\nsearch: {num_trials: 4}\n")
    run = CliRunner().invoke
    plain = run(app, ["study", "validate", str(file)])
    assert plain.exit_code == 0
    assert "# cost" not in plain.output
    said_so = run(app, ["study", "validate", str(file), "--rate", "100", "--clips", "1000", "--concurrency", "2"])
    assert "# cost, at most: 3 min 30 s and 0.1 CPU-hours: 4 runs, 2 at a time, 1 min 45 s each\n" in said_so.output
    folder = ran(tmp_path / "like", {0: 20.5})
    found = run(app, ["study", "validate", str(file), "--like", str(folder), "--json"])
    like = json.loads(found.output)["cost"]
    assert like["seconds"] == pytest.approx(60 + like["trial_s"])  # four trials fit on eight cores
    with pytest.raises(ConfigError, match="give one of them"):
        cost(study(), folder, 100.0, None, None)
