"""How hard a synthetic set is: detectors of known strength, from none to one that has heard the faults.

A testbed is worth training on if loudness tells nothing, a simple detector something, and one that knows what to listen
for nearly everything: the gap between the last two is what a method can win.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from asd_ray.clips import stable_hash
from asd_ray.config import FeatureConfig, SyntheticConfig
from asd_ray.datasets.audio import read
from asd_ray.datasets.machines import MACHINES
from asd_ray.datasets.synthetic import Recording, render, synthesise
from asd_ray.features.log_mel import LogMel, level_db
from asd_ray.metrics import auc
from asd_ray.scoring import knn_log_mel

DETECTORS = ("level", "level_distance", "knn_mean_log_mel", "fault_aware")


def describe(log_mel: NDArray) -> NDArray[np.float64]:
    """What can be heard in a Log-Mel spectrogram (F, T) whatever its level: (D,) spectrum, fluctuation, modulation.

    The mean over time of every band, the standard deviation of 32 groups of bands, and the modulation spectrum of 8
    groups in 16 steps up to half the frame rate.
    """
    x = log_mel - log_mel.mean()
    groups = x.reshape(32, -1, x.shape[1]).mean(1)
    wide = groups.reshape(8, -1, x.shape[1]).mean(1)
    modulation = np.abs(np.fft.rfft(wide - wide.mean(1, keepdims=True), axis=1)) ** 2
    edges = np.unique(np.geomspace(1, modulation.shape[1], 24).astype(int))
    steps = [np.log(modulation[:, a:b].mean(1) + 1e-9) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return np.concatenate([x.mean(1), np.log(groups.std(1) + 1e-3), np.concatenate(steps)])
