"""The worst mistakes of a trial, their spectrograms from the feature store, and AUC by kind of fault.

Legend: F mel bands, T frames.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib import colormaps
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image

from asd_ray import metrics
from asd_ray.config import FeatureConfig
from asd_ray.data.side_files import Fault, read_faults
from asd_ray.errors import AsdRayError
from asd_ray.explore.mel_axis import TICKS, mel_position
from asd_ray.features.storage import Storage
from asd_ray.features.store import COLUMNS, Manifest, joined, read_manifest, read_shard, views
from asd_ray.metrics.rows import is_anomaly
from asd_ray.report.figures.detection import standardised
from asd_ray.report.figures.svg import svg
from asd_ray.report.scored_clips import Runs
from asd_ray.report.tables import signed

MOST = 4
"""Number of clips of each kind."""
LEVELS = 64


@dataclass(frozen=True)
class Mistake:
    """A clip on the wrong side.

    Attributes:
        path, machine, id, label: of the clip.
        beyond: share of the same ID's clips of the other label that it is on the wrong side of.
        z: its score in standard deviations of the ID's normal clips.
        fault: kind of the fault, if known.
    """

    path: str
    machine: str
    id: str
    label: str
    beyond: float
    z: float
    fault: str = ""

    @property
    def text(self) -> str:
        others = "anomalous" if self.label == "normal" else "normal"
        than = "above" if self.label == "normal" else "below"
        kind = f" ({self.fault.replace('_', ' ')})" if self.fault else ""
        return (
            f"{self.machine} {self.id}, {'anomaly' if self.label == 'anomaly' else 'normal'}{kind}: scored {than} "
            f"{self.beyond:.0%} of the {others} clips; {signed(self.z, 1, 1)} standard deviations"
        )


def worst(clips: pd.DataFrame, label: str, faults: Mapping[str, Fault], most: int = MOST) -> list[Mistake]:
    """The worst false alarms (``normal``) or misses (``anomaly``), at most one per ID.

    The order is the cost in AUC of the clip's own ID, as scores of different IDs are not comparable: the share of the
    other label's clips that it is on the wrong side of (ties count half). The standardised score breaks ties.
    """
    z = standardised(clips)
    found = []
    for (machine, machine_id), members in clips.assign(z=z).groupby(["machine", "id"]):
        anomalous = is_anomaly(members)
        own = members[anomalous == (label == "anomaly")]
        other = np.sort(members.loc[anomalous != (label == "anomaly"), "score"].to_numpy(np.float64))
        if len(own) == 0 or len(other) == 0:
            continue
        score = own["score"].to_numpy(np.float64)
        below = (np.searchsorted(other, score, "left") + np.searchsorted(other, score, "right")) / 2 / len(other)
        sign = 1 if label == "normal" else -1
        beyond = below if label == "normal" else 1 - below
        order = np.lexsort((own["path"].to_numpy(), -sign * own["score"].to_numpy(), -beyond))
        first = own.iloc[order[0]]
        kind = faults[first["path"]].kind if first["path"] in faults else ""
        share = float(beyond[order[0]])
        found.append(Mistake(first["path"], str(machine), str(machine_id), label, share, float(first["z"]), kind))
    wrong = [mistake for mistake in found if mistake.beyond > 0]
    return sorted(wrong, key=lambda mistake: (-mistake.beyond, mistake.path))[:most]


@dataclass(frozen=True)
class Pictures:
    """Path -> spectrogram as SVG, or the reason for none."""

    images: dict[str, str]
    missing: str = ""


def spectrograms(study_dir: Path, study: Mapping[str, Any], paths: Sequence[str], features_hash: str = "") -> Pictures:
    """Spectrograms of test clips in the same colours, from the study's feature store if it is on this machine.

    Args:
        study_dir: the study folder.
        study: the resolved study.
        paths: of the clips.
        features_hash: of the study's features in a store with several; any by default.
    """
    place = (study.get("features") or {}).get("store")
    storage = Storage(place or study_dir / "features")
    if not storage.local:
        return Pictures(
            {}, f"Spectrograms are left out: the features are at {storage}, and only a local store is read."
        )
    try:
        manifest = _manifest(storage, features_hash)
        if manifest is None:
            return Pictures({}, f"Spectrograms are left out: the study's features are not at {storage}.")
        images = _log_mel(storage, manifest, paths)
    except AsdRayError as error:
        return Pictures({}, f"Spectrograms are left out: {error}")
    gone = [path for path in paths if path not in images]
    if gone:
        return Pictures({}, f"Spectrograms are left out: the feature store at {storage} does not hold {gone[0]}.")
    own = {name: manifest.settings[name] for name in FeatureConfig.model_fields if name in manifest.settings}
    features = FeatureConfig.model_validate(own)
    low, high = np.percentile(np.stack(list(images.values())), [1, 99.9]) if images else (0.0, 1.0)
    drawn = {path: _spectrogram(path, image, features, (float(low), float(high))) for path, image in images.items()}
    return Pictures(drawn)


def _manifest(storage: Storage, features_hash: str) -> Manifest | None:
    """The manifest with a hash; the latest if the hash is empty."""
    others = sorted(name for name in storage.names() if name.startswith("manifest-"))
    for name in ("manifest.json", *others):
        manifest = read_manifest(storage, name)
        if manifest is not None and features_hash in ("", manifest.hash):
            return manifest
    return None


def _log_mel(storage: Storage, manifest: Manifest, paths: Iterable[str]) -> dict[str, NDArray[np.float32]]:
    """Path -> Log-Mel (F, T) of test clips; reads the paths of all shards and the features of the shards needed."""
    wanted, found = set(paths), {}
    for shard in manifest.shards.get("test", []):
        name = shard.files["log_mel"]
        try:
            with storage.open(name) as file:
                here = pq.read_table(file, columns=["path"], use_threads=False)["path"].to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise AsdRayError(f"{storage.url(name)} cannot be read ({' '.join(str(error).split())}).") from None
        places = [(row, path) for row, path in enumerate(here) if path in wanted]
        if places:
            table = read_shard(storage, name, ["log_mel"])
            values = joined(views(table, "log_mel", COLUMNS["log_mel"], manifest.shape))
            found.update({path: values[row].astype(np.float32) for row, path in places})
    return found


def _spectrogram(path: str, image: NDArray[np.float32], features: FeatureConfig, colours: tuple[float, float]) -> str:
    bands, frames = image.shape

    def draw(axes: Axes) -> None:
        marks = zip(mel_position(TICKS, features), TICKS, strict=True)
        shown = [(place, f"{hertz / 1000:g}") for place, hertz in marks if hertz >= 500 and place <= bands]
        axes.set_yticks([place for place, _ in shown], [name for _, name in shown])
        axes.set(xlabel="time (s)", ylabel="kHz", ylim=(-0.5, bands - 0.5))
        axes.set_xlim(0, frames * features.hop_length / features.sample_rate)
        axes.grid(visible=False)

    return svg(f"spectrogram of {path}", draw, (420, 190), left=44, picture=_png(image, colours))


def _png(image: NDArray[np.float32], colours: tuple[float, float]) -> str:
    """An image (F, T) as the data URL of a small PNG: 64 colours, low frequencies at the bottom."""
    low, high = colours
    levels = np.clip((image[::-1] - low) / max(high - low, 1e-6) * LEVELS, 0, LEVELS - 1).astype(np.uint8)
    picture = Image.fromarray(levels, mode="P")
    picture.putpalette(
        (colormaps["magma"].resampled(LEVELS)(np.arange(LEVELS))[:, :3] * 255).astype(np.uint8).tobytes()
    )
    buffer = io.BytesIO()
    picture.save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


# --- Faults ----------------------------------------------------------------------------------------------------------


def data_faults(study_dir: Path, study: Mapping[str, Any]) -> dict[str, Fault]:
    """Path -> fault, from ``faults.csv`` of the data set if it is on this machine."""
    root = (study.get("data") or {}).get("root")
    folder = Path(root).expanduser() if root else study_dir / "data"
    return read_faults(folder)


def fault_table(systems: Mapping[str, Runs], faults: Mapping[str, Fault], max_fpr: float) -> pd.DataFrame:
    """AUC of the systems by machine and kind of fault, and by machine and band: all normal clips against one kind.

    Args:
        systems: scored clips of one split; means are over seeds, and over IDs by the rule of the data.
        faults: path -> kind and band.
        max_fpr: p of pAUC.

    Returns:
        ``machine, what`` (``fault`` or ``band``), ``name, n_anomaly``, and a column per system; NaN where undefined.
    """
    rows = []
    for what, pick in (("fault", lambda fault: fault.kind), ("band", lambda fault: fault.band)):
        names = {path: pick(fault) for path, fault in faults.items() if pick(fault)}
        for system, runs in systems.items():
            for run in runs:
                told = run["path"].map(names)
                parts: list[pd.DataFrame] = []
                of: list[tuple[Any, str, int]] = []
                for machine, clips in run.groupby("machine"):
                    for name in sorted(set(told[clips.index].dropna())):
                        chosen = clips[~is_anomaly(clips) | (told[clips.index] == name).to_numpy()]
                        parts.append(chosen.assign(machine=f"{len(of):06d}"))  # one call for all: pandas is slow
                        of.append((machine, name, int(is_anomaly(chosen).sum())))
                if parts:
                    means = metrics.per_machine(metrics.per_id(pd.concat(parts), max_fpr), ())
                    rows += [(what, *who, system, auc) for who, auc in zip(of, means["auc"], strict=True)]
    table = pd.DataFrame(rows, columns=["what", "machine", "name", "n_anomaly", "system", "auc"])
    means = table.groupby(["machine", "what", "name", "n_anomaly", "system"])["auc"].mean().unstack("system")
    return means.reset_index().sort_values(
        ["machine", "what", "name"], ascending=[True, False, True], ignore_index=True
    )
