"""``study submit`` and ``study status --address``: what they print and how they end, with a made-up cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobDetails, JobStatus

from asd_ray.cluster import jobs as cluster_jobs
from asd_ray.cluster import submit
from tests.cli.conftest import Call

ADDRESS = "http://head:8265"


@pytest.fixture
def call(call: Call) -> Call:
    """Runs ``study`` with arguments."""
    return partial(call, "study")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text("name: quick\n")
    return path


def details(status: str, **more: Any) -> JobDetails:
    about = {"study": "quick", "asd_ray": "1", "out": "/shared/out"}
    fields = {"submission_id": "quick-1", "entrypoint": "python", "metadata": about, **more}
    return JobDetails(type="SUBMISSION", status=status, **fields)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets how the cluster answers: the job's status when it is sent, and how it ends."""

    def answer(ends: JobDetails | BaseException, status: str = "PENDING", new: bool = True) -> None:
        def follow(client: object, job: str, write: Callable[[str], object]) -> JobDetails:
            write("trial 0 complete\n")
            if isinstance(ends, BaseException):
                raise ends
            return ends

        monkeypatch.setattr(cluster_jobs, "connect", lambda address: object())
        monkeypatch.setattr(cluster_jobs, "is_this_computer", lambda address: False)
        monkeypatch.setattr(
            submit,
            "submit",
            lambda client, study, out, env, again, driver_cpus: submit.Submitted(
                "quick-1", out, new, JobStatus(status)
            ),
        )
        monkeypatch.setattr(cluster_jobs, "follow", follow)

    return answer


def test_a_job_that_succeeds_is_done(call: Call, cluster: Callable[..., None], study: Path) -> None:
    cluster(details("SUCCEEDED"))
    code, out, err = call("submit", study, "--address", f"{ADDRESS}/", "--out", "/shared/out")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "job quick-1 submitted",
        f"dashboard:    {ADDRESS}/#/jobs/quick-1",
        "study folder: /shared/out",
        "trial 0 complete",
        "job quick-1 succeeded",
    ]


def test_a_job_that_fails_has_failed(call: Call, cluster: Callable[..., None], study: Path) -> None:
    cluster(details("FAILED", message="...\nerror: no such folder.", driver_exit_code=2))
    code, _, err = call("submit", study, "--address", ADDRESS, "--out", "/shared/out")
    assert (code, err) == (
        1,
        "error: job quick-1 failed: its command ended with exit code 2: error: no such folder.\n",
    )


def test_a_job_that_was_stopped_was_interrupted(call: Call, cluster: Callable[..., None], study: Path) -> None:
    cluster(details("STOPPED"))
    code, _, err = call("submit", study, "--address", ADDRESS, "--out", "/shared/out")
    assert (code, err.startswith("job quick-1 was stopped;")) == (130, True)


def test_ctrl_c_leaves_the_job_and_says_how_to_go_on(call: Call, cluster: Callable[..., None], study: Path) -> None:
    cluster(KeyboardInterrupt())
    code, _, err = call("submit", study, "--address", ADDRESS, "--out", "/shared/out")
    assert code == 130
    assert err.startswith("detached; job quick-1 goes on.")
    assert f"`ray job stop quick-1 --address {ADDRESS}`" in err


def test_without_waiting_nothing_is_followed(call: Call, cluster: Callable[..., None], study: Path) -> None:
    cluster(AssertionError("followed"))
    code, out, _ = call("submit", study, "--address", ADDRESS, "--out", "/shared/out", "--no-wait", "--json")
    assert code == 0
    assert json.loads(out) == {
        "study": "quick",
        "job": "quick-1",
        "status": "PENDING",
        "submitted": True,
        "out": "/shared/out",
        "dashboard": f"{ADDRESS}/#/jobs/quick-1",
    }


def test_json_keeps_standard_output_for_the_script(call: Call, cluster: Callable[..., None], study: Path) -> None:
    cluster(details("SUCCEEDED"), status="RUNNING", new=False)
    code, out, err = call("submit", study, "--address", ADDRESS, "--out", "/shared/out", "--json")
    assert (code, json.loads(out)["status"], json.loads(out)["submitted"]) == (0, "SUCCEEDED", False)
    assert "job quick-1 was submitted before: running" in err
    assert "trial 0 complete" in err


def test_a_study_that_succeeded_before_is_not_followed(call: Call, cluster: Callable[..., None], study: Path) -> None:
    cluster(AssertionError("followed"), status="SUCCEEDED", new=False)
    code, out, _ = call("submit", study, "--address", ADDRESS, "--out", "/shared/out")
    assert (code, out.splitlines()[-1].startswith("nothing is sent twice: --again")) == (0, True)


def test_on_a_ray_that_is_this_computer_the_folder_is_the_one_of_study_run(
    call: Call, monkeypatch: pytest.MonkeyPatch, cluster: Callable[..., None], study: Path
) -> None:
    cluster(details("SUCCEEDED"))
    monkeypatch.setattr(cluster_jobs, "is_this_computer", lambda address: True)
    monkeypatch.chdir(study.parent)
    code, out, _ = call("submit", study, "--address", ADDRESS)
    assert (code, f"study folder: {study.parent}/runs/quick" in out) == (0, True)


def test_a_study_that_does_not_validate_is_not_sent(
    call: Call, monkeypatch: pytest.MonkeyPatch, cluster: Callable[..., None], study: Path
) -> None:
    cluster(AssertionError("followed"))
    monkeypatch.setattr(submit, "submit", None)
    assert call("submit", study, "--address", ADDRESS, "--out", "runs/here")[0] == 2
    assert call("submit", study, "--address", ADDRESS)[0] == 2  # runs/<name> is here as well
    assert call("submit", study, "--address", ADDRESS, "--out", "/o", "--set", "seeed=1")[0] == 2
    assert call("submit", study, "--address", ADDRESS, "--out", "/o", "--env", "NOT SET")[0] == 2


def test_status_shows_the_clusters_studies(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def list_jobs(self) -> list[JobDetails]:
            return [details("RUNNING", start_time=1_790_000_000_000)]

        def get_job_logs(self, job: str) -> str:
            return "one\n\n" + "".join(f"line {number}\n" for number in range(20))

    monkeypatch.setattr(cluster_jobs, "connect", lambda address: Client())
    code, out, _ = call("status", "--address", ADDRESS)
    assert code == 0
    assert out.splitlines()[-1].split()[:2] == ["quick", "RUNNING"]
    assert out.rstrip().endswith("quick-1  line 19")
    code, out, _ = call("status", "quick", "--address", ADDRESS)
    assert (code, [line.strip() for line in out.splitlines() if "line" in line]) == (
        0,
        [f"line {number}" for number in range(10, 20)],
    )
    code, _, err = call("status", "other", "--address", ADDRESS)
    assert (code, err) == (1, f"error: {ADDRESS}: no job of a study 'other' was submitted there.\n")
    assert call("status")[0] == 2
