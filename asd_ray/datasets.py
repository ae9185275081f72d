"""Data sets and their features without a study: make, list, compute, read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asd_ray.errors import AsdRayError, ConfigError

if TYPE_CHECKING:
    from asd_ray.config import StudyConfig
    from asd_ray.data.clips import Clip
    from asd_ray.data.synthetic.recordings import Recording
    from asd_ray.features.build import Built
    from asd_ray.features.store import ClipTable

Progress = Callable[[int, int], None]
"""Called with the number of clips that are done, and of all."""


def synthesise(
    out: str | Path,
    machines: int = 3,
    ids: int = 2,
    train: int = 24,
    test_normal: int = 12,
    test_anomaly: int = 12,
    snr_db: float = 6.0,
    seed: int = 0,
    layout: str = "dcase2020",
    progress: Progress | None = None,
) -> list[Recording]:
    """Make a data set of synthetic machines, or what is missing of it. Large sets are made on a local Ray.

    Args:
        out: folder of the set.
        machines: machine types, at most 6.
        ids: individuals of each machine type, at most 7.
        train, test_normal, test_anomaly: clips of each ID, 10 s each.
        snr_db: level of the machine above the factory's noise, in dB.
        seed: of the generator.
        layout: names and folders like those of ``dcase2020`` or ``dcase2022``.
        progress: called with the number of recordings that are there, and of all.

    Returns:
        The recordings with their machine, label and fault.

    Raises:
        ConfigError: a number is out of its range.
        AsdRayError: the folder holds something else, or cannot be written.

    Example:
        >>> recordings = synthesise("machines", machines=1, ids=2, train=16)
    """
    from pydantic import ValidationError

    from asd_ray.cluster.session import local_tasks
    from asd_ray.config import SyntheticConfig
    from asd_ray.data.synthetic import recordings

    sizes: dict[str, Any] = {"machines": machines, "ids": ids, "train": train, "snr_db": snr_db, "seed": seed}
    try:
        config = SyntheticConfig(**sizes, test_normal=test_normal, test_anomaly=test_anomaly)
    except ValidationError as error:
        detail = error.errors()[0]
        raise ConfigError(f"{detail['loc'][0]}: {detail['msg'].lower()}, but got {detail['input']}.") from None
    clips = machines * ids * (train + test_normal + test_anomaly)
    with local_tasks(clips) as parallel_map:
        return recordings.synthesise(Path(out), config, layout, progress=progress, parallel_map=parallel_map)


def scan(
    root: str | Path, layout: str | None = None, machines: Sequence[str] | None = None, skip_bad: bool = False
) -> list[Clip]:
    """List the clips of a data set.

    Args:
        root: folder of the data set.
        layout: ``dcase2020``, ``dcase2022``, ``folder`` or ``synthetic``; by default the file names tell.
        machines: machine types; all by default.
        skip_bad: leave out clips that cannot be read, with a warning, instead of raising.

    Returns:
        The clips in the order of their paths: machine, ID, split, label, domain, length.

    Raises:
        AsdRayError: there is no such folder or machine, or a clip cannot be read.

    Example:
        >>> anomalies = [clip for clip in scan("machines") if clip.label == "anomaly"]
    """
    from asd_ray.data import layouts

    return layouts.scan(root, layout or find_layout(root), machines=machines, skip_bad=skip_bad)


def find_layout(root: str | Path) -> str:
    """Find out the layout of a data set from its file names.

    Raises:
        AsdRayError: they fit no layout.
    """
    from asd_ray.data import layouts

    layout = layouts.detect(root)
    if layout is None:
        raise AsdRayError(f"{root}: no known layout; choose one with --layout, or see `asd-ray data check`.")
    return layout


def build_features(
    data: str | Path,
    out: str | Path,
    study: StudyConfig | None = None,
    layout: str | None = None,
    machines: Sequence[str] | None = None,
    waveform: bool = False,
    skip_bad: bool = False,
    address: str | None = None,
    progress: Progress | None = None,
    *,
    show_ray_output: bool = False,
) -> Built:
    """Compute a feature store with Ray Data, or what is missing of it.

    Args:
        data: folder of the data set.
        out: folder of the store, or its URI (``s3://...``).
        study: its settings of features, method and data hold; the defaults by default.
        layout, machines, skip_bad: as for :func:`scan`.
        waveform: keep the waveforms beside the Log-Mel features, even if the method does not need them.
        address: of a running Ray, ``HOST:PORT`` or ``auto``; by default a local Ray is started, and ended again.
        progress: called with the number of clips that are done, and of all.
        show_ray_output: let Ray and its workers print to standard output and error.

    Returns:
        The store's manifest, and what was read, reused and written.

    Raises:
        AsdRayError: a clip cannot be read, the store holds other features, or the disk is full.

    Example:
        >>> built = build_features("machines", "features")
        >>> built.manifest.counts
        {'train': 144, 'test': 144, 'extra': 0}
    """
    from asd_ray.cluster.session import ray_session
    from asd_ray.config import ResourceConfig
    from asd_ray.config.study_file import load_study
    from asd_ray.features.build import build
    from asd_ray.features.storage import Storage

    study = study or load_study({"name": "features"})
    skip_bad = skip_bad or study.data.skip_bad
    clips = scan(data, layout, machines or study.data.machines, skip_bad)
    wanted = ("log_mel", "waveform") if waveform else ("log_mel",)
    columns = tuple(dict.fromkeys((*study.method.columns, *wanted)))
    with ray_session(address, "features", ResourceConfig(), show_ray_output):
        return build(
            clips,
            Path(data),
            Storage(out),
            study.features,
            study.data.channel,
            skip_bad=skip_bad,
            progress=progress,
            columns=columns,
            prune=True,
        )


def read_features(store: str | Path, split: str = "train") -> ClipTable:
    """Read the Log-Mel features of one split into memory.

    Args:
        store: folder of a feature store, or its URI.
        split: ``train``, ``test`` or ``extra``.

    Returns:
        ``clips`` (N of them), ``log_mel`` (N, F, T) in float16, and ``level_db`` (N,).

    Raises:
        AsdRayError: there is no feature store, or a file of it is missing or damaged.

    Example:
        >>> features = read_features("features", "test")
        >>> features.log_mel.mean(axis=(0, 2))
    """
    from asd_ray.features.store import collect, read_joined, read_manifest

    manifest = read_manifest(store)
    if manifest is None:
        raise AsdRayError(f"{store}: holds no features; build_features, or `asd-ray features build`, computes them.")
    shards = manifest.shards.get(split, [])
    return collect((read_joined(store, shard, ("log_mel",), ("level_db",)) for shard in shards), manifest.shape)
