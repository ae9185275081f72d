"""Draw clips and their augmented views; write the mean spectra and the band analysis of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asd_ray.config import FeatureConfig, StudyConfig
from asd_ray.data.layouts import SYNTHETIC
from asd_ray.data.side_files import read_faults
from asd_ray.datasets import scan
from asd_ray.errors import ConfigError
from asd_ray.explore import bands, pictures, spectra
from asd_ray.explore.captions import Caption, caption
from asd_ray.explore.spectra import feature_settings, log_mel_reader, require_manifest
from asd_ray.explore.views import View, background_from_store, two_views
from asd_ray.files import shown, write_atomically, write_text

MOST_CLIPS, MOST_AUGMENTED = 64, 12  # clips in one picture


def draw_clips(
    paths: Sequence[Path], out: Path, config: StudyConfig, augment: bool, store: str | None, seed: int
) -> dict[str, Any]:
    """Draw clips, or two augmented views of each, to one picture.

    Args:
        paths: recordings.
        out: the picture.
        config: settings of features, channel and augmentation.
        augment: draw views.
        store: feature store that gives the views their mean, deviation and mixing partners.
        seed: of the views.

    Returns:
        ``picture``, ``clips`` (what is known of each, and the draws of its views), ``text`` for a person.

    Raises:
        ConfigError: the picture has no known suffix, there are too many clips, or the method has no augmentation.
    """
    if out.suffix.lower() not in pictures.SUFFIXES or out.is_dir():
        raise ConfigError(f"--out {out}: expected the name of a picture, ending in {', '.join(pictures.SUFFIXES)}.")
    most = MOST_AUGMENTED if augment else MOST_CLIPS
    if len(paths) > most:
        raise ConfigError(f"features show: found {len(paths)} clips; at most {most} make a picture that can be read.")
    for path in paths:
        if path.is_dir():
            raise ConfigError(f"{path}: this is a folder; expected recordings, or a whole data set with --data.")
    features, text = config.features, f"{len(paths)} clip{'s' if len(paths) > 1 else ''}"
    captions = [caption(path) for path in paths]
    about: list[dict[str, Any]] = [_about(caption) for caption in captions]
    if augment:
        views, features = _views(paths, captions, config, store, seed)
        figure = pictures.augmentations(views, features)
        text = f"two views of {text}"
        for number, view in enumerate(views):
            draws = {"mixed_with": view.other_title.splitlines()[-1], "lambda": view.ratio, "crop": view.crop}
            about[number // 2].setdefault("views", []).append(draws)
    else:
        log_mel = log_mel_reader(features, config.data.channel)
        panels = [pictures.Panel(str(who), log_mel(path)) for path, who in zip(paths, captions, strict=True)]
        figure = pictures.spectrograms(panels, features)
    pictures.save(figure, out)
    return {"picture": str(out), "clips": about, "text": f"{text} in {shown(out)}"}


def _views(
    paths: Sequence[Path], captions: Sequence[Caption], config: StudyConfig, store: str | None, seed: int
) -> tuple[list[View], FeatureConfig]:
    """Make two views of every clip. Returns them and the settings of their features: the store's, if there is one."""
    augmentation = config.method.augmentation
    if augmentation is None:
        raise ConfigError(f"--augment: method {config.method.name} has no augmented views to draw.")
    manifest = None if store is None else require_manifest(store)
    features = config.features if manifest is None else feature_settings(manifest)
    log_mel = log_mel_reader(features, config.data.channel if manifest is None else manifest.settings["channel"])
    clips = [(str(who), log_mel(path)) for path, who in zip(paths, captions, strict=True)]
    if store is None or manifest is None:
        values = np.stack([image for _, image in clips]).astype(np.float64)
        return two_views(clips, clips, values.mean(), values.std(), augmentation, features, seed), features
    background = background_from_store(store, manifest)
    return two_views(clips, background, manifest.mean, manifest.std, augmentation, features, seed), features


def _about(caption: Caption) -> dict[str, Any]:
    clip, fault = caption.clip, caption.fault
    known = {} if clip is None else {name: getattr(clip, name) for name in ("machine", "id", "label", "domain")}
    return {"path": str(caption.path), **known, **({"fault": fault.kind} if fault else {})}


def analyse_set(
    data: Path,
    out: Path,
    config: StudyConfig,
    layout: str,
    machines: Sequence[str] | None,
    store: str | None,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write the mean spectra and the band analysis of a data set to a folder.

    Returns:
        ``files``, ``bands`` (mean AUC per machine and band), ``verdict``, ``synthetic``, ``text`` for a person.

    Raises:
        ConfigError: ``out`` is a file.
        AsdRayError: a clip cannot be read, or no test clip has a label.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: this is a file; with --data it is a folder that gets several.")
    clips = spectra.comparable_clips(scan(data, layout, machines, config.data.skip_bad), data)
    faults = read_faults(data)
    if store is not None:
        found = spectra.spectra_from_store(clips, store, progress)
    else:
        found = spectra.spectra_from_recordings(
            clips, data, config.features, config.data.channel, config.data.skip_bad, progress
        )
    table = bands.analyse(found, faults)
    synthetic = layout == "synthetic" or (data / SYNTHETIC).is_file()
    text = bands.report(table, shown(data), synthetic)
    files = {name: out / name for name in ("bands.csv", "bands.md", "spectra.png")}
    write_atomically(files["bands.csv"], lambda beside: table.to_csv(beside, index=False))
    write_text(files["bands.md"], text)
    pictures.save(pictures.mean_spectra(found, table, synthetic), files["spectra.png"])
    means = table[table["id"] == "mean"].drop(columns=["id", "domain"]).astype(object)
    return {
        "files": {name: str(path) for name, path in files.items()},
        "bands": means.where(means.notna(), None).to_dict("records"),
        "verdict": bands.verdict(table),
        "synthetic": synthetic,
        "text": f"{text}\n{', '.join(shown(path) for path in files.values())}",
    }
