"""Ray Jobs on a cluster, by its dashboard's address: connect, follow a log, list studies."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient, JobType
from ray.util import get_node_ip_address
from ray.util.state import StateApiClient
from ray.util.state.common import ListApiOptions, StateResource

from asd_ray.errors import AsdRayError, ConfigError

RETRY_SECONDS = 2.0
PATIENCE_SECONDS = 300.0


def connect(address: str) -> JobSubmissionClient:
    """Connect to the Ray whose dashboard is at ``address``, with a token if there is one (:func:`token_header`).

    Raises:
        ConfigError: it is not a URL.
        AsdRayError: nothing answers there, or something else than Ray, or Ray refuses the token.
    """
    if not re.match(r"https?://[^/]", address):
        raise ConfigError(
            f"--address {address}: expected the address of a Ray dashboard, such as http://HEAD:8265, which "
            f"`ray start --head` prints."
        )
    for handler in logging.getLogger("ray").handlers:  # Ray's client logs every step at level INFO
        handler.setLevel(logging.ERROR)
    # Ray prefers these variables to an address that was given; here the command line says where.
    for variable in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        os.environ.pop(variable, None)
    try:
        return JobSubmissionClient(address, headers=token_header())
    except AuthenticationError as error:
        raise _refused(address, error) from None
    except (ConnectionError, requests.exceptions.ConnectionError):
        raise AsdRayError(
            f"{address}: nothing answers there; expected the dashboard of a running Ray (`ray start --head` prints its "
            f"address, usually port 8265)."
        ) from None
    except (RuntimeError, ValueError, KeyError, requests.exceptions.RequestException) as error:
        raise AsdRayError(
            f"{address}: what answers there is not the dashboard of a Ray ({str(error).splitlines()[0]})."
        ) from None


def token_header() -> dict[str, str]:
    """HTTP header with the cluster's token, found where Ray's own tools look: ``RAY_AUTH_TOKEN``, the file
    ``RAY_AUTH_TOKEN_PATH``, ``~/.ray/auth_token``. Empty if there is none, or if ``RAY_AUTH_MODE`` is not ``token``.

    Ray's client finds the token itself only if ``RAY_AUTH_MODE`` is set before Ray is imported.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if not token:
        path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
        token = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    return {"Authorization": f"Bearer {token}"} if token else {}


def _refused(address: str, error: Exception) -> AsdRayError:
    found = "none was sent" if str(error).startswith("Authentication required") else "refused the one that was sent"
    return AsdRayError(
        f"{address}: this Ray asks for a token and {found}; set RAY_AUTH_TOKEN to the cluster's token or put it into "
        f"~/.ray/auth_token (`ray get-auth-token` prints it on the head node), and leave RAY_AUTH_MODE unset."
    )


def is_this_computer(address: str) -> bool:
    """Whether every node of the Ray at ``address`` is this computer, so that both see the same files."""
    here = {"127.0.0.1", get_node_ip_address()}
    options = ListApiOptions(filters=[("state", "=", "ALIVE")])
    nodes = StateApiClient(address, headers=token_header()).list(StateResource.NODES, options, True)
    return bool(nodes) and all(node.node_ip in here for node in nodes)


def follow(
    client: JobSubmissionClient,
    job: str,
    write: Callable[[str], object],
    patience: float = PATIENCE_SECONDS,
    pause: Callable[[float], object] = time.sleep,
) -> JobDetails:
    """Write a job's log as it grows, and return how the job ended.

    A lost connection is made again, and nothing is written twice. If the job's node is gone, and its log with it, the
    cluster still knows how the job ended.

    Args:
        patience: seconds without a connection after which to give up.
        pause: waits between two tries.

    Raises:
        AsdRayError: the cluster has been away for too long.
    """
    seen = 0

    async def tail() -> None:
        nonlocal seen
        position = 0  # the log is sent from its beginning on every connection
        async for text in client.tail_job_logs(job):
            fresh = text[max(0, seen - position) :]
            position += len(text)
            if fresh:
                seen += len(fresh)
                write(fresh)

    lost = (OSError, RuntimeError, aiohttp.ClientError)  # requests' errors are OSErrors
    lost_at = None
    while True:
        try:
            try:
                asyncio.run(tail())
            except lost:
                if (details := client.get_job_info(job)).status.is_terminal():
                    return details
                raise
            details = client.get_job_info(job)
        except lost as error:
            lost_at = time.monotonic() if lost_at is None else lost_at
            if time.monotonic() - lost_at >= patience:
                raise AsdRayError(
                    f"the connection to job {job} was lost ({type(error).__name__}); the job goes on as long as its "
                    f"cluster does: run the same command again to follow it."
                ) from None
        else:
            lost_at = None
            if details.status.is_terminal():
                return details
        pause(RETRY_SECONDS)


def failure(details: JobDetails) -> str:
    """Why a job failed, in one line: from its log if its command ran, else Ray's reason for not running it."""
    message = (details.message or "").strip()
    if details.driver_exit_code is not None:
        return f"its command ended with exit code {details.driver_exit_code}: {last_line(message)}"
    return last_line(message) or "Ray gave no reason"


def study_jobs(client: JobSubmissionClient, name: str | None = None) -> list[JobDetails]:
    """Jobs sent by ``study submit``, oldest first. ``name`` selects a study's jobs, or one job by its id."""
    jobs = [job for job in client.list_jobs() if job.type == JobType.SUBMISSION and "asd_ray" in (job.metadata or {})]
    named = [job for job in jobs if name in (None, job.submission_id, (job.metadata or {})["study"])]
    return sorted(named, key=lambda job: job.start_time or 0)


def last_lines(client: JobSubmissionClient, job: str, count: int) -> list[str]:
    """The last lines of a job's log. Empty while the job has no log."""
    try:
        log = client.get_job_logs(job)
    except RuntimeError:  # its node is gone
        return []
    return [line for line in log.splitlines() if line.strip()][-count:]


def last_line(text: str) -> str:
    """The last non-empty line of a text, shortened to 500 characters. Empty if there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""
