"""What is sent to a cluster, and when it is not: ids, paths, environment, the job's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.job_submission import JobDetails, JobStatus

from asd_ray.cluster import submit
from asd_ray.config import StudyConfig
from asd_ray.config.study_file import load_study, parse_study
from asd_ray.errors import AsdRayError, ConfigError

STUDY = parse_study({"name": "quick"}, "test")


def details(job: str, status: str, out: str = "/shared/out", **more: Any) -> JobDetails:
    return JobDetails(
        type="SUBMISSION", submission_id=job, status=status, entrypoint="", metadata={"out": out, "study": "s"}, **more
    )


def test_the_same_study_in_the_same_folder_is_the_same_job() -> None:
    job = submit.job_id(STUDY, "/shared/out")
    assert job == submit.job_id(parse_study({"name": "quick"}, "test"), "/shared/out")
    assert job.startswith("quick-")
    others = [
        submit.job_id(STUDY, "/shared/other"),
        submit.job_id(parse_study({"name": "quick", "seed": 1}, "test"), "/shared/out"),
        submit.job_id(parse_study({"name": "quick", "search": {"num_trials": 9}}, "test"), "/shared/out"),
    ]
    assert len({job, *others}) == 4


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
@pytest.mark.parametrize("again", [False, True])
def test_a_study_that_runs_or_waits_is_not_sent_again(status: str, again: bool) -> None:
    assert submit.choose("a", "/shared/out", [details("a", status)], again) == ("a", status)


def test_a_study_that_ended_badly_is_sent_again_under_the_next_name() -> None:
    jobs = [details("a", "FAILED")]
    assert submit.choose("a", "/shared/out", []) == ("a", None)
    assert submit.choose("a", "/shared/out", jobs) == ("a-2", None)
    jobs.append(details("a-2", "STOPPED"))
    assert submit.choose("a", "/shared/out", jobs) == ("a-3", None)
    jobs.append(details("a-3", "RUNNING"))
    assert submit.choose("a", "/shared/out", jobs) == ("a-3", JobStatus.RUNNING)


def test_a_study_that_succeeded_is_sent_again_only_if_asked() -> None:
    jobs = [details("a", "FAILED"), details("a-2", "SUCCEEDED")]
    assert submit.choose("a", "/shared/out", jobs) == ("a-2", JobStatus.SUCCEEDED)
    assert submit.choose("a", "/shared/out", jobs, again=True) == ("a-3", None)


@given(st.lists(st.sampled_from(["FAILED", "STOPPED", "SUCCEEDED"]), max_size=5), st.booleans(), st.randoms())
@settings(deadline=None)
def test_a_new_job_never_has_a_name_that_the_cluster_knows(ended: list[str], again: bool, random: Any) -> None:
    names = ["a", *(f"a-{number}" for number in range(2, len(ended) + 1))]
    jobs = [details(name, status) for name, status in zip(names, ended, strict=False)]
    random.shuffle(jobs)  # Ray lists them in no order
    name, status = submit.choose("a", "/shared/out", jobs, again)
    assert (status is None) == (name not in {job.submission_id for job in jobs})


def test_two_versions_of_a_study_never_write_to_one_folder_at_a_time() -> None:
    other = details("quick-0123456789", "RUNNING")
    with pytest.raises(AsdRayError, match=r"/shared/out: job quick-0123456789 is running with another version"):
        submit.choose("a", "/shared/out", [other])
    assert submit.choose("a", "/shared/else", [other]) == ("a", None)
    assert submit.choose("a", "/shared/out", [details("quick-0123456789", "SUCCEEDED")]) == ("a", None)


RELATIVE = [
    ("data.root", {"data": {"layout": "dcase2020", "root": "data/dcase"}}),
    ("data.root", {"data": {"layout": "dcase2020", "root": "~/dcase"}}),
    ("features.store", {"features": {"store": "features"}}),
    ("resources.storage", {"resources": {"storage": "./checkpoints"}}),
    ("method.pretrain.init_from", {"method": {"pretrain": {"init_from": "encoder"}}}),
    ("data.extra_pretraining", {"data": {"extra_pretraining": ["/audioset", "esc50"]}}),
]


@pytest.mark.parametrize(("key", "document"), RELATIVE)
def test_a_relative_path_means_nothing_to_a_cluster_elsewhere(key: str, document: dict[str, Any]) -> None:
    study = parse_study({"name": "quick", **document}, "test")
    with pytest.raises(ConfigError, match=rf"^{key}: .* is relative to a folder of this computer"):
        submit.whole_paths(study, Path("/shared/out"), None)


def test_the_study_folder_must_be_absolute_on_a_cluster_elsewhere() -> None:
    with pytest.raises(ConfigError, match=r"^--out: 'runs/quick' is relative"):
        submit.whole_paths(STUDY, Path("runs/quick"), None)


def test_absolute_paths_and_uris_stay_and_relative_ones_are_this_computers(tmp_path: Path) -> None:
    document = {
        "name": "quick",
        "data": {"root": "data", "extra_pretraining": ["extra", "/audioset"]},
        "features": {"store": "s3://bucket/features"},
        "resources": {"storage": "/checkpoints"},
    }
    study, out = submit.whole_paths(parse_study(document, "test"), Path("runs/../runs/quick"), tmp_path)
    assert study.data.root == str(tmp_path / "data")
    assert study.data.extra_pretraining == [str(tmp_path / "extra"), "/audioset"]
    assert study.features.store == "s3://bucket/features"
    assert study.resources.storage == "/checkpoints"
    assert out == str(tmp_path / "runs" / "quick")


def test_environment_is_given_or_taken_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "secret")
    monkeypatch.delenv("NOWHERE", raising=False)
    assert submit.environment(["A=1", "B=x=y", "C=", "FROM_HERE"]) == {
        "A": "1",
        "B": "x=y",
        "C": "",
        "FROM_HERE": "secret",
    }
    with pytest.raises(ConfigError, match="--env NOWHERE: is not set here"):
        submit.environment(["NOWHERE"])
    with pytest.raises(ConfigError, match="'MY-KEY' is not the name of a variable") as refused:
        submit.environment(["MY-KEY=hunter2"])
    assert "hunter2" not in str(refused.value)


def test_a_job_carries_the_sources_and_the_study_and_nothing_else(tmp_path: Path) -> None:
    submit.pack(STUDY, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"asd_ray", "study.yaml"}
    assert load_study(tmp_path / "study.yaml") == STUDY
    suffixes = {path.suffix for path in (tmp_path / "asd_ray").rglob("*") if path.is_file() and path.name != "py.typed"}
    assert suffixes <= {".py", ".j2", ".yaml", ".json"}
    assert (tmp_path / "asd_ray" / "__main__.py").exists()
    assert (tmp_path / "asd_ray" / "report" / "report.html.j2").exists()
    assert not list(tmp_path.rglob("__pycache__"))


def test_data_in_the_packages_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    (package / ".git").mkdir(parents=True)
    (package / ".git" / "objects").write_bytes(bytes(5000))  # never carried, so it does not count
    (package / "__init__.py").touch()
    monkeypatch.setattr(submit, "MAX_BYTES", 4000)
    submit.pack(STUDY, tmp_path / "fine", package)
    (package / "clips.wav").write_bytes(bytes(5000))
    with pytest.raises(AsdRayError, match=r"the largest file is clips.wav"):
        submit.pack(STUDY, tmp_path / "refused", package)


class Cluster:
    """Knows no job, and remembers what it is sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def list_jobs(self) -> list[JobDetails]:
        return []

    def submit_job(self, **job: Any) -> None:
        self.sent.append(job)
        job["files"] = {path.name for path in Path(job["runtime_env"]["working_dir"]).iterdir()}


def test_a_job_has_the_command_the_metadata_and_only_the_variables_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(submit.REVISION_VARIABLE, "abc123")
    cluster: Any = Cluster()
    sent = submit.submit(cluster, STUDY, "/shared/my runs/out", {"TOKEN": "x"}, driver_cpus=0.5)
    [job] = cluster.sent
    assert (sent.job, sent.new, sent.status) == (job["submission_id"], True, "PENDING")
    assert job["entrypoint_num_cpus"] == 0.5
    assert job["entrypoint"] == ("python -m asd_ray study run study.yaml --out '/shared/my runs/out' --address auto")
    assert job["metadata"].items() >= {"study": "quick", "out": "/shared/my runs/out", "git_revision": "abc123"}.items()
    assert "x" not in job["metadata"].values()
    assert job["runtime_env"]["env_vars"] == {
        "TOKEN": "x",
        submit.REVISION_VARIABLE: "abc123",
        "RAY_JOB_STOP_WAIT_TIME_S": "30",
    }
    assert job["files"] == {"asd_ray", "study.yaml"}
    assert not Path(job["runtime_env"]["working_dir"]).exists()


def test_two_who_send_the_same_study_at_once_get_the_same_job() -> None:
    class Raced(Cluster):
        def submit_job(self, **job: Any) -> None:
            raise RuntimeError(f"Job with submission_id {job['submission_id']} already exists.")

        def get_job_info(self, job: str) -> JobDetails:
            return details(job, "RUNNING")

    cluster: Any = Raced()
    sent = submit.submit(cluster, STUDY, "/shared/out", {})
    assert (sent.new, sent.status) == (False, "RUNNING")


def test_a_head_that_has_just_started_is_asked_again_and_a_refusal_is_one_sentence() -> None:
    class Busy(Cluster):
        def submit_job(self, **job: Any) -> None:
            self.sent.append(job)
            if len(self.sent) <= refusals:
                raise RuntimeError("Request failed with status code 500: No available agent to submit job.")
            if full:
                raise RuntimeError("Request failed with status code 400: Traceback:\n  ...\nValueError: too large")

    refusals, full = 2, False
    busy: Any = Busy()
    assert submit.submit(busy, STUDY, "/shared/out", {}, pause=lambda _: None).new
    assert len(busy.sent) == 3
    refusals, full, busy = 2, True, Busy()
    with pytest.raises(AsdRayError, match=r"^the cluster refused the job: ValueError: too large$"):
        submit.submit(busy, STUDY, "/shared/out", {}, pause=lambda _: None)
    refusals, busy = 99, Busy()
    with pytest.raises(AsdRayError, match="No available agent"):
        submit.submit(busy, STUDY, "/shared/out", {}, pause=lambda _: None)
    assert len(busy.sent) == submit.TRIES


def test_a_study_with_whole_paths_is_the_study(tmp_path: Path) -> None:
    study, _ = submit.whole_paths(STUDY, tmp_path, None)
    assert isinstance(study, StudyConfig)
    assert study == STUDY
