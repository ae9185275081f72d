"""Features of one trial: the study's own, or, where ``features.*`` is searched, a set that the trial makes.

A set is made in the trial's process, by one core: tasks of Ray Data would wait for cores that the trials hold, and the
trials for the tasks. Trials that want the same set make it once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from asd_ray.config import StudyConfig
from asd_ray.data.clips import Clip
from asd_ray.features.build import build
from asd_ray.features.extract import serial
from asd_ray.features.read import Features, Reading, open_features
from asd_ray.features.store import Manifest, hash_of_settings, settings_of

IN_MEMORY = 2 * 2**30  # bytes of a set that a trial keeps in its own memory; a larger one is streamed


@dataclass(frozen=True)
class FeatureSets:
    """The features of a study whose search changes them.

    Attributes:
        folder: of the sets, one for each choice of settings.
        root, clips: the recordings.
        manifest, features: the study's own.
        again: whether a set can be wanted again: all searched keys of ``features`` are integers or choices.
    """

    folder: Path
    root: Path
    clips: tuple[Clip, ...]
    manifest: Manifest
    features: Features
    again: bool

    def take(self, study: StudyConfig, turn: Callable[[Path], None]) -> tuple[Manifest, Features]:
        """The features for a trial's settings, made if nobody has yet.

        Raises:
            AsdRayError: a clip cannot be read, or the disk is full.
        """
        folder = self._folder(study)
        if folder is None:
            return self.manifest, self.features
        turn(folder / "manifest.json")
        columns = study.method.columns
        manifest = build(
            self.clips,
            self.root,
            folder,
            study.features,
            study.data.channel,
            skip_bad=study.data.skip_bad,
            columns=columns,
            tasks=serial,
        ).manifest
        return manifest, open_features(folder, manifest, columns, self._reading(study, manifest, columns))

    def discard(self, study: StudyConfig) -> None:
        """Deletes a trial's set if no other trial can want it."""
        folder = self._folder(study)
        if folder is not None and not self.again:
            shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, study: StudyConfig) -> Path | None:
        settings = settings_of(study.features, study.data.channel)
        return None if settings == self.manifest.settings else self.folder / hash_of_settings(settings)

    def _reading(self, study: StudyConfig, manifest: Manifest, columns: tuple[str, ...]) -> Reading:
        size = sum(manifest.counts.values()) * manifest.bytes_per_clip(columns)
        many = study.resources.workers > 1 or (study.resources.reading == "auto" and size > IN_MEMORY)
        return "streamed" if many or study.resources.reading == "streamed" else "own"
