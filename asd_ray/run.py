"""A study from a validated file to its tables: data, features, trials. Run again, it goes on where it stopped."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from asd_ray.cluster.session import concurrency, parallel, quiet_terminal, ray_session
from asd_ray.cluster.watch import watched
from asd_ray.config import StudyConfig
from asd_ray.config.study_file import with_values
from asd_ray.data import extra, layouts
from asd_ray.data.clips import Clip, class_names, evaluation_splits
from asd_ray.data.synthetic.recordings import read_description, synthesise
from asd_ray.errors import AsdRayError
from asd_ray.features.build import FEW, build
from asd_ray.features.read import open_features
from asd_ray.features.storage import Storage
from asd_ray.features.store import read_manifest, settings_of
from asd_ray.files import alone, shown
from asd_ray.methods import registry
from asd_ray.metrics.selection import Evaluation
from asd_ray.report import tables
from asd_ray.report.write import StudyOutcome, write_results
from asd_ray.study.baselines import baseline_results, baseline_scores
from asd_ray.study.claims import start_turns
from asd_ray.study.feature_sets import FeatureSets
from asd_ray.study.folder import StudyFolder
from asd_ray.study.progress import StudyView
from asd_ray.study.search import StudySearch
from asd_ray.study.trial import StudyInputs
from asd_ray.study.trials import missing_repeats, run_repeats, run_trials
from asd_ray.training.stage_cache import StageCache

OTHER_SECONDS = 90.0
"""To wait for another run of the study: a driver whose Ray has died needs a minute to notice."""


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
    registry.check(study)
    folder = StudyFolder(out)
    resumed = folder.open(study)
    with quiet_terminal(folder.path / "logs" / "ray.log", stdout) as terminal:
        view = StudyView(terminal, study.name, study.search.num_trials)
        other = f"{shown(folder.path)}: another run of this study is under way"
        with (
            view.open(folder.path / "logs" / "study.log"),
            alone(folder.path / "logs" / ".lock", other, OTHER_SECONDS, view.say),
            ExitStack() as session,
        ):
            view.finished = list(folder.finished().values())
            if resumed:
                view.say(
                    f"{len(view.finished)} of {study.search.num_trials} trials ended in earlier runs of this study."
                )
                for number in sorted(folder.started().keys() - {record.trial for record in view.finished}):
                    view.say(f"trial {number} was under way when an earlier run was cut off; it goes on.")
            if len(view.finished) < study.search.num_trials or missing_repeats(study, folder):
                _run_all(study, folder, address, view, session)
            elif resumed:
                StudySearch(study, folder)  # a kill after the last trial's end has left Optuna's storage behind
            view.phase("writing tables and report")
            with ThreadPoolExecutor(1) as meanwhile:
                ended = meanwhile.submit(session.close)  # Ray takes a second to end
                outcome = write_results(folder, study)
                ended.result()
            return outcome


def _run_all(study: StudyConfig, folder: StudyFolder, address: str | None, view: StudyView, session: ExitStack) -> None:
    """Runs what is missing. The Ray that it starts, or connects to, lasts as long as ``session``."""
    root, made = data_root(study, folder)
    clips = find_clips(study, root, view) if made else []  # what is wrong with the data shows before Ray is started
    view.phase("starting Ray" if address is None else f"connecting to Ray at {address}")
    where = session.enter_context(ray_session(address, study.name, study.resources))
    session.enter_context(watched(ray.get_runtime_context().gcs_address, view.say))
    view.say(where)
    view.concurrency = concurrency(study.resources, growing=address is not None)
    if not made:
        view.phase("making synthetic recordings")
        there = read_description(root) if study.data.root else None  # a set from `data synth` is taken as it is
        config, layout = there or (study.data.synthetic, "dcase2020")
        synthesise(root, config, layout, progress=view.progress, parallel_map=parallel)
        clips = find_clips(study, root, view)
    inputs = prepare(study, folder, clips, root, view)
    view.phase("trials")
    run_trials(study, folder, inputs, view)
    view.phase("repeats with other seeds")
    run_repeats(study, folder, inputs, view)


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
    labels = [clip.label for clip in clips if clip.split == "test"]
    if all(label == "unknown" for label in labels):
        raise AsdRayError(
            f"{root}: read as data.layout {data.layout}, none of its {len(labels):,} test clips has a known label; a "
            "study needs normal and anomalous ones; choose the layout that tells them, or add such clips."
        )
    if not any(clip.split == "train" for clip in clips):
        raise AsdRayError(f"{root}: has no training clips; a study needs recordings of normal operation to train on.")
    classes = class_names(clips, data.classes, data.min_class_clips)
    machines = len({clip.machine for clip in clips})
    view.say(f"{len(clips)} clips of {machines} machines in {shown(root)}, {len(classes)} classes to learn")
    if data.extra_pretraining:
        others = extra.scan(data.extra_pretraining, skip_bad=data.skip_bad)
        view.say(f"{len(others)} clips of other sounds for pre-training")
        clips += others
    return clips


def prepare(study: StudyConfig, folder: StudyFolder, clips: list[Clip], root: Path, view: StudyView) -> StudyInputs:
    """Features, baselines, and the clips in Ray's object store: what all trials share."""
    study = _with_whole_path(study)
    own = folder.path / "features"
    if not study.features.store and not folder.started():
        discard_other(own, study)
    store = Storage(study.features.store or own)
    columns = registry.columns(study.method)
    view.phase("computing Log-Mel features", len(clips))
    manifest = build(
        clips,
        root,
        store,
        study.features,
        study.data.channel,
        skip_bad=study.data.skip_bad,
        progress=view.progress,
        columns=columns,
        prune=not study.features.store,
        few=FEW,
    ).manifest
    folder.write_environment(manifest.hash, ray.cluster_resources(), (root / "synthetic.json").exists())
    skipped = set(manifest.skipped)
    clips = [clip for clip in clips if clip.path not in skipped]
    splits = evaluation_splits(clips)
    inputs = StudyInputs(
        study=study,
        folder=folder,
        manifest=manifest,
        classes=tuple(class_names(clips, study.data.classes, study.data.min_class_clips)),
        evaluation=Evaluation(tuple(clip for clip in clips if clip.path in splits), splits),
        features=open_features(store, manifest, columns, study.resources.reading),
    )
    inputs = replace(inputs, **_shared(study, inputs, root, clips))
    view.phase("computing baselines")
    scores = baseline_scores(store, manifest, inputs.evaluation.identity())
    tables.write_table(folder.path / "baseline_scores.parquet", scores)
    results = baseline_results(scores, inputs.evaluation.ids(), study.evaluation.max_fpr)
    tables.write_table(folder.path / "baselines.parquet", results)
    return inputs


def _shared(study: StudyConfig, inputs: StudyInputs, root: Path, clips: list[Clip]) -> dict[str, Any]:
    """What trials make and share: trained stages, and features where these are searched."""
    folder, space = inputs.folder.path, study.search.space
    again = {key: distribution.can_repeat() for key, distribution in space.items()}
    cache = study.resources.stage_cache
    shared: dict[str, Any] = {
        "stages": StageCache(
            Path(cache).expanduser().resolve() if cache else folder / "stages", again, always=cache is not None
        ),
        "turns": start_turns(),
    }
    features = [key for key in space if key.startswith("features.")]
    if features:
        shared["sets"] = FeatureSets(
            folder / "feature_sets",
            root.resolve(),
            tuple(clips),
            inputs.manifest,
            inputs.features,
            all(again[key] for key in features),
        )
    return shared


def discard_other(store: Path, study: StudyConfig) -> None:
    """Deletes the study's own features if its file was changed since they were built."""
    manifest = read_manifest(store)
    if manifest is not None and manifest.settings != settings_of(study.features, study.data.channel):
        shutil.rmtree(store)


def _with_whole_path(study: StudyConfig) -> StudyConfig:
    """The study with a path that its workers, who run in other folders, find, too."""
    encoder = getattr(getattr(study.method, "pretrain", None), "init_from", None)
    if encoder is None:
        return study
    return with_values(study, {"method.pretrain.init_from": str(Path(encoder).expanduser().resolve())})
