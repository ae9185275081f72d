"""Measure how hard a synthetic set is, with detectors of known strength.

A useful testbed gives AUC 0.5 to loudness, 0.6 to 0.8 to simple detectors, and above 0.95 to a detector that knows the
faults; a method can gain the difference between the last two.

Legend: F mel bands, T frames, D features of a clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
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
    "level": "loudness of the clip",
    "level_distance": "difference of its loudness from the training clips' mean",
    "knn": "Euclidean distance to the nearest training clip of its ID in mean Log-Mel",
    "autoencoder": "baseline of DCASE 2020 Task 2, one per machine",
    "knn_described": "like knn, in standardised features of spectrum and rhythm, without the level",
    "fault_aware": "linear discriminant analysis, trained on healthy clips and on clips with the fault",
}
"""Detectors from no knowledge to full knowledge. The last has labels: it is a bound, not a method."""


class ClipFeatures(NamedTuple):
    """Input of the detectors: RMS in dB of full scale, mean Log-Mel (F,), description (D,)."""

    level: float
    mean: NDArray[np.float64]
    description: NDArray[np.float64]


def describe(log_mel: NDArray[np.float32]) -> NDArray[np.float64]:
    """Describe a Log-Mel spectrogram (F, T), F a multiple of 32, by (D,) features that do not depend on its level.

    They are the mean over time of every band, the fluctuation of 32 groups of bands, and the modulation spectrum of 8
    groups from one period per clip to half the frame rate.
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
    examples: int = 24,
    epochs: int = 0,
    parallel_map: ParallelMap | None = None,
) -> pd.DataFrame:
    """Compute the AUC of every detector on every ID and kind of fault of a set.

    Args:
        root: the set's folder; missing recordings are written first.
        examples: further clips per ID, healthy and of each kind of fault, that train the fault-aware detector.
        epochs: of the autoencoder (the baseline has 100); 0 leaves it out.
        run: ``(function, chunks) -> results in any order``, as in ``synthesise``.

    Returns:
        Columns machine, id, fault, band, clips (anomalous clips of that kind), detector, auc.

    Raises:
        AsdRayError: the folder holds something else, or cannot be written or read.
    """
    recordings = synthesise(root, config, layout, parallel_map=parallel_map)
    by_id: dict[tuple[str, str], list[Recording]] = {}
    for recording in recordings:
        by_id.setdefault((recording.machine, recording.id), []).append(recording)
    extra = {key: list(_examples(members, examples)) for key, members in by_id.items()}
    wanted = [*recordings, *chain.from_iterable(extra.values())]
    chunks = [wanted[start : start + CHUNK] for start in range(0, len(wanted), CHUNK)]
    features: dict[str, ClipFeatures] = {}
    for part in (parallel_map or map)(partial(_clip_features, root=Path(root)), chunks):
        features |= part
    errors: dict[str, float] = {}
    if epochs:
        machines = [[r for r in recordings if r.machine == machine] for machine in {r.machine for r in recordings}]
        for scores in (parallel_map or map)(partial(_autoencoder_scores, root=Path(root), epochs=epochs), machines):
            errors |= scores
    rows = [row for key, members in by_id.items() for row in _rows(members, extra[key], features, errors)]
    return pd.DataFrame(rows, columns=["machine", "id", "fault", "band", "clips", "detector", "auc"])


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Tabulate machines x detectors: the mean AUC over IDs, and the machines' mean in the last row.

    An ID's AUC is the mean over kinds of fault, weighted by their clips; for a detector of all kinds this is its plain
    AUC.
    """
    weighted = rows.assign(auc=rows.auc * rows.clips).groupby(["machine", "id", "detector"])[["auc", "clips"]].sum()
    per_id = (weighted.auc / weighted.clips).rename("auc").reset_index()
    table = per_id.pivot_table(index="machine", columns="detector", values="auc")
    detectors = [detector for detector in DETECTORS if detector in table]
    table = table.loc[[machine for machine in MACHINES if machine in table.index], detectors]
    table.loc["mean"] = table.mean()
    return table


def _examples(members: Sequence[Recording], count: int) -> Iterator[Recording]:
    """Plan healthy and faulty clips of one ID outside of the set, in the operations of its training clips."""
    train = [recording for recording in members if recording.split == "train"]
    for fault in ("", *sorted({recording.fault for recording in members if recording.fault})):
        for index in range(count):
            like = train[index % len(train)]
            yield replace(
                like,
                path=f"example:{like.machine}:{like.id}:{fault}:{index}",
                fault=fault,
                severity=SEVERITY[0] + (SEVERITY[1] - SEVERITY[0]) * (index + 0.5) / count if fault else 0.0,
                seed=stable_hash("lesson", like.seed, fault, index),
            )


def _clip_features(chunk: Sequence[Recording], root: Path) -> dict[str, ClipFeatures]:
    """Path -> features: clips of the set are read, examples are rendered."""
    log_mel = LogMel(FeatureConfig())
    features = {}
    for recording in chunk:
        example = recording.path.startswith("example:")
        signal = render(recording) if example else read(root / recording.path, SAMPLE_RATE, SECONDS)
        waveform = torch.from_numpy(signal)[None]
        image = log_mel(waveform)[0].numpy()
        features[recording.path] = ClipFeatures(float(level_db(waveform)), image.mean(1), describe(image))
    return features


def _autoencoder_scores(members: Sequence[Recording], root: Path, epochs: int) -> dict[str, float]:
    """Path -> anomaly score of a machine's test clips, from an autoencoder of its training clips."""
    log_mel = LogMel(FeatureConfig(log="db"))

    def vectors(recording: Recording) -> torch.Tensor:
        waveform = read(root / recording.path, SAMPLE_RATE, SECONDS)
        return context_vectors(log_mel(torch.from_numpy(waveform)[None])[0])

    network = fit(torch.cat([vectors(r) for r in members if r.split == "train"]), epochs)
    return {r.path: anomaly_score(network, vectors(r)) for r in members if r.split == "test"}


def _rows(
    members: Sequence[Recording],
    examples: Sequence[Recording],
    features: dict[str, ClipFeatures],
    errors: dict[str, float],
) -> Iterator[tuple]:
    """Rows of one ID."""
    train = [recording for recording in members if recording.split == "train"]
    test = [recording for recording in members if recording.split == "test"]
    labels = np.array([recording.fault != "" for recording in test])
    level = np.array([features[recording.path].level for recording in test])
    usual, described = (np.stack([features[r.path].description for r in part]) for part in (train, test))
    spread = usual.std(0) + 1e-3
    scores = {
        "level": level,
        "level_distance": np.abs(level - np.mean([features[recording.path].level for recording in train])),
        "knn": cdist(*(np.stack([features[r.path].mean for r in part]) for part in (test, train))).min(1),
        "knn_described": cdist(described / spread, usual / spread).min(1),
    }
    if errors:
        scores["autoencoder"] = np.array([errors[recording.path] for recording in test])
    for fault in sorted({recording.fault for recording in test if recording.fault}):
        known = [*train, *(example for example in examples if example.fault in ("", fault))]
        detector = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
        detector.fit([features[r.path].description for r in known], [r.fault != "" for r in known])
        scores["fault_aware"] = detector.decision_function(described)
        this = np.array([recording.fault in ("", fault) for recording in test])
        band = MACHINES[test[0].machine].faults[fault].band
        clips = int(np.sum(this & labels))
        for name, values in scores.items():
            area = float(roc_auc_score(labels[this], values[this]))
            yield test[0].machine, test[0].id, fault, band, clips, name, area
