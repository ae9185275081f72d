"""A cluster's jobs from outside: wrong addresses, following a log over lost connections, failures, listing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobDetails

from asd_ray.cluster import jobs as cluster_jobs
from asd_ray.errors import AsdRayError, ConfigError


def details(job: str, status: str, out: str = "/shared/out", **more: Any) -> JobDetails:
    return JobDetails(
        type="SUBMISSION", submission_id=job, status=status, entrypoint="", metadata={"out": out, "study": "s"}, **more
    )


class Cluster:
    """Sends a log in the pieces that it is told, with errors between them; ``after`` each, what became of the job."""

    def __init__(self, *connections: list[str | Exception], after: tuple[str, ...] = ("SUCCEEDED",)) -> None:
        self.connections, self.after = list(connections), list(after)

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for piece in self.connections.pop(0):
            await asyncio.sleep(0)
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def get_job_info(self, job: str) -> JobDetails:
        return details(job, self.after.pop(0))


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:8265", "ray://head:10001", "http://"])
def test_an_address_that_is_not_a_dashboards_is_wrong_usage(address: str) -> None:
    with pytest.raises(ConfigError, match="expected the address of a Ray dashboard, such as http://HEAD:8265"):
        cluster_jobs.connect(address)


@pytest.mark.parametrize(
    ("variables", "sent"),
    [
        ({}, "in-home"),
        ({"RAY_AUTH_TOKEN_PATH": "named"}, "in-named"),
        ({"RAY_AUTH_TOKEN_PATH": "named", "RAY_AUTH_TOKEN": " own\n"}, "own"),
        ({"RAY_AUTH_MODE": "token"}, "in-home"),
        ({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "own"}, None),
        ({"HOME": "nobody"}, None),
    ],
)
def test_a_token_is_found_where_rays_own_tools_find_it(
    variables: dict[str, str], sent: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("in-home\n")
    (tmp_path / "named").write_text("in-named\n")
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(tmp_path), **variables}.items():
        monkeypatch.setenv(name, value)
    assert cluster_jobs.token_header() == ({"Authorization": f"Bearer {sent}"} if sent else {})


def test_a_log_is_followed_to_the_end_over_lost_connections_and_written_once() -> None:
    cluster: Any = Cluster(
        ["one\n", "two\n", RuntimeError("closed unexpectedly")],
        [ConnectionRefusedError()],
        ["one\ntw", "o\nthr"],  # the server cuts it elsewhere; it ends although the job does not
        ["one\ntwo\nthree\n"],
        after=("RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"),  # asked after each of the four
    )
    written: list[str] = []
    ended = cluster_jobs.follow(cluster, "a", written.append, pause=lambda _: None)
    assert "".join(written) == "one\ntwo\nthree\n"
    assert ended.status == "SUCCEEDED"


def test_a_job_whose_node_died_with_its_log_has_ended() -> None:
    cluster: Any = Cluster(["one\n", RuntimeError("closed")], [RuntimeError("no agent")], after=("RUNNING", "FAILED"))
    written: list[str] = []
    assert cluster_jobs.follow(cluster, "a", written.append, patience=60, pause=lambda _: None).status == "FAILED"
    assert written == ["one\n"]


def test_a_cluster_that_stays_away_is_given_up_with_how_to_go_on() -> None:
    cluster: Any = Cluster(["one\n", ConnectionResetError()], after=("RUNNING",))
    with pytest.raises(AsdRayError, match=r"job a was lost .ConnectionResetError.; .* same command again"):
        cluster_jobs.follow(cluster, "a", lambda _: None, patience=0, pause=lambda _: None)


def test_ctrl_c_while_following_is_not_a_lost_connection() -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    cluster: Any = Cluster(["one\n"])
    with pytest.raises(KeyboardInterrupt):
        cluster_jobs.follow(cluster, "a", interrupt)


def test_a_failure_is_one_line() -> None:
    log = "Job entrypoint command failed with exit code 2, last available logs:\nerror: no such folder.\n"
    assert cluster_jobs.failure(details("a", "FAILED", message=log, driver_exit_code=2)) == (
        "its command ended with exit code 2: error: no such folder."
    )
    assert (
        cluster_jobs.failure(details("a", "FAILED", message="runtime_env setup failed")) == "runtime_env setup failed"
    )
    assert cluster_jobs.failure(details("a", "FAILED")) == "Ray gave no reason"


def test_only_the_studies_among_a_clusters_jobs_are_shown() -> None:
    study = JobDetails(
        type="SUBMISSION",
        submission_id="s-1",
        status="RUNNING",
        entrypoint="",
        metadata={"study": "s", "asd_ray": "1"},
        start_time=5,
    )
    driver = JobDetails(type="DRIVER", status="RUNNING", entrypoint="", metadata={"study": "s"})
    cluster: Any = SimpleNamespace(list_jobs=lambda: [study, driver, details("other", "RUNNING")])
    assert (
        cluster_jobs.study_jobs(cluster)
        == cluster_jobs.study_jobs(cluster, "s")
        == cluster_jobs.study_jobs(cluster, "s-1")
        == [study]
    )
    assert cluster_jobs.study_jobs(cluster, "t") == []
