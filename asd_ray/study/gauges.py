"""A study's numbers as Ray metrics, for Prometheus and for Grafana in the Ray dashboard's Metrics tab.

The driver sets them. Ray 2.60 exports a value for some 20 seconds after it was set and then drops it. Queries for the
result of a trial use ``last_over_time``, which also finds it after the study's end.

Labels are ``study``, ``trial`` and ``repeat`` (0, or the number of a repeat with another seed); results also have
``split`` and ``machine``. A trial has one series per metric of its epochs and four per machine, and none per epoch,
clip or searched value. There is no label for workers, because metrics are averaged over a trial's workers before the
driver gets them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd
from ray.util.metrics import Gauge

from asd_ray import metrics
from asd_ray.study.folder import TrialRecord

EPOCH = {
    "epoch": "Epochs that the trial has trained, of all stages.",
    "loss": "Training loss, mean over the epoch.",
    "validation_loss": "Loss on held-out training clips.",
    "positive_similarity": "Cosine similarity of the two views of a clip.",
    "negative_similarity": "Mean cosine similarity with the negatives.",
    "alignment": "Mean squared distance of the two views of a clip.",
    "uniformity": "Log of the mean Gaussian potential of all pairs of embeddings.",
    "embedding_std": "Standard deviation per dimension of the embeddings; 0 is a collapsed encoder.",
    "queue_filled": "Share of the queue that holds keys.",
    "accuracy": "Share of training clips that the classifier gives their machine and ID.",
    "knn_auc": "AUC of k-NN on the select split.",
    "samples_per_s": "Training clips per second, all workers together.",
}
"""Metrics of an epoch that become gauges ``asd_ray_<name>``, with their meaning. In Prometheus they are called
``ray_asd_ray_<name>``."""
STATUSES = ("running", "complete", "pruned", "failed")


class StudyGauges:
    """The gauges of one study; Ray must be running.

    Args:
        study: its name.
    """

    def __init__(self, study: str) -> None:
        self.study = study
        trial = ("study", "trial", "repeat")
        self.epochs = {name: Gauge(f"asd_ray_{name}", text, trial) for name, text in EPOCH.items()}
        self.objective = Gauge("asd_ray_objective", "Objective of an ended trial, on the select split.", trial)
        by_machine = (*trial, "split", "machine")
        self.results = {
            name: Gauge(f"asd_ray_{name}", f"{text} of an ended trial, mean over the machine's IDs.", by_machine)
            for name, text in {"auc": "AUC", "pauc": "pAUC"}.items()
        }
        self.trials = Gauge("asd_ray_trials", "Trials and repeats of the study, by status.", ("study", "status"))
        self.statuses: dict[tuple[int, int], str] = {}

    def started(self, trial: int, repeat: int) -> None:
        """Count a trial as running."""
        self.statuses[trial, repeat] = "running"
        self._count()

    def epoch(self, trial: int, repeat: int, values: Mapping[str, Any]) -> None:
        """Set the metrics of a trial's newest epoch."""
        self._count()
        for name, gauge in self.epochs.items():
            self._set(gauge, values.get(name), {"trial": str(trial), "repeat": str(repeat)})

    def ended(self, record: TrialRecord) -> None:
        """Set the results of a trial that ended."""
        self.statuses[record.trial, record.repeat] = record.status
        self._count()
        labels = {"trial": str(record.trial), "repeat": str(record.repeat)}
        self._set(self.objective, record.objective, labels)
        if not record.results:
            return
        for row in metrics.per_machine(pd.DataFrame(record.results)).to_dict("records"):
            for name, gauge in self.results.items():
                self._set(gauge, row[name], {**labels, "split": row["split"], "machine": row["machine"]})

    def _count(self) -> None:
        counts = Counter(self.statuses.values())
        for status in STATUSES:
            self._set(self.trials, counts[status], {"status": status})

    def _set(self, gauge: Gauge, value: Any, labels: dict[str, str]) -> None:
        if isinstance(value, (int, float)) and math.isfinite(value):
            gauge.set(float(value), {"study": self.study, **labels})
