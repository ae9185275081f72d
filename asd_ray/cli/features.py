"""The commands about features: ``asd-ray features …``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from asd_ray.cli.options import AsJson, Layout, Machines, ProgressBar, parse_overrides
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.files import shown, write_atomically, write_text

if TYPE_CHECKING:
    from asd_ray.config import FeatureConfig, StudyConfig
    from asd_ray.data.clips import Clip
    from asd_ray.explore.captions import Caption
    from asd_ray.explore.views import View

features_app = typer.Typer(help="Compute features and look at them.", no_args_is_help=True)
MOST_CLIPS, MOST_VIEWED = 64, 12  # in one picture

DataLayout = Annotated[Layout | None, typer.Option(help="How its names are read; found out by default.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A feature setting, such as features.n_fft=2048; repeatable."),
]
Study = Annotated[Path | None, typer.Option(metavar="FILE", help="Take the settings of this study file.")]


@features_app.command()
def build(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="The data set's folder.")],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder of the feature store, or a URI (s3://…).")],
    layout: DataLayout = None,
    machines: Machines = None,
    waveform: Annotated[
        bool, typer.Option("--waveform", help="Keep the waveforms, too, also where no method of --study needs them.")
    ] = False,
    overrides: Overrides = None,
    study: Study = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out clips that cannot be read.")] = False,
    address: Annotated[str | None, typer.Option(help="Of the Ray to run on; a local one by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compute Log-Mel features into parquet shards with Ray Data; a second run does only what is missing or changed."""
    import tempfile

    from asd_ray.cluster.session import quiet_terminal, ray_session
    from asd_ray.config import ResourceConfig
    from asd_ray.features.build import build as build_store
    from asd_ray.features.storage import Storage

    config = _settings(study, overrides)
    skip_bad = skip_bad or config.data.skip_bad
    clips, _ = _scan(data, layout, machines or config.data.machines, skip_bad)
    columns = dict.fromkeys((*config.method.columns, *(("log_mel", "waveform") if waveform else ("log_mel",))))
    store = Storage(out)
    with (
        tempfile.TemporaryDirectory(prefix="asd_ray-") as scratch,
        quiet_terminal(Path(store.where if store.local else scratch) / "logs" / "ray.log", stdout=False) as terminal,
        ray_session(address, "features", ResourceConfig()),
        ProgressBar("clips", Console(file=terminal)) as progress,
    ):
        built = build_store(
            clips, data, store, config.features, config.data.channel, skip_bad, progress, tuple(columns), prune=True
        )
    manifest = built.manifest
    if as_json:
        done = {"decoded": built.decoded, "reused": built.reused, "damaged": len(built.damaged)}
        typer.echo(json.dumps({"store": store.where, "hash": manifest.hash, **manifest.counts, **done}))
    else:
        shards = sum(map(len, manifest.shards.values()))
        typer.echo(f"{sum(manifest.counts.values())} clips in {shards} shards in {out}, hash {manifest.hash}")
        typer.echo(f"recordings read: {built.decoded}, features taken from older shards: {built.reused}")
        for name in built.damaged:
            typer.echo(f"was damaged and is made again: {name}")
        for path in manifest.skipped:
            typer.echo(f"left out, cannot be read: {path}")


@features_app.command()
def show(
    out: Annotated[
        Path, typer.Option("--out", metavar="PATH", help="Picture to write (.png, .svg, .pdf); with --data, a folder.")
    ],
    clips: Annotated[list[Path] | None, typer.Argument(metavar="[CLIP]...", help="Recordings to draw.")] = None,
    augment: Annotated[
        bool, typer.Option("--augment", help="Two views of every clip, as pre-training makes them.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Instead of clips: a whole data set, with labelled test clips.")
    ] = None,
    layout: DataLayout = None,
    machines: Machines = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="A feature store: spared computing with --data; mean, deviation and mixing partners with --augment.",
        ),
    ] = None,
    overrides: Overrides = None,
    study: Study = None,
    seed: Annotated[int | None, typer.Option(help="Of --augment; the study's by default.", min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """Pictures of clips, or of a whole data set and where in frequency its anomalies are.

    CLIP ... draws the spectrograms that a method would see (of features.seconds: longer clips are cut, shorter ones
    repeated), with machine, ID, label and fault as far as names and the data set's side files say them. With --augment:
    each clip before and after log-mixup-exp and Random Resize Crop, with the draws of method.pretrain. Clips are
    standardised by, and mixed with, one another, or the training clips of --store.

    --data DIR writes to the folder --out: spectra.png, every machine's mean spectrum, normal against anomalous;
    bands.csv and bands.md, the AUC of eight frequency bands per ID, machine and, where faults.csv tells them, kind of
    fault. Needs no Ray.
    """
    from asd_ray.explore.spectra import require_manifest
    from asd_ray.features.store import require_settings, settings_of

    config = _settings(study, overrides)
    if bool(clips) == (data is not None):
        raise ConfigError("features show: expected either recordings (CLIP ...) or --data DIR.")
    asked = study is not None or any(override.startswith(("features.", "data.channel")) for override in overrides or ())
    if store is not None and asked:
        require_settings(require_manifest(store), settings_of(config.features, config.data.channel), store)
    if data is not None:
        if augment:
            raise ConfigError("--augment: expected recordings (CLIP ...), not --data.")
        result = _show_set(data, out, layout, machines or config.data.machines, store, config)
    elif layout is not None or machines or (store is not None and not augment):
        raise ConfigError("--layout, --machine and --store: they go with --data (--store with --augment, too).")
    else:
        result = _show_clips(clips or [], out, config, augment, store, config.seed if seed is None else seed)
    if as_json:
        typer.echo(json.dumps({key: value for key, value in result.items() if key != "text"}, ensure_ascii=False))
    else:
        typer.echo(result["text"])


def _show_clips(
    paths: Sequence[Path], out: Path, config: StudyConfig, augment: bool, store: str | None, seed: int
) -> dict[str, Any]:
    """Draws clips, or their views, to a file."""
    from asd_ray.explore import pictures
    from asd_ray.explore.captions import caption
    from asd_ray.explore.spectra import log_mel_reader

    if out.suffix.lower() not in pictures.SUFFIXES or out.is_dir():
        raise ConfigError(f"--out {out}: expected the name of a picture, ending in {', '.join(pictures.SUFFIXES)}.")
    most = MOST_VIEWED if augment else MOST_CLIPS
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
    """Two views of every clip, and the settings of their features: the store's, if there is one."""
    import numpy as np

    from asd_ray.explore.spectra import feature_settings, log_mel_reader, require_manifest
    from asd_ray.explore.views import background_from_store, two_views

    pretrain = getattr(config.method, "pretrain", None)
    if pretrain is None:
        raise ConfigError(f"--augment: method {config.method.name} has no pre-training whose views could be drawn.")
    manifest = None if store is None else require_manifest(store)
    features = config.features if manifest is None else feature_settings(manifest)
    log_mel = log_mel_reader(features, config.data.channel if manifest is None else manifest.settings["channel"])
    clips = [(str(who), log_mel(path)) for path, who in zip(paths, captions, strict=True)]
    if store is None or manifest is None:
        values = np.stack([image for _, image in clips]).astype(np.float64)
        return two_views(clips, clips, values.mean(), values.std(), pretrain, features, seed), features
    background = background_from_store(store, manifest)
    return two_views(clips, background, manifest.mean, manifest.std, pretrain, features, seed), features


def _about(caption: Caption) -> dict[str, Any]:
    clip, fault = caption.clip, caption.fault
    known = {} if clip is None else {name: getattr(clip, name) for name in ("machine", "id", "label", "domain")}
    return {"path": str(caption.path), **known, **({"fault": fault.kind} if fault else {})}


def _show_set(
    data: Path, out: Path, layout: Layout | None, machines: Sequence[str] | None, store: str | None, config: StudyConfig
) -> dict[str, Any]:
    """Writes a data set's mean spectra and band analysis to a folder."""
    from asd_ray.data.layouts import SYNTHETIC
    from asd_ray.data.side_files import read_faults
    from asd_ray.explore import bands, pictures, spectra

    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: this is a file; with --data it is a folder that gets several.")
    scanned, kind = _scan(data, layout, machines, config.data.skip_bad)
    clips = spectra.comparable_clips(scanned, data)
    faults = read_faults(data)
    with ProgressBar("clips") as progress:
        if store is not None:
            found = spectra.spectra_from_store(clips, store, progress)
        else:
            found = spectra.spectra_from_recordings(
                clips, data, config.features, config.data.channel, config.data.skip_bad, progress
            )
    table = bands.analyse(found, faults)
    synthetic = kind == "synthetic" or (data / SYNTHETIC).is_file()
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


def _settings(study: Path | None, overrides: Sequence[str] | None) -> StudyConfig:
    from asd_ray.config.study_file import load_study

    return load_study(study or {"name": "settings"}, parse_overrides(overrides))


def _scan(data: Path, layout: Layout | None, machines: Sequence[str] | None, skip_bad: bool) -> tuple[list[Clip], str]:
    """The clips of a data set, and its layout."""
    from asd_ray.data import layouts

    kind = layout.value if layout else layouts.detect(data)
    if kind is None:
        raise AsdRayError(f"{data}: no known layout; choose one with --layout, or see `asd-ray data check`.")
    return layouts.scan(data, kind, machines=machines, skip_bad=skip_bad), kind
