"""Studies in processes of their own that tests kill at a moment they choose, and what must be true afterwards."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import psutil

from tests.integration.conftest import environment

SECONDS = 240
VOLATILE = ("duration_s", "samples_per_s", "seconds")


def study_document(**changes: Any) -> dict[str, Any]:
    """A study of a second per trial."""
    return {
        "name": "kills",
        "data": {
            "layout": "synthetic",
            "synthetic": {"machines": 1, "ids": 2, "train": 8, "test_normal": 4, "test_anomaly": 4},
        },
        "features": {"n_mels": 32, "seconds": 2},
        "method": {
            "pretrain": {"encoder": "test_resnet", "epochs": 2, "batch_size": 8, "dim": 16, "queue_size": 16},
            "finetune": {"epochs": 1, "batch_size": 8},
        },
        "search": {
            "num_trials": 3,
            "startup_trials": 1,
            "space": {
                "method.pretrain.alpha": {"uniform": [0.1, 0.6]},
                "method.pretrain.queue_size": {"logint": [8, 64]},
            },
        },
        "resources": {"max_concurrent_trials": 1},
        **changes,
    }


@dataclass
class StudyRun:
    """A ``study run`` under way."""

    process: subprocess.Popen[str]
    out: Path
    killed: list[psutil.Process] = field(default_factory=list)

    def wait_for(self, condition: Callable[[], Any], what: str = "") -> Any:
        """Looks every millisecond until the condition holds; a run that ends before has failed."""
        deadline = time.monotonic() + SECONDS
        while not (found := condition()):
            assert self.process.poll() is None, f"ended with {self.process.returncode} before {what}: {self.output()}"
            assert time.monotonic() < deadline, f"never: {what}\n{self.log()}"
            time.sleep(0.001)
        return found

    def wait_for_file(self, name: str) -> None:
        """Until a file of the study folder is there."""
        self.wait_for(lambda: next(self.out.glob(name), None), name)

    def kill(self) -> None:
        """SIGKILL of the driver alone."""
        self.process.kill()
        self.process.wait(SECONDS)

    def kill_all(self) -> None:
        """SIGKILL of the driver and of the raylet and the GCS of its own local Ray, at once."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.killed = children
        services = [child for child in children if _name(child) in ("raylet", "gcs_server")]
        assert {_name(child) for child in services} == {"raylet", "gcs_server"}
        for service in services:
            service.kill()
        self.kill()

    def finish(self, code: int = 0) -> str:
        """Waits for the end; returns what was printed."""
        output = self.output()
        assert self.process.returncode == code, f"exit code {self.process.returncode}\n{output}"
        return output

    def output(self) -> str:
        text, _ = self.process.communicate(timeout=SECONDS)
        return text

    def log(self) -> str:
        path = self.out / "logs" / "study.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""


@contextlib.contextmanager
def started(study: Path, out: Path, address: str | None = None, **variables: str) -> Iterator[StudyRun]:
    """Starts ``study run``; at the end of the block, kills what is left of it."""
    command = [sys.executable, "-m", "asd_ray", "study", "run", str(study), "--out", str(out)]
    command += ["--address", address] if address else []
    with subprocess.Popen(
        command,
        env={**environment(), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield StudyRun(process, out)
        finally:
            process.kill()


TRIAL = ("ray::kills", "ray::ResourceTrainable")  # a trial's process by its actor's name, and while it trains
WORKER = ("ray::RayTrainWorker",)


def processes_below(root: int, titles: tuple[str, ...]) -> list[psutil.Process]:
    """The processes of Ray below a process whose titles start with one of these."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [
            process for process in psutil.Process(root).children(recursive=True) if _title(process).startswith(titles)
        ]
    return []


def trial_processes(address: str) -> list[psutil.Process]:
    """The processes of trials on the Ray whose GCS has an address's port."""
    port, found = f":{address.rpartition(':')[2]}", []
    for process in psutil.process_iter(["name", "cmdline"]):
        arguments = process.info["cmdline"] or []
        if process.info["name"] == "raylet" and any(
            a.startswith("--gcs-address=") and a.endswith(port) for a in arguments
        ):
            found += processes_below(process.pid, TRIAL)
    return found


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


def identities(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every record of a study folder: an unchanged one was not written again."""
    # not "**", which enters folders that a study under way may remove meanwhile
    records = [*out.glob("trials/*/trial.json"), *out.glob("trials/*/repeat-*/trial.json")]
    return {str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(records)}


def assert_kept(out: Path, before: dict[str, tuple[int, int]]) -> None:
    """No finished trial ran again."""
    after = identities(out)
    assert {name: after.get(name) for name in before} == before


def assert_equal_studies(out: Path, undisturbed: Path) -> None:
    """The tables are those of a study that nobody killed, bit for bit but for times and rates."""
    for name in ("trials.parquet", "results.parquet", "history.parquet", "baselines.parquet"):
        tables = (pd.read_parquet(folder / name) for folder in (out, undisturbed))
        ours, theirs = (table.drop(columns=list(VOLATILE), errors="ignore") for table in tables)
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True, obj=name)
    for folder in sorted(undisturbed.glob("trials/*")):
        ours, theirs = (pd.read_parquet(place / "scores.parquet") for place in (out / "trials" / folder.name, folder))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True, obj=f"scores of {folder.name}")


def assert_optuna_knows_all(out: Path, name: str = "kills") -> None:
    """Optuna's storage holds each finished trial once, with its values and objective, and none under way."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{out / 'optuna.db'}")
    known = optuna.load_study(study_name=name, storage=storage).get_trials()
    states = [trial.state.name for trial in known]
    assert set(states) <= {"COMPLETE", "FAIL"}, states
    records = [json.loads(path.read_text()) for path in sorted(out.glob("trials/*/trial.json"))]
    assert [record["trial"] for record in records] == list(range(len(records)))
    complete = {trial.user_attrs["trial"]: trial for trial in known if trial.state.name == "COMPLETE"}
    assert states.count("COMPLETE") == len(complete) == len(records)
    for record in records:
        assert complete[record["trial"]].params == record["values"]
        assert complete[record["trial"]].value == record["objective"]


def assert_no_process_left(processes: list[psutil.Process]) -> None:
    """Waits until all processes are gone."""
    _, alive = psutil.wait_procs(processes, timeout=SECONDS)
    assert not alive, [_title(process) for process in alive]


LEFT = """
import json, sys
from ray.util.state import list_actors, list_placement_groups
alive = list_actors(address=sys.argv[1], filters=[("state", "!=", "DEAD")], limit=1000)
groups = list_placement_groups(address=sys.argv[1], filters=[("state", "!=", "REMOVED")], limit=1000)
print(json.dumps([[actor.class_name for actor in alive], [group.placement_group_id for group in groups]]))
"""
# Ray Data's own, one of each per Ray, there to stay
OF_RAY = {"_StatsActor", "_AutoscalingCoordinatorActor", "_UsageCollectionActor", "ActorLocationTracker"}


def assert_nothing_reserved(address: str) -> None:
    """No actor and no placement group is left on a Ray. Waits: a killed driver's are removed a little later."""
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(
            [sys.executable, "-c", LEFT, address], env=environment(), capture_output=True, text=True, check=True
        )
        actors, groups = json.loads(done.stdout.splitlines()[-1])
        left = set(actors) - OF_RAY, groups
        if not any(left):
            return
        assert time.monotonic() < deadline, f"left behind: actors {left[0]}, placement groups {left[1]}"
        time.sleep(0.5)


def write(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(json.dumps(document))  # JSON is YAML
    return path
