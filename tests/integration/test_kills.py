"""SIGKILL of the driver, of a trial's process, of all of Ray, a disk that is full: the same command, the same study."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from asd_ray.memory import ONE_ARENA
from tests.integration.conftest import Run
from tests.integration.disks import fill, mounted
from tests.integration.killing import (
    assert_equal_studies,
    assert_kept,
    assert_no_process_left,
    assert_nothing_reserved,
    assert_optuna_knows_all,
    identities,
    started,
    study_document,
    trial_processes,
    write,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study file whose recordings and features all studies of this module share."""
    folder = tmp_path_factory.mktemp("kills")
    document = study_document()
    document["data"]["root"] = str(folder / "data")
    document["features"]["store"] = str(folder / "features")
    return write(folder / "study.yaml", document)


@pytest.fixture(scope="module")
def undisturbed(study: Path, cluster: str, run: Run) -> Path:
    """Each of its trials has its own process. Trials of the killed studies share one, which makes no difference."""
    out = study.parent / "undisturbed"
    run("study", "run", study, "--out", out, "--address", cluster, "--set", "resources.reuse_processes=false")
    logs = [log.read_text() for log in sorted(out.glob("trials/*/trial.log"))]
    processes = [re.findall(r"process (\d+)$", log, re.MULTILINE) for log in logs]
    assert [len(found) for found in processes] == [1, 1, 1]
    assert len({process for found in processes for process in found}) == 3
    assert_optuna_knows_all(out)
    assert_nothing_reserved(cluster)
    return out


def check(out: Path, undisturbed: Path) -> None:
    assert_equal_studies(out, undisturbed)
    assert_optuna_knows_all(out)


def test_the_driver_is_killed(study: Path, undisturbed: Path, cluster: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    moments = ["trials/00000/checkpoints/epoch_00001.pt", "trials/00001/values.json", "trials/00002/trial.json"]
    for moment in moments:  # in the middle of a trial; between two; after the last and before the tables
        before = identities(out)
        with started(study, out, cluster) as run:
            run.wait_for_file(moment)
            run.kill()
        assert_kept(out, before)
    before = identities(out)
    with started(study, out, cluster) as run:
        run.finish()
    assert len(before) == 3
    assert_kept(out, before)
    check(out, undisturbed)
    assert_nothing_reserved(cluster)


def test_a_trials_process_is_stopped_for_a_while_and_killed(
    study: Path, undisturbed: Path, cluster: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    document = yaml.safe_load(study.read_text(encoding="utf-8"))
    document["resources"]["reuse_processes"] = False  # every trial has a process of its own
    study = write(tmp_path / "study.yaml", document)
    seen: list[psutil.Process] = []

    def next_process() -> list[psutil.Process]:
        return [process for process in trial_processes(cluster) if process not in seen]

    with started(study, out, cluster) as run:

        def process() -> psutil.Process:
            """Of the next trial, or of the next attempt of the same."""
            [found] = run.wait_for(next_process, "a trial's process")
            seen.append(found)
            return found

        trial = process()
        run.wait_for_file("trials/00000/checkpoints/epoch_00001.pt")
        assert trial.environ().items() >= ONE_ARENA.items()
        trial.suspend()
        time.sleep(2)  # nothing is waited for: what is tested is that a slow worker is only slow
        trial.resume()
        run.wait_for_file("trials/00000/checkpoints/epoch_00002.pt")  # in the middle
        trial.kill()
        process()
        run.wait_for_file("trials/00000/trial.json")
        process().kill()  # of trial 1, before its first epoch
        process()
        run.wait_for_file("trials/00001/trial.json")
        trial = process()
        run.wait_for_file("trials/00002/trial.json")  # after its end, as a rule before Tune has heard of it
        ended = identities(out)
        trial.kill()
        run.finish()
    assert len(ended) == 3
    assert_kept(out, ended)
    check(out, undisturbed)
    for trial in ("00000", "00001"):
        assert re.search(rf"kills-trial-{trial}: interrupted: .*; it goes on from its last checkpoint\.", run.log())
    assert_nothing_reserved(cluster)


@pytest.mark.slow
def test_all_of_ray_is_killed(undisturbed: Path, tmp_path: Path) -> None:
    """With its own local Ray, recordings and features."""
    study, out = write(tmp_path / "study.yaml", study_document()), tmp_path / "out"
    moments = ["features/*.parquet", "trials/00001/checkpoints/epoch_00001.pt", "trials/00002/trial.json"]
    left = []
    for moment in moments:
        before = identities(out)
        with started(study, out) as run:
            run.wait_for_file(moment)
            run.kill_all()
        left += run.killed
        assert_kept(out, before)
    before = identities(out)
    with started(study, out) as run:
        run.finish()
    assert_kept(out, before)
    check(out, undisturbed)
    assert_no_process_left(left)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which a test may fill."""
    disk = tmp_path / "disk"
    if os.geteuid() != 0 or not mounted(disk, "32m"):
        pytest.skip("mounting a file system needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.slow
def test_the_disk_is_full_for_a_while(study: Path, undisturbed: Path, cluster: str, small_disk: Path) -> None:
    out, ballast = small_disk / "out", small_disk / "ballast"
    with started(study, out, cluster) as broken:
        broken.wait_for_file("trials/00001/checkpoints/epoch_00001.pt")
        fill(ballast)
        text = broken.finish(code=1)
    assert "the disk is full; free some space and run the same command again" in text
    ballast.unlink()
    before = identities(out)
    assert list(before) == ["trials/00000/trial.json"]
    with started(study, out, cluster) as run:
        run.finish()
    assert_kept(out, before)
    check(out, undisturbed)
    assert_nothing_reserved(cluster)
