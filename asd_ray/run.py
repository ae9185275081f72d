"""Run a study: data, features, trials, report. Run again, it goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import ray

from asd_ray.cluster.session import concurrency, keep_signal_handlers, ray_session
from asd_ray.cluster.watch import watched
from asd_ray.config import StudyConfig
from asd_ray.files import alone, shown
from asd_ray.methods import registry
from asd_ray.registry import Plugins
from asd_ray.report.write import write_results
from asd_ray.study.folder import StudyFolder
from asd_ray.study.inputs import data_root, find_clips, is_synthesised, prepare, synthesise
from asd_ray.study.outcome import StudyOutcome
from asd_ray.study.progress import StudyEvent, StudyProgress
from asd_ray.study.search import StudySearch
from asd_ray.study.trials import missing_repeats, run_repeats, run_trials

OTHER_SECONDS = 90.0
"""Longest wait for another run of the study to end: a driver whose Ray has died needs a minute to notice."""


def run_study(
    study: StudyConfig,
    out: str | Path,
    address: str | None = None,
    progress: Callable[[StudyEvent], object] | None = None,
    *,
    show_ray_output: bool = False,
) -> StudyOutcome:
    """Run a study, or what is left of it, and write its tables and report.

    Nothing is written to standard output or error, except that Ray's C++ core may write a line of its own when it meets
    an error. This process's signal handlers stay its own. What happens is told to ``progress`` and written to
    ``logs/study.log`` in the study folder.

    Args:
        study: from :func:`asd_ray.load_study`.
        out: the study folder. One that holds the same study is resumed.
        address: of a running Ray, ``HOST:PORT`` or ``auto``; by default a local Ray is started, and ended again.
        progress: called with a :class:`~asd_ray.study.progress.StudyEvent` for every piece of news, one call at a
            time but from several threads; ``print`` will do.
        show_ray_output: let Ray and its workers print to standard output and error.

    Returns:
        The finished study, as :func:`asd_ray.read_study` gives it.

    Raises:
        ConfigError: the study asks for something that is not there, or ``out`` holds something else.
        AsdRayError: something that the user can put right went wrong; what is finished stays.

    Example:
        >>> study = load_study("studies/quickstart.yaml", {"search.num_trials": 2})
        >>> outcome = run_study(study, "runs/first", progress=print)
        >>> outcome.best["objective"]
    """
    folder = open_folder(study, out)
    told = StudyProgress(progress, study.search.num_trials)
    other = f"{shown(folder.path)}: another run of this study is under way"
    with (
        keep_signal_handlers(),
        told.open(folder.path / "logs" / "study.log"),
        alone(folder.path / "logs" / ".lock", other, OTHER_SECONDS, told.say),
        ExitStack() as session,
    ):
        _tell_earlier_runs(study, folder, told)
        if len(told.finished) < study.search.num_trials or missing_repeats(study, folder):
            _run_missing(study, folder, address, told, session, show_ray_output)
        else:
            StudySearch(study, folder)  # a kill after the last trial's end has left Optuna's storage behind
        told.phase("writing tables and report")
        session.close()  # in this thread: Ray ends a process that frees one of its objects while it shuts down
        write_results(folder, study)
        return StudyOutcome(folder.path)


def open_folder(study: StudyConfig, out: str | Path) -> StudyFolder:
    """Check that a study can run here, and make ``out`` its folder.

    Raises:
        ConfigError: an encoder or a file is missing; the folder holds another study, or other files.
    """
    registry.check(study)
    folder = StudyFolder(Path(out))
    folder.open(study)
    return folder


def _tell_earlier_runs(study: StudyConfig, folder: StudyFolder, told: StudyProgress) -> None:
    told.resume(folder.finished().values())
    started = folder.started()
    if started:
        told.say(f"{len(told.finished)} of {study.search.num_trials} trials ended in earlier runs of this study.")
    for number in sorted(started.keys() - {record.trial for record in told.finished}):
        told.say(f"trial {number} was under way when an earlier run was cut off; it goes on.")


def _run_missing(
    study: StudyConfig,
    folder: StudyFolder,
    address: str | None,
    told: StudyProgress,
    session: ExitStack,
    show_ray_output: bool,
) -> None:
    """Run the trials that are missing. Ray lasts as long as ``session``."""
    root = data_root(study, folder)
    synthetic = is_synthesised(study, root)
    clips = [] if synthetic else find_clips(study, root, told)  # what is wrong with the data shows before Ray starts

    told.phase("starting Ray" if address is None else f"connecting to Ray at {address}")
    where = session.enter_context(ray_session(address, study.name, study.resources, show_ray_output))
    session.enter_context(watched(ray.get_runtime_context().gcs_address, told.say))
    told.say(where)
    told.concurrency = concurrency(study.resources, growing=address is not None)

    if synthetic:
        synthesise(study, root, told)
        clips = find_clips(study, root, told)
    for module in Plugins().modules:
        ray.cloudpickle.register_pickle_by_value(module)
    inputs = prepare(study, folder, clips, root, told)

    told.phase("trials")
    run_trials(study, folder, inputs, told)
    told.phase("repeats with other seeds")
    run_repeats(study, folder, inputs, told)
