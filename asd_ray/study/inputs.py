"""What all trials of a study share: clips, features, baselines, and stages that were trained before."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from asd_ray.cluster.session import parallel
from asd_ray.config import StudyConfig
from asd_ray.config.study_file import get_key, with_values
from asd_ray.data import layouts
from asd_ray.data.clips import Clip, class_names, evaluation_splits
from asd_ray.data.layouts.folder import find_extra
from asd_ray.data.synthetic import recordings as synthetic
from asd_ray.errors import AsdRayError
from asd_ray.features.build import FEW, build
from asd_ray.features.read import open_features
from asd_ray.features.storage import Storage
from asd_ray.features.store import Manifest, read_manifest, settings_of
from asd_ray.files import shown
from asd_ray.metrics.selection import Evaluation
from asd_ray.parquet import write_table
from asd_ray.study.baselines import baseline_results, baseline_scores
from asd_ray.study.claims import start_claims
from asd_ray.study.feature_sets import FeatureSets
from asd_ray.study.folder import StudyFolder
from asd_ray.study.progress import StudyProgress
from asd_ray.study.trial import StudyInputs
from asd_ray.training.stage_cache import StageCache


def data_root(study: StudyConfig, folder: StudyFolder) -> Path:
    """Folder of the study's recordings. Synthetic ones are in the study folder unless ``data.root`` is set."""
    return Path(study.data.root).expanduser() if study.data.root else folder.path / "data"


def is_synthesised(study: StudyConfig, root: Path) -> bool:
    """Whether the study makes its recordings itself, or completes what it made before an interruption."""
    foreign = root.is_dir() and any(root.iterdir()) and not (root / "synthetic.json").exists()
    return study.data.layout == "synthetic" and not foreign


def synthesise(study: StudyConfig, root: Path, progress: StudyProgress) -> None:
    """Make the study's synthetic recordings with Ray. A set from ``data synth`` keeps its own settings."""
    progress.phase("making synthetic recordings")
    described = synthetic.read_description(root) if study.data.root else None
    config, layout = described or (study.data.synthetic, "dcase2020")
    synthetic.synthesise(root, config, layout, progress=progress.progress, parallel_map=parallel)


def find_clips(study: StudyConfig, root: Path, progress: StudyProgress) -> list[Clip]:
    """Find the study's clips, those for pre-training alone included.

    Raises:
        AsdRayError: there are no clips, or none that a study can train on or be evaluated on.
    """
    data = study.data
    progress.phase("reading the data set")
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
    progress.say(f"{len(clips)} clips of {machines} machines in {shown(root)}, {len(classes)} classes to learn")
    if data.extra_pretraining:
        others = find_extra(data.extra_pretraining, skip_bad=data.skip_bad)
        progress.say(f"{len(others)} clips of other sounds for pre-training")
        clips += others
    return clips


def prepare(
    study: StudyConfig, folder: StudyFolder, clips: list[Clip], root: Path, progress: StudyProgress
) -> StudyInputs:
    """Build the features, put them into Ray's object store, and compute the baselines."""
    study = _with_whole_paths(study)
    store = _store(study, folder)
    columns = study.method.columns
    manifest = _build(study, clips, root, store, progress)
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
    progress.phase("computing baselines")
    scores = baseline_scores(store, manifest, inputs.evaluation.identity())
    write_table(folder.path / "baseline_scores.parquet", scores)
    results = baseline_results(scores, inputs.evaluation.ids(), study.evaluation.max_fpr)
    write_table(folder.path / "baselines.parquet", results)
    return inputs


def _store(study: StudyConfig, folder: StudyFolder) -> Storage:
    """The feature store: the one that the study names, or its own. Features of other settings are deleted before the
    first trial, because the study file was changed since they were built."""
    own = folder.path / "features"
    if not study.features.store and not folder.started():
        manifest = read_manifest(own)
        if manifest is not None and manifest.settings != settings_of(study.features, study.data.channel):
            shutil.rmtree(own)
    return Storage(study.features.store or own)


def _build(study: StudyConfig, clips: list[Clip], root: Path, store: Storage, progress: StudyProgress) -> Manifest:
    progress.phase("computing Log-Mel features", len(clips))
    return build(
        clips,
        root,
        store,
        study.features,
        study.data.channel,
        skip_bad=study.data.skip_bad,
        progress=progress.progress,
        columns=study.method.columns,
        prune=not study.features.store,
        few=FEW,
    ).manifest


def _shared(study: StudyConfig, inputs: StudyInputs, root: Path, clips: list[Clip]) -> dict[str, Any]:
    """What trials make and share: trained stages, and features where the search changes their settings."""
    folder, space = inputs.folder.path, study.search.space
    again = {key: distribution.can_repeat() for key, distribution in space.items()}
    cache = study.resources.stage_cache
    stages = Path(cache).expanduser().resolve() if cache else folder / "stages"
    shared: dict[str, Any] = {
        "stages": StageCache(stages, again, always=cache is not None),
        "claims": start_claims(),
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


def _with_whole_paths(study: StudyConfig) -> StudyConfig:
    """The study with absolute paths in its method's settings: workers run in other folders."""
    paths = {key: get_key(study, key) for key in (f"method.{path}" for path in study.method.paths)}
    return with_values(study, {key: str(Path(path).expanduser().resolve()) for key, path in paths.items() if path})
