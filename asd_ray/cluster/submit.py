"""Send a study to a cluster as a Ray Job.

The job's working folder contains the resolved study file and the sources of this package, so the cluster runs the
code and the values that were validated here. It never contains data: recordings, features and the study folder are on
storage that all nodes of the cluster share.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient, JobType

import asd_ray
from asd_ray.cluster.jobs import RETRY_SECONDS, last_line
from asd_ray.config import Scalar, StudyConfig
from asd_ray.config.study_file import to_yaml, with_values
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.study.folder import REVISION_VARIABLE, git_revision

MAX_BYTES = 50 * 2**20  # of sources; the package has about 1 MB
STOP_SECONDS = (
    "30"  # from `ray job stop` to a kill; Ray's default of 3 is too short for a study's trials to end in order
)
TRIES = 5
PATHS = ("data.root", "features.store", "resources.storage")
"""Keys of a study whose value is a path or a URI, beside those of its method and ``data.extra_pretraining``, a list."""


@dataclass(frozen=True)
class Submitted:
    """A study's job on a cluster.

    Attributes:
        job: submission id, ``<study's name>-<hash of study and folder>``; ``-2``, ``-3``, ... for further attempts.
        out: the study folder.
        new: True if it was sent now, False if the cluster had it already.
        status: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``.
    """

    job: str
    out: str
    new: bool
    status: JobStatus


def whole_paths(study: StudyConfig, out: Path, here: Path | None) -> tuple[StudyConfig, str]:
    """Make the paths of a study and of its folder absolute.

    Args:
        here: base of relative paths; None if the cluster does not see this computer's folders.

    Raises:
        ConfigError: a path is relative and ``here`` is None.
    """

    def whole(key: str, path: str) -> str:
        if "://" in path or os.path.isabs(path):
            return path
        if here is None:
            raise ConfigError(
                f"{key}: {path!r} is relative to a folder of this computer, and the cluster is elsewhere; give the "
                f"absolute path of a folder on storage that all nodes of the cluster share."
            )
        return os.path.abspath(here / Path(path).expanduser())

    values: dict[str, Scalar] = {}
    for key in (*PATHS, *(f"method.{path}" for path in study.method.paths)):
        value: object = study
        for name in key.split("."):
            value = getattr(value, name, None)
        if isinstance(value, str):
            values[key] = whole(key, value)
    study = with_values(study, values)
    extra = [whole("data.extra_pretraining", path) for path in study.data.extra_pretraining]
    study = study.model_copy(update={"data": study.data.model_copy(update={"extra_pretraining": extra})})
    return study, os.path.normpath(whole("--out", os.fspath(out)))


def environment(wanted: Iterable[str]) -> dict[str, str]:
    """Environment variables of the job: ``KEY=VALUE`` sets a value, ``KEY`` copies it from this process.

    Raises:
        ConfigError: a name is invalid or not set here. The message never contains a value.
    """
    variables = {}
    for item in wanted:
        name, given, value = item.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ConfigError(f"--env: {name!r} is not the name of a variable; expected KEY=VALUE or KEY.")
        if not given and name not in os.environ:
            raise ConfigError(f"--env {name}: is not set here; set it, or give its value as {name}=VALUE.")
        variables[name] = value if given else os.environ[name]
    return variables


def job_id(study: StudyConfig, out: str) -> str:
    """Submission id of a study's job. The same study in the same folder has the same id."""
    digest = hashlib.sha256(f"{out}\n{to_yaml(study)}".encode()).hexdigest()
    return f"{study.name}-{digest[:10]}"


def pack(study: StudyConfig, folder: Path, package: Path | None = None) -> None:
    """Write ``study.yaml`` and the sources of this package (or another one) into a job's working folder.

    Raises:
        AsdRayError: the package contains large files.
    """
    package = package or Path(asd_ray.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "*.md", ".*")
    shutil.copytree(package, folder / "asd_ray", ignore=ignored)
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    if sum(sizes.values()) > MAX_BYTES:
        largest = max(sizes, key=lambda path: sizes[path]).relative_to(folder / "asd_ray")
        raise AsdRayError(
            f"{package}: has {sum(sizes.values()) / 2**20:.0f} MiB, more than sources ever have (the largest file is "
            f"{largest}); a job carries the code, so keep data elsewhere."
        )
    (folder / "study.yaml").write_text(to_yaml(study), encoding="utf-8")


def choose(base: str, out: str, jobs: Sequence[JobDetails], again: bool = False) -> tuple[str, JobStatus | None]:
    """Find the study's job: its id and status, or a new id and None.

    A study that runs or waits is never sent twice. A study that failed or was stopped is sent again and resumes from
    its folder. A study that succeeded is sent again only if ``again`` is True.

    Raises:
        AsdRayError: a job of other values (more trials, say) still writes to the same study folder.
    """
    ours = {job.submission_id: job.status for job in jobs if job.type == JobType.SUBMISSION}
    attempts = [base]
    while attempts[-1] in ours:
        attempts.append(f"{base}-{len(attempts) + 1}")
    known = attempts[:-1]
    for job in jobs:
        if (job.metadata or {}).get("out") == out and not job.status.is_terminal() and job.submission_id not in known:
            raise AsdRayError(
                f"{out}: job {job.submission_id} is {job.status.lower()} with another version of this study; wait for "
                f"it, or stop it with `ray job stop {job.submission_id}`."
            )
    if not known:
        return base, None
    status = ours[known[-1]]
    if status.is_terminal() and (again or status != JobStatus.SUCCEEDED):
        return attempts[-1], None
    return known[-1], status


def submit(
    client: JobSubmissionClient,
    study: StudyConfig,
    out: str,
    env: Mapping[str, str],
    again: bool = False,
    driver_cpus: float | None = None,
    pause: Callable[[float], object] = time.sleep,
) -> Submitted:
    """Send a study to a cluster as a Ray Job, unless the cluster has it already (:func:`choose`).

    Args:
        study: with absolute paths.
        out: the study folder, absolute.
        env: environment variables of the job. Ray stores them in the job's description.
        driver_cpus: cores reserved for the study's own process, on any node; None runs it on the head node.

    Raises:
        AsdRayError: see :func:`choose` and :func:`pack`; or the cluster refuses the job.
    """
    base = job_id(study, out)
    job, status = choose(base, out, client.list_jobs(), again)
    if status is not None:
        return Submitted(job, out, False, status)
    revision = git_revision()
    carried = {"RAY_JOB_STOP_WAIT_TIME_S": STOP_SECONDS, **({REVISION_VARIABLE: revision} if revision else {})}
    metadata = {
        "job_name": study.name,
        "study": study.name,
        "out": out,
        "asd_ray": asd_ray.__version__,
        "ray": ray.__version__,
    }
    with tempfile.TemporaryDirectory(prefix="asd_ray-job-") as folder:
        pack(study, Path(folder))
        for left in reversed(range(TRIES)):
            try:
                client.submit_job(
                    entrypoint=f"python -m asd_ray study run study.yaml --out {shlex.quote(out)} --address auto",
                    submission_id=job,
                    metadata={**metadata, **({"git_revision": revision} if revision else {})},
                    runtime_env={"working_dir": folder, "env_vars": {**carried, **env}},
                    entrypoint_num_cpus=driver_cpus,
                )
                break
            except RuntimeError as error:
                if "already exists" in str(error):  # somebody sent the same study at the same moment
                    return Submitted(job, out, False, client.get_job_info(job).status)
                if left and "No available agent" in str(error):  # a head that has just started
                    pause(RETRY_SECONDS)
                    continue
                raise AsdRayError(f"the cluster refused the job: {last_line(str(error))}") from None
    return Submitted(job, out, True, JobStatus.PENDING)
