"""Time-averaged spectra of clips, from recordings or from a feature store.

Legend: N clips, F mel bands, T frames.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asd_ray.config import Channel, FeatureConfig
from asd_ray.data import audio
from asd_ray.data.clips import Clip
from asd_ray.errors import AsdRayError
from asd_ray.explore.mel_axis import Real, first_filters, mel_points
from asd_ray.features.log_mel import LogMel
from asd_ray.features.store import Manifest, Place, read_manifest, read_tables

log = logging.getLogger("asd_ray")


@dataclass(frozen=True)
class Spectra:
    """Time-averaged spectra of clips.

    Attributes:
        clips: N clips.
        power: (N, F) mean over frames of the mel spectrogram before the logarithm, above 0.
        features: settings of their computation.
    """

    clips: list[Clip]
    power: Real
    features: FeatureConfig

    @property
    def decibels(self) -> Real:
        """(N, F) in dB, for any ``features.log``."""
        return decibels(self.power, self.features)

    def band_levels(self) -> Real:
        """(N, 9) energy in the eight bands and in the whole spectrum, in dB up to a constant.

        The unit area of Slaney's filters is undone, so a band's energy is the sum of its power spectrum (of its
        magnitudes with ``features.power: 1``).
        """
        corners = mel_points(self.features)
        width = (corners[2:] - corners[:-2]) / 2 if self.features.norm == "slaney" else np.ones(self.features.n_mels)
        energy = np.add.reduceat(self.power * width, first_filters(self.features), axis=1)
        return decibels(np.column_stack([energy, energy.sum(axis=1)]), self.features)


def decibels(power: Real, features: FeatureConfig) -> Real:
    """Convert sums of magnitudes to the power p (``features.power``) to dB: 20 / p log10."""
    return 20 / features.power * np.log10(power)


def comparable_clips(clips: Sequence[Clip], root: Path) -> list[Clip]:
    """Select training and labelled test clips of machines with both normal and anomalous test clips.

    Raises:
        AsdRayError: no machine has both.
    """
    labels: dict[str, set[str]] = {}
    for clip in clips:
        if clip.split == "test":
            labels.setdefault(clip.machine, set()).add(clip.label)
    able = {machine for machine, found in labels.items() if {"normal", "anomaly"} <= found}
    if not able:
        found = sorted(set().union(*labels.values())) or ["no test clips"]
        raise AsdRayError(
            f"{root}: no machine has both normal and anomalous test clips (their labels: {', '.join(found)}); expected "
            "both, to compare their bands; `asd-ray data download` adds published labels, your own go into clips.csv "
            "(column label)."
        )
    for machine in sorted({clip.machine for clip in clips} - able):
        log.warning("%s: left out, it lacks normal or anomalous test clips", machine)
    return [clip for clip in clips if clip.machine in able and (clip.split == "train" or clip.label != "unknown")]


def spectra_from_recordings(
    clips: Sequence[Clip],
    root: Path,
    features: FeatureConfig,
    channel: Channel = 0,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Spectra:
    """Compute spectra from recordings, read one at a time.

    Args:
        clips: N clips.
        root: the data set's folder.
        skip_bad: leave out unreadable clips, with a warning.
        progress: called with (clips done, all clips).

    Raises:
        AsdRayError: a recording is unreadable (without ``skip_bad``).
    """
    kept: list[Clip] = []
    rows: list[Real] = []
    log_mel = log_mel_reader(features, channel)
    for done, clip in enumerate(clips, 1):
        try:
            rows.append(_time_average(log_mel(root / clip.path)[None], features)[0])
        except AsdRayError as error:
            if not skip_bad:
                raise AsdRayError(f"{error} data.skip_bad=true leaves out unreadable clips.") from None
            log.warning("left out: %s", error)
        else:
            kept.append(clip)
        if progress:
            progress(done, len(clips))
    if not kept:
        raise AsdRayError(
            f"{root}: none of its {len(clips):,} clips could be read; asd-ray data check lists the reasons."
        )
    return Spectra(kept, np.array(rows).reshape(-1, features.n_mels), features)


def log_mel_reader(features: FeatureConfig, channel: Channel = 0) -> Callable[[Path], NDArray[np.float32]]:
    """Make a function from a recording's path to Log-Mel features (F, T); it raises what ``audio.read`` raises."""
    transform = LogMel(features)

    def log_mel(path: Path) -> NDArray[np.float32]:
        waveform = audio.read(path, features.sample_rate, features.seconds, channel)
        with torch.inference_mode():
            return transform(torch.from_numpy(waveform)[None])[0].numpy()

    return log_mel


def spectra_from_store(
    clips: Sequence[Clip], store: Place, progress: Callable[[int, int], None] | None = None
) -> Spectra:
    """Compute spectra from a feature store, one shard in memory at a time.

    Raises:
        AsdRayError: no store is there, or it lacks a clip that it does not list as skipped.
    """
    manifest = require_manifest(store)
    features = feature_settings(manifest)
    wanted = {clip.path for clip in clips}
    found: dict[str, Real] = {}
    for table in chain(read_tables(store, manifest, "train"), read_tables(store, manifest, "test")):
        for clip, power in zip(table.clips, _time_average(table.log_mel, features), strict=True):
            if clip.path in wanted:
                found[clip.path] = power
        if progress:
            progress(len(found), len(wanted))
    if missing := sorted(wanted - found.keys() - set(manifest.skipped)):
        raise AsdRayError(
            f"{store}: {len(missing):,} of {len(wanted):,} clips are not in this store (the first is {missing[0]}); "
            "build the features of this data set, or leave out --store."
        )
    kept = [clip for clip in clips if clip.path in found]
    return Spectra(kept, np.array([found[c.path] for c in kept]).reshape(-1, features.n_mels), features)


def require_manifest(store: Place) -> Manifest:
    """Read a store's manifest.

    Raises:
        AsdRayError: there is none.
    """
    manifest = read_manifest(store)
    if manifest is None:
        raise AsdRayError(
            f"{store}: no feature store is there (no manifest.json); build one with asd-ray features build."
        )
    return manifest


def feature_settings(manifest: Manifest) -> FeatureConfig:
    """Feature settings of a store."""
    known = FeatureConfig.model_fields.keys() & manifest.settings.keys()
    return FeatureConfig(**{key: manifest.settings[key] for key in known})


def _time_average(log_mel: NDArray[np.floating], features: FeatureConfig) -> Real:
    """Convert Log-Mel (N, F, T) to the time average of the mel spectrogram (N, F)."""
    x = log_mel.astype(np.float32)
    linear = np.exp(x if features.log == "natural" else x * np.float32(features.power * np.log(10) / 20))
    return linear.mean(axis=2, dtype=np.float64)
