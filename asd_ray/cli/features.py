"""Commands that compute and draw features: ``asd-ray features …``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asd_ray.cli.options import Address, AsJson, Layout, Machines, parse_overrides
from asd_ray.cli.terminal import ProgressBar, quiet_terminal
from asd_ray.errors import ConfigError

if TYPE_CHECKING:
    from asd_ray.config import StudyConfig

features_app = typer.Typer(help="Compute features and look at them.", no_args_is_help=True)
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key, such as features.n_fft=2048; repeatable."),
]
Study = Annotated[Path | None, typer.Option(metavar="FILE", help="Take the settings of this study file.")]


@features_app.command()
def build(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="The data set's folder.")],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder of the feature store, or a URI (s3://…).")],
    layout: Layout = None,
    machines: Machines = None,
    waveform: Annotated[
        bool, typer.Option("--waveform", help="Keep the waveforms, even if the method of --study does not need them.")
    ] = False,
    overrides: Overrides = None,
    study: Study = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out clips that cannot be read.")] = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Compute Log-Mel features with Ray Data.

    They are written as parquet shards. A second run computes only what is missing or changed.
    """
    import tempfile

    from asd_ray.datasets import build_features, find_layout
    from asd_ray.features.storage import Storage

    config = _settings(study, overrides)
    layout = layout or find_layout(data)
    store = Storage(out)
    with (
        tempfile.TemporaryDirectory(prefix="asd_ray-") as scratch,
        quiet_terminal(Path(store.where if store.local else scratch) / "logs" / "ray.log", stdout=False) as terminal,
        ProgressBar("clips", terminal) as progress,
    ):
        built = build_features(
            data, out, config, layout, machines, waveform, skip_bad, address, progress, show_ray_output=True
        )
    manifest = built.manifest
    if as_json:
        done = {"decoded": built.decoded, "reused": built.reused, "damaged": len(built.damaged)}
        typer.echo(json.dumps({"store": store.where, "hash": manifest.hash, **manifest.counts, **done}))
    else:
        shards = sum(map(len, manifest.shards.values()))
        typer.echo(f"{sum(manifest.counts.values())} clips in {shards} shards in {out}, hash {manifest.hash}")
        typer.echo(f"recordings read: {built.decoded}, features reused from older shards: {built.reused}")
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
    augment: Annotated[bool, typer.Option("--augment", help="Draw two augmented views of every clip.")] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Analyse this data set instead; its test clips must have labels.")
    ] = None,
    layout: Layout = None,
    machines: Machines = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Feature store. With --data, its features are used; with --augment, its mean, deviation and clips.",
        ),
    ] = None,
    overrides: Overrides = None,
    study: Study = None,
    seed: Annotated[int | None, typer.Option(help="Seed of --augment; the study's by default.", min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """Draw clips, or analyse the bands of a data set.

    CLIP ... draws spectrograms as a method sees them: longer clips are cut to features.seconds, shorter ones are
    repeated. Titles have machine, ID, label and fault, as far as file names and side files give them. --augment draws
    each clip before and after log-mixup-exp and Random Resize Crop, with the settings of method.pretrain. Clips are
    standardised by one another and mixed with one another, or with the training clips of --store.

    --data DIR writes to the folder --out: spectra.png has the mean spectrum of every machine, normal and anomalous;
    bands.csv and bands.md have the AUC of eight frequency bands, per ID, per machine and, if there is a faults.csv, per
    kind of fault. Needs no Ray.
    """
    from asd_ray.datasets import find_layout
    from asd_ray.explore.show import analyse_set, draw_clips
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
        layout = layout or find_layout(data)
        with ProgressBar("clips") as progress:
            result = analyse_set(data, out, config, layout, machines or config.data.machines, store, progress)
    elif layout is not None or machines or (store is not None and not augment):
        raise ConfigError("--layout, --machine and --store: they go with --data (--store with --augment, too).")
    else:
        result = draw_clips(clips or [], out, config, augment, store, config.seed if seed is None else seed)
    if as_json:
        typer.echo(json.dumps({key: value for key, value in result.items() if key != "text"}, ensure_ascii=False))
    else:
        typer.echo(result["text"])


def _settings(study: Path | None, overrides: Sequence[str] | None) -> StudyConfig:
    from asd_ray.config.study_file import load_study

    return load_study(study or {"name": "settings"}, parse_overrides(overrides))
