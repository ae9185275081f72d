"""Studies over several nodes, features on S3, a node that dies and another that comes, a head that dies."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import pytest

from tests.integration.buckets import Bucket
from tests.integration.conftest import environment
from tests.integration.killing import (
    TRIAL,
    WORKER,
    StudyRun,
    assert_equal_studies,
    assert_kept,
    assert_nothing_reserved,
    assert_optuna_knows_all,
    identities,
    processes_below,
    started,
    study_document,
    write,
)
from tests.integration.nodes import Nodes, actors_of, nodes

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    found = Bucket()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def s3(bucket: Bucket) -> dict[str, str]:
    return bucket.variables


@pytest.fixture(scope="module")
def three(s3: dict[str, str]) -> Iterator[Nodes]:
    with nodes(2, 2, 2, **s3) as ray:
        yield ray


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four trials at a time, each in an actor of its name; recordings and features on storage that all nodes share."""
    folder = tmp_path_factory.mktemp("nodes")
    document = study_document(resources={"max_concurrent_trials": 4, "reuse_processes": False})
    document["data"]["root"] = str(folder / "data")
    document["features"]["store"] = "s3://features/store"
    document["method"]["pretrain"]["epochs"] = 16
    document["search"] |= {"num_trials": 4, "sampler": "random"}
    return write(folder / "study.yaml", document)


@pytest.fixture(scope="module")
def undisturbed(study: Path, three: Nodes, s3: dict[str, str]) -> Path:
    with started(study, study.parent / "undisturbed", three.address, **s3) as run:
        run.finish()
    return run.out


def test_the_trials_of_a_study_sit_on_several_nodes(undisturbed: Path, three: Nodes, s3: dict[str, str]) -> None:
    trials = [(name, node) for name, node, _, _ in actors_of(three.address) if name.startswith("kills-trial-")]
    assert sorted(name for name, _ in trials) == [f"kills-trial-{number:05d}" for number in range(4)]
    assert len({node for _, node in trials}) >= 2
    assert pd.read_parquet(undisturbed / "trials.parquet")["status"].tolist() == ["complete"] * 4
    assert not (undisturbed / "features").exists()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.items():
            patch.setenv(name, value)
        stored = boto3.client("s3").list_objects_v2(Bucket="features")["Contents"]
    assert {entry["Key"].rsplit(".", 1)[-1] for entry in stored if not entry["Key"].endswith("/")} == {
        "json",
        "parquet",
    }
    assert_nothing_reserved(three.address)


def test_a_node_with_two_trials_is_killed_and_another_comes(
    study: Path, undisturbed: Path, three: Nodes, s3: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def with_two_trials() -> subprocess.Popen[str] | None:
        """A node with two trials that have trained an epoch and have not ended."""
        logs = [log for log in out.glob("trials/*/trial.log") if not log.with_name("trial.json").exists()]
        training = {int(pid) for log in logs for pid in re.findall(r"process (\d+)$", log.read_text(), re.MULTILINE)}
        for node in three.nodes if len(training) >= 2 else []:
            if len(training & {process.pid for process in processes_below(node.pid, TRIAL)}) >= 2:
                return node
        return None

    with started(study, out, three.address, **s3) as run:
        three.kill(run.wait_for(with_two_trials, "two trials on a node"))
        three.add(2)
        run.finish()
    assert_equal_studies(out, undisturbed)
    assert_optuna_knows_all(out)
    lost = re.findall(
        r"(kills-trial-\d+): interrupted: .*; it goes on from its last checkpoint\.$", run.log(), re.MULTILINE
    )
    assert len(lost) == len(set(lost)) >= 2, run.log()
    assert_nothing_reserved(three.address)


def distributed(folder: Path) -> dict[str, Any]:
    """One trial whose two workers, of two cores each, fit on no node together."""
    document = study_document(resources={"workers": 2, "cpus_per_worker": 2})
    document["data"]["root"] = str(folder / "data")
    document["features"]["store"] = str(folder / "features")
    document["method"]["pretrain"]["epochs"] = 6
    document["search"]["num_trials"] = 1
    return document


def test_workers_of_one_trial_on_two_nodes_of_which_one_is_killed(three: Nodes, tmp_path: Path) -> None:
    study = write(tmp_path / "study.yaml", distributed(tmp_path))
    run: StudyRun
    with started(study, tmp_path / "undisturbed", three.address) as run:
        run.wait_for(lambda: "epoch 1 of 7" in run.log(), "the first epoch")
        homes = [node for node in three.nodes if processes_below(node.pid, WORKER)]
        assert len(homes) == 2
        slow = processes_below(homes[1].pid, WORKER)[0]
        slow.send_signal(signal.SIGSTOP)
        time.sleep(3)  # what is tested is that nothing happens meanwhile
        slow.send_signal(signal.SIGCONT)
        run.finish()
    assert "lost" not in run.log()
    with started(study, tmp_path / "out", three.address) as run:
        run.wait_for(lambda: "epoch 2 of 7" in run.log(), "the second epoch")
        three.kill(next(node for node in three.nodes if processes_below(node.pid, WORKER)))
        run.finish()
    assert re.search(r"kills-trial-00000: lost worker \d .*; its workers go on from the last checkpoint\.", run.log())
    assert_equal_studies(tmp_path / "out", tmp_path / "undisturbed")
    assert_nothing_reserved(three.address)
    three.add(2)


def test_the_node_of_a_submitted_studys_driver_is_killed(
    study: Path, undisturbed: Path, three: Nodes, s3: dict[str, str], tmp_path: Path
) -> None:
    """The same command is told how the job ended although its log is gone, and sends it once more."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "asd_ray", "study", "submit", str(study), "--out", str(out)]
    command += ["--address", three.dashboard, "--driver-cpus", "1"]

    def submit() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env={**environment(), **s3}, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    def home() -> subprocess.Popen[str] | None:
        supervised = ("ray::JobSupervisor", "ray::_ray_internal_job_actor")
        return next((node for node in three.nodes if processes_below(node.pid, supervised)), None)

    with submit() as first:
        run = StudyRun(first, out)
        node = run.wait_for(home, "a node with the job's driver")
        run.wait_for(lambda: list(out.glob("trials/*/checkpoints/epoch_00001.pt")), "an epoch")
        three.kill(node)
        printed = run.finish(code=1)
    assert re.search(r"^error: job kills-[0-9a-f]{10} failed: ", printed, re.MULTILINE), printed
    before = identities(out)
    three.add(2)
    with submit() as second:
        printed = StudyRun(second, out).finish()
    assert re.search(r"^job kills-[0-9a-f]{10}-2 submitted$", printed, re.MULTILINE), printed
    assert_kept(out, before)
    assert_equal_studies(out, undisturbed)
    assert_optuna_knows_all(out)
    assert_nothing_reserved(three.address)


def test_a_bucket_is_away_for_a_while_in_the_middle_of_training(
    study: Path, bucket: Bucket, three: Nodes, s3: dict[str, str], tmp_path: Path
) -> None:
    document = json.loads(study.read_text())
    document["resources"]["reading"] = "streamed"
    streaming, out = write(tmp_path / "study.yaml", document), tmp_path / "out"
    with started(streaming, tmp_path / "undisturbed", three.address, **s3) as run:
        run.finish()
    with started(streaming, out, three.address, **s3) as run:
        run.wait_for(lambda: list(out.glob("trials/*/checkpoints/epoch_00002.pt")), "two epochs")
        with bucket.away():
            time.sleep(8)  # that is how long
        run.finish()
    assert_equal_studies(out, tmp_path / "undisturbed")
    assert "interrupted" not in run.log()
    assert_nothing_reserved(three.address)


def test_the_head_is_killed_and_a_new_one_goes_on(
    study: Path, undisturbed: Path, s3: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with nodes(2, **s3) as ray, started(study, out, ray.address, **s3) as run:
        run.wait_for_file("trials/00001/trial.json")
        before = identities(out)
        ray.kill(ray.head)
        run.finish(code=1)  # Ray's core waits for its head for a minute before it ends the process
    assert re.search(r"the head of Ray at \S+ does not answer .* the same command goes on", run.log())
    with nodes(2, **s3) as ray:
        with started(study, out, ray.address, **s3) as run:
            run.finish()
        assert_nothing_reserved(ray.address)
    assert_kept(out, before)
    assert_equal_studies(out, undisturbed)
    assert_optuna_knows_all(out)
