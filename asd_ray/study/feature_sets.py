"""Features of one trial: the study's own or, if ``features.*`` is searched, a set that the trial builds.

The trial's own process builds the set on one core. Tasks of Ray Data would wait for cores that the trials hold, while
the trials wait for the tasks. Trials with equal settings share one set.
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

IN_MEMORY = 2 * 2**30  # bytes; a trial streams a larger set instead of keeping it in memory


@dataclass(frozen=True)
class FeatureSets:
    """Features of a study whose search changes their settings.

    Attributes:
        folder: of all sets; each choice of settings has a folder in it.
        root, clips: the recordings.
        manifest, features: of the study's own settings.
        again: a second trial can have the same settings: all searched keys of ``features`` are integers or choices.
    """

    folder: Path
    root: Path
    clips: tuple[Clip, ...]
    manifest: Manifest
    features: Features
    again: bool

    def take(self, study: StudyConfig, claim: Callable[[Path], None]) -> tuple[Manifest, Features]:
        """Open the features for a trial's settings; build them if no trial has built them.

        Args:
            study: with the trial's values.
            claim: called with a path; returns when it exists or when this trial may build it.

        Raises:
            AsdRayError: a clip cannot be read, or the disk is full.
        """
        folder = self._folder(study)
        if folder is None:
            return self.manifest, self.features
        claim(folder / "manifest.json")
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
        """Delete a trial's set if no other trial can use it."""
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
