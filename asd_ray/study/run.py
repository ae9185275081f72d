"""A study from a validated file to its tables: data, features, trials. Run again, it goes on where it stopped."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.trainable import wrap_function

from asd_ray.clips import Clip, class_names, evaluation_splits
from asd_ray.config import StudyConfig
from asd_ray.datasets import layouts, synthetic
from asd_ray.errors import AsdRayError
from asd_ray.features.build import build
from asd_ray.features.read import materialise
from asd_ray.features.store import read_manifest, settings_of
from asd_ray.files import shown
from asd_ray.methods.registry import check
from asd_ray.study import tables
from asd_ray.study.baselines import baseline_results
from asd_ray.study.cluster import concurrency, parallel, quiet_terminal, ray_session
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.live import StudyView
from asd_ray.study.results import StudyOutcome, write_results
from asd_ray.study.search import StudySearch
from asd_ray.study.trial import StudyInputs, run_trial, trial_seed


def run_study(study: StudyConfig, out: Path, address: str | None = None, stdout: bool = True) -> StudyOutcome:
    """Runs a study, or what is left of it, and writes its tables and report.

    Args:
        study: validated.
        out: the study folder.
        address: of the Ray to run on; None starts a local one and shuts it down.
        stdout: show progress on standard output, else on standard error.

    Raises:
        AsdRayError: something that the user can put right; what is finished stays.
    """
    check(study)
    folder = StudyFolder(out)
    resumed = folder.open(study)
    with quiet_terminal(folder.path / "logs" / "ray.log", stdout) as terminal:
        view = StudyView(terminal, study.name, study.search.num_trials)
        with view.open(folder.path / "logs" / "study.log"):
            view.finished = list(folder.finished().values())
            if resumed:
                view.say(
                    f"{len(view.finished)} of {study.search.num_trials} trials ended in earlier runs of this study."
                )
            if len(view.finished) < study.search.num_trials:
                _run_trials(study, folder, address, view)
            view.phase("writing tables and report")
            return write_results(folder, study)


def _run_trials(study: StudyConfig, folder: StudyFolder, address: str | None, view: StudyView) -> None:
    root, made = data_root(study, folder)
    clips = find_clips(study, root, view) if made else []  # what is wrong with the data shows before Ray is started
    view.phase("starting Ray" if address is None else f"connecting to Ray at {address}")
    with ray_session(address, study.name, study.resources) as where:
        view.say(where)
        if not made:
            view.phase("making synthetic recordings")
            there = synthetic.described(root) if study.data.root else None  # a set from `data synth` is taken as it is
            config, layout = there or (study.data.synthetic, "dcase2020")
            synthetic.synthesise(root, config, layout, progress=view.progress, run=parallel)
            clips = find_clips(study, root, view)
        inputs = prepare(study, folder, clips, root, view)
        view.concurrency = concurrency(study.resources)
        view.phase("trials")
        search = StudySearch(study, folder)
        tuner = tune.Tuner(
            tune.with_resources(_trainable(study, inputs), _resources(study)),
            tune_config=tune.TuneConfig(
                search_alg=search,
                num_samples=study.search.num_trials - len(view.finished),
                max_concurrent_trials=view.concurrency,
                trial_name_creator=lambda trial: f"{study.name}-trial-{trial.config['trial']:05d}",
                trial_dirname_creator=lambda trial: f"trial-{trial.config['trial']:05d}",
            ),
            run_config=tune.RunConfig(
                name=f"session-{_sessions(folder):03d}",
                storage_path=str(folder.path / "tune"),
                failure_config=tune.FailureConfig(max_failures=study.resources.max_failures),
                callbacks=[StudyCallback(folder, view, trial_seed(study))],
                verbose=0,
            ),
        )
        tuner.fit()


def data_root(study: StudyConfig, folder: StudyFolder) -> tuple[Path, bool]:
    """Where the study's recordings are, and whether they are there; synthetic ones may still have to be made, or some
    of them after an interruption."""
    data = study.data
    root = Path(data.root).expanduser() if data.root else folder.path / "data"
    foreign = root.is_dir() and any(root.iterdir()) and not (root / "synthetic.json").exists()
    return root, data.layout != "synthetic" or foreign


def find_clips(study: StudyConfig, root: Path, view: StudyView) -> list[Clip]:
    """The study's clips.

    Raises:
        AsdRayError: there are none, or none that a study could be evaluated on.
    """
    data = study.data
    view.phase("reading the data set")
    clips = layouts.scan(root, data.layout, machines=data.machines, skip_bad=data.skip_bad)
    if not any(clip.split == "test" and clip.label != "unknown" for clip in clips):
        raise AsdRayError(f"{root}: has no test clips with a known label, so nothing can be evaluated.")
    if not any(clip.split == "train" for clip in clips):
        raise AsdRayError(f"{root}: has no training clips; a study needs recordings of normal operation to train on.")
    view.say(f"{len(clips)} clips of {len({clip.machine for clip in clips})} machines in {shown(root)}")
    return clips


def prepare(study: StudyConfig, folder: StudyFolder, clips: list[Clip], root: Path, view: StudyView) -> StudyInputs:
    """Features, baselines, and the clips in Ray's object store: what all trials share."""
    store = folder.path / "features"
    if study.features.store:
        store = Path(study.features.store).expanduser()
    elif not folder.started():
        discard_other(store, study)
    view.phase("computing Log-Mel features", len(clips))
    manifest = build(
        clips, root, store, study.features, study.data.channel, skip_bad=study.data.skip_bad, progress=view.progress
    )
    folder.write_environment(manifest.hash, ray.cluster_resources(), (root / "synthetic.json").exists())
    skipped = set(manifest.skipped)
    clips = [clip for clip in clips if clip.path not in skipped]
    splits = evaluation_splits(clips)
    labelled = tuple(clip for clip in clips if clip.path in splits)
    workers = study.resources.workers
    inputs = StudyInputs(
        study=study,
        folder=folder,
        manifest=manifest,
        classes=tuple(class_names(clips)),
        clips=labelled,
        splits=splits,
        train=tuple(materialise(store, manifest, "train", workers)),
        test=tuple(materialise(store, manifest, "test", workers)),
    )
    view.phase("computing baselines")
    baselines = baseline_results(store, manifest, inputs.identity(), inputs.ids(), study.evaluation.max_fpr)
    tables.write_table(folder.path / "baselines.parquet", baselines)
    return inputs


def discard_other(store: Path, study: StudyConfig) -> None:
    """Deletes the study's own features if its file was changed since they were built."""
    manifest = read_manifest(store)
    if manifest is not None and manifest.settings != settings_of(study.features, study.data.channel):
        shutil.rmtree(store)


def _trainable(study: StudyConfig, inputs: StudyInputs) -> Any:
    """The Tune trainable, whose actors carry the study's and the trial's name in the Ray dashboard."""
    reference = ray.put(inputs)

    def trial(config: dict[str, Any]) -> None:
        run_trial(config, ray.get(reference))

    base = wrap_function(trial)

    class StudyTrial(base):  # type: ignore[misc, valid-type]
        def __repr__(self) -> str:
            return str(self.trial_name)

    StudyTrial.__name__ = StudyTrial.__qualname__ = f"{study.name}"
    return StudyTrial


def _resources(study: StudyConfig) -> dict[str, float]:
    """What the Tune actor of a trial reserves. With several workers it only waits for them, which takes no core: it
    asks for a little memory, because Tune refuses an empty request."""
    resources = study.resources
    if resources.workers > 1:
        return {"memory": 100 * 2**20}
    return {
        "CPU": resources.cpus_per_worker,
        **({"GPU": resources.gpus_per_worker} if resources.gpus_per_worker else {}),
    }


def _sessions(folder: StudyFolder) -> int:
    return len(list((folder.path / "tune").glob("session-*")))


class StudyCallback(tune.Callback):
    """Tells the view what trials do, and writes the record of a trial that could not write its own."""

    def __init__(self, folder: StudyFolder, view: StudyView, seed: int) -> None:
        self.folder, self.view, self.seed = folder, view, seed
        self.started: dict[int, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune stores its callbacks for a restore that we never do; a terminal cannot be stored.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.started.setdefault(trial.config["trial"], time.time())
        self.view.trial_started(trial.config["trial"], trial.config["values"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.view.trial_progress(trial.config["trial"], result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self.folder.record(trial.config["trial"])
        if record is None:
            record = self._lost(trial, "the trial ended without a record; see its log")
        self.view.trial_finished(record)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.view.trial_finished(self._lost(trial, _last_line(trial.get_error())))

    def _lost(self, trial: Any, reason: str) -> TrialRecord:
        number = trial.config["trial"]
        record = TrialRecord(number, trial.config["values"], self.seed, "failed", reason=reason)
        record.duration_s = time.time() - self.started.get(number, time.time())
        self.folder.finish_trial(record)
        return record


def _last_line(error: Exception | None) -> str:
    lines = [line.strip() for line in str(error or "unknown error").splitlines() if line.strip()]
    return lines[-1][:500] if lines else "unknown error"
