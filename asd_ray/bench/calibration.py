"""How hard a synthetic set is, told by detectors of known strength.

A testbed is worth training on if loudness tells nothing (AUC about 0.5), a simple detector something (0.6 to 0.8), and
one that has heard the faults nearly everything (above 0.95): what lies between the last two is a method's to win.

Legend: F mel bands, T frames, D features of a clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from asd_ray.config import FeatureConfig, SyntheticConfig
from asd_ray.data.audio import read
from asd_ray.data.clips import stable_hash
from asd_ray.data.synthetic.machines import MACHINES
from asd_ray.data.synthetic.recordings import (
    CHUNK,
    SAMPLE_RATE,
    SECONDS,
    SEVERITY,
    ParallelMap,
    Recording,
    render,
    synthesise,
)
from asd_ray.features.log_mel import LogMel, level_db
from asd_ray.methods.autoencoder.network import anomaly_score, context_vectors, fit

DETECTORS = {
    "level": "how loud the clip is",
    "level_distance": "how far its loudness is from the training clips' mean",
    "knn": "Euclidean distance to the nearest training clip of its ID in mean Log-Mel",
    "autoencoder": "the baseline's of DCASE 2020 Task 2, one for each machine",
    "knn_described": "the same in what describe() hears, standardised by the training clips: rhythm too, and no level",
    "fault_aware": "linear discriminant analysis of its ID's healthy clips and of others with the fault in question",
}
"""From none to all of the knowledge that a detector can have. The last is no method, it is a bound: it has labels."""


class Heard(NamedTuple):
    """A clip as the detectors know it: RMS in dB of full scale, mean Log-Mel (F,), description (D,)."""

    level: float
    mean: NDArray[np.float64]
    description: NDArray[np.float64]


def describe(log_mel: NDArray[np.float32]) -> NDArray[np.float64]:
    """A Log-Mel spectrogram (F, T), F a multiple of 32, as (D,) features that do not depend on its level.

    The mean over time of every band, the fluctuation of 32 groups of bands, and the modulation spectrum of 8 groups
    from one period per clip to half the frame rate.
    """
    x = log_mel.astype(np.float64) - log_mel.mean()
    groups, octaves = (x.reshape(count, -1, x.shape[1]).mean(1) for count in (32, 8))
    modulation = np.abs(np.fft.rfft(octaves)) ** 2
    edges = np.unique(np.geomspace(1, modulation.shape[1], 24).astype(int))
    steps = np.add.reduceat(modulation, edges[:-1], axis=1) / np.diff(edges)
    return np.concatenate([x.mean(1), np.log(groups.std(1) + 1e-3), np.log(steps + 1e-9).ravel()])


def measure(
    root: Path,
    config: SyntheticConfig,
    layout: str = "dcase2020",
    lessons: int = 24,
    epochs: int = 0,
    parallel_map: ParallelMap | None = None,
) -> pd.DataFrame:
    """The AUC of every detector on every ID and kind of fault of a set.

    Args:
        root: the set's folder; what is missing there is written first.
        lessons: further clips, healthy and of each kind of fault, that the fault-aware detector learns an ID from.
        epochs: of the autoencoder; the baseline's are 100, and 0 leaves it out.
        run: ``(function, chunks) -> results in any order``, as ``synthesise`` takes.

    Returns:
        Columns machine, id, fault, band, clips (anomalous clips of that kind), detector, auc.

    Raises:
        AsdRayError: the folder holds something else, or cannot be written or read.
    """
    recordings = synthesise(root, config, layout, parallel_map=parallel_map)
    by_id: dict[tuple[str, str], list[Recording]] = {}
    for recording in recordings:
        by_id.setdefault((recording.machine, recording.id), []).append(recording)
    taught = {key: list(_lessons(members, lessons)) for key, members in by_id.items()}
    wanted = recordings + [lesson for members in taught.values() for lesson in members]
    chunks = [wanted[start : start + CHUNK] for start in range(0, len(wanted), CHUNK)]
    heard: dict[str, Heard] = {}
    for part in (parallel_map or map)(partial(_hear, root=Path(root)), chunks):
        heard |= part
    errors: dict[str, float] = {}
    if epochs:
        machines = [[r for r in recordings if r.machine == machine] for machine in {r.machine for r in recordings}]
        for scores in (parallel_map or map)(partial(_autoencode, root=Path(root), epochs=epochs), machines):
            errors |= scores
    rows = [row for key, members in by_id.items() for row in _rows(members, taught[key], heard, errors)]
    return pd.DataFrame(rows, columns=["machine", "id", "fault", "band", "clips", "detector", "auc"])


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Machines x detectors: the mean over IDs of the AUC on all anomalous clips, and in a last row the machines' mean.

    An ID's AUC is the mean over its anomalous clips of the AUC of their kind of fault; where one detector serves all
    kinds, that is its plain AUC.
    """
    weighted = rows.assign(auc=rows.auc * rows.clips).groupby(["machine", "id", "detector"])[["auc", "clips"]].sum()
    per_id = (weighted.auc / weighted.clips).rename("auc").reset_index()
    table = per_id.pivot_table(index="machine", columns="detector", values="auc")
    detectors = [detector for detector in DETECTORS if detector in table]
    table = table.loc[[machine for machine in MACHINES if machine in table.index], detectors]
    table.loc["mean"] = table.mean()
    return table


def _lessons(members: Sequence[Recording], count: int) -> Iterator[Recording]:
    """Healthy and faulty clips of one ID, in the operations of its training clips, that are not in the set."""
    train = [recording for recording in members if recording.split == "train"]
    for fault in ("", *sorted({recording.fault for recording in members if recording.fault})):
        for index in range(count):
            like = train[index % len(train)]
            yield replace(
                like,
                path=f"lesson:{like.machine}:{like.id}:{fault}:{index}",
                fault=fault,
                severity=SEVERITY[0] + (SEVERITY[1] - SEVERITY[0]) * (index + 0.5) / count if fault else 0.0,
                seed=stable_hash("lesson", like.seed, fault, index),
            )


def _hear(chunk: Sequence[Recording], root: Path) -> dict[str, Heard]:
    """Path -> features: clips of the set as their files have them, lessons rendered."""
    log_mel = LogMel(FeatureConfig())
    heard = {}
    for recording in chunk:
        lesson = recording.path.startswith("lesson:")
        signal = render(recording) if lesson else read(root / recording.path, SAMPLE_RATE, SECONDS)
        waveform = torch.from_numpy(signal)[None]
        features = log_mel(waveform)[0].numpy()
        heard[recording.path] = Heard(float(level_db(waveform)), features.mean(1), describe(features))
    return heard


def _autoencode(members: Sequence[Recording], root: Path, epochs: int) -> dict[str, float]:
    """Path -> anomaly score of a machine's test clips by an autoencoder of its training clips."""
    log_mel = LogMel(FeatureConfig(log="db"))

    def vectors(recording: Recording) -> torch.Tensor:
        waveform = read(root / recording.path, SAMPLE_RATE, SECONDS)
        return context_vectors(log_mel(torch.from_numpy(waveform)[None])[0])

    network = fit(torch.cat([vectors(r) for r in members if r.split == "train"]), epochs)
    return {r.path: anomaly_score(network, vectors(r)) for r in members if r.split == "test"}


def _rows(
    members: Sequence[Recording], lessons: Sequence[Recording], heard: dict[str, Heard], errors: dict[str, float]
) -> Iterator[tuple]:
    """The rows of one ID."""
    train = [recording for recording in members if recording.split == "train"]
    test = [recording for recording in members if recording.split == "test"]
    labels = np.array([recording.fault != "" for recording in test])
    level = np.array([heard[recording.path].level for recording in test])
    usual, described = (np.stack([heard[r.path].description for r in part]) for part in (train, test))
    spread = usual.std(0) + 1e-3
    scores = {
        "level": level,
        "level_distance": np.abs(level - np.mean([heard[recording.path].level for recording in train])),
        "knn": cdist(*(np.stack([heard[r.path].mean for r in part]) for part in (test, train))).min(1),
        "knn_described": cdist(described / spread, usual / spread).min(1),
    }
    if errors:
        scores["autoencoder"] = np.array([errors[recording.path] for recording in test])
    for fault in sorted({recording.fault for recording in test if recording.fault}):
        known = [*train, *(lesson for lesson in lessons if lesson.fault in ("", fault))]
        detector = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
        detector.fit([heard[r.path].description for r in known], [r.fault != "" for r in known])
        scores["fault_aware"] = detector.decision_function(described)
        this = np.array([recording.fault in ("", fault) for recording in test])
        band = MACHINES[test[0].machine].faults[fault].band
        clips = int(np.sum(this & labels))
        for name, values in scores.items():
            area = float(roc_auc_score(labels[this], values[this]))
            yield test[0].machine, test[0].id, fault, band, clips, name, area
