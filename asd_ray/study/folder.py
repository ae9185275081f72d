"""Read and write a study folder: the study file, the records of its trials, its environment.

A trial has a folder of its own, ``trials/00003/``. ``values.json`` is written when the trial starts, ``trial.json``
when it ends, however it ends. So a study that was killed knows which trials have ended: they never run again. Trials
that were under way run again with the same number and values, and resume from their checkpoints.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from asd_ray.config import Scalar, StudyConfig
from asd_ray.config.study_file import load_study, to_yaml
from asd_ray.errors import ConfigError
from asd_ray.files import write_text
from asd_ray.parquet import read_table, write_table

# Keys that may change between two runs of a study: they decide how much runs and where, not what is measured.
FREE_KEYS = ("search.num_trials", "search.seeds", "search.repeat_best", "resources")
PACKAGES = ("asd-ray", "ray", "optuna", "torch", "torchaudio", "timm", "numpy", "scikit-learn", "pandas", "pyarrow")
REVISION_VARIABLE = "ASD_RAY_GIT_REVISION"


@dataclass
class TrialRecord:
    """The record of a trial that ended: one row of ``trials.parquet``.

    Attributes:
        trial: its number, from 0.
        values: searched key -> value.
        seed: of the run.
        status: ``complete``, ``pruned`` or ``failed``.
        objective: value that ranks trials, on the select split; None unless complete.
        objectives: kind -> value, of all kinds in ``evaluation.objective``; empty unless complete.
        epochs: number of trained epochs, including those of stages that other trials trained.
        recalled_epochs: number of epochs in stages that other trials trained.
        duration_s: seconds of the run in which it ended; runs before an interruption do not count.
        samples_per_s: clips per second of all workers together, the mean over training epochs.
        repeat: 0, or the number of a repeat with another seed.
        score: kind of anomaly score of its results.
        reason: why it failed or was pruned, else empty.
        results: its rows of ``results.parquet``.
    """

    trial: int
    values: dict[str, Scalar]
    seed: int
    status: str
    objective: float | None = None
    epochs: int = 0
    duration_s: float = 0.0
    samples_per_s: float | None = None
    repeat: int = 0
    score: str = ""
    recalled_epochs: int = 0
    reason: str = ""
    results: list[dict[str, Any]] = field(default_factory=list)
    objectives: dict[str, float] = field(default_factory=dict)


class StudyFolder:
    """A study's folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    def open(self, study: StudyConfig) -> bool:
        """Make the folder this study's, and write ``study.yaml``.

        Returns:
            Whether the folder held the study already.

        Raises:
            ConfigError: the folder holds another study, or other files.
        """
        stored = self.path / "study.yaml"
        if stored.exists():
            document = yaml.safe_load(stored.read_text(encoding="utf-8"))
            difference = _first_difference(document, study.model_dump(mode="json"))
            # Before its first trial a study has nothing to lose, so its file may change.
            if difference and self.started():
                key, there, here = difference
                raise ConfigError(
                    f"{self.path}: holds another study: {key} is {there!r} there and {here!r} here. "
                    f"Choose another --out, or delete the folder."
                )
            resumed = True
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise ConfigError(f"{self.path}: is not empty and holds no study. Choose another --out.")
        else:
            resumed = False
        (self.path / "trials").mkdir(parents=True, exist_ok=True)
        (self.path / "logs").mkdir(exist_ok=True)
        write_text(stored, to_yaml(study))
        return resumed

    def study(self) -> StudyConfig:
        """Read the study from ``study.yaml``.

        Raises:
            ConfigError: the folder holds no study.
        """
        stored = self.path / "study.yaml"
        if not stored.exists():
            raise ConfigError(f"{self.path}: holds no study (there is no study.yaml).")
        return load_study(stored)

    def status(self) -> dict[str, Any]:
        """Count the trials by status, and name the best so far."""
        study, finished = self.study(), self.finished()
        complete = [record for record in finished.values() if record.status == "complete"]
        best = max(complete, key=lambda record: record.objective or 0.0, default=None)
        return {
            "name": study.name,
            "asked": study.search.num_trials,
            "ended": len(finished),
            "complete": len(complete),
            "pruned": sum(record.status == "pruned" for record in finished.values()),
            "failed": sum(record.status == "failed" for record in finished.values()),
            "unfinished": len(self.started().keys() - finished.keys()),
            "best": best.trial if best else None,
            "objective": best.objective if best else None,
        }

    def trial(self, number: int, repeat: int = 0) -> Path:
        """The folder of a trial, or of its repeat with another seed."""
        folder = self.path / "trials" / f"{number:05d}"
        return folder / f"repeat-{repeat:02d}" if repeat else folder

    def start_trial(self, number: int, values: Mapping[str, Scalar]) -> None:
        """Write the values of a trial that starts."""
        write_text(self.trial(number) / "values.json", json.dumps(dict(values)))

    def finish_trial(self, record: TrialRecord) -> None:
        """Write the record of a trial that ended, and delete what only an unfinished trial needs."""
        folder = self.trial(record.trial, record.repeat)
        write_text(folder / "trial.json", json.dumps(asdict(record)))
        for left in ("checkpoints", "train"):
            shutil.rmtree(folder / left, ignore_errors=True)

    def discard_detector(self, record: TrialRecord) -> None:
        """Delete the networks that a trial has saved."""
        for name in ("detector", "encoder"):
            shutil.rmtree(self.trial(record.trial, record.repeat) / name, ignore_errors=True)

    def started(self) -> dict[int, dict[str, Scalar]]:
        """Read the values of all trials that ever started, by number."""
        return {
            int(path.parent.name): json.loads(path.read_text(encoding="utf-8"))
            for path in sorted(self.path.glob("trials/*/values.json"))
        }

    def record(self, number: int, repeat: int = 0) -> TrialRecord | None:
        """Read the record of a trial; None while it has not ended."""
        path = self.trial(number, repeat) / "trial.json"
        return TrialRecord(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def finished(self) -> dict[int, TrialRecord]:
        """Read the records of all trials that ended, by number."""
        numbers = sorted(int(path.parent.name) for path in self.path.glob("trials/*/trial.json"))
        return {number: record for number in numbers if (record := self.record(number)) is not None}

    def repeats(self) -> list[TrialRecord]:
        """Read the records of all repeats with other seeds that ended, in the order of trial and repeat."""
        paths = sorted(self.path.glob("trials/*/repeat-*/trial.json"))
        return [TrialRecord(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]

    def write_history(self, number: int, repeat: int, history: Sequence[Mapping[str, Any]]) -> None:
        """Write the metrics of a trial's epochs."""
        write_table(self.trial(number, repeat) / "history.parquet", pd.DataFrame([*history]))

    def history(self, number: int, repeat: int = 0) -> list[dict[str, Any]]:
        """Read the metrics of a trial's epochs; an epoch has only its own. An empty list if no epoch was trained."""
        frame = read_table(self.trial(number, repeat) / "history.parquet", missing_ok=True)
        return [{str(k): v for k, v in row.items() if pd.notna(v)} for row in frame.to_dict("records")]

    def write_environment(self, features_hash: str, resources: Mapping[str, float], synthetic: bool) -> None:
        """Write ``env.json``: versions, hardware, git revision, hash of the features, synthetic data or not."""
        document = {
            "python": sys.version.split()[0],
            "platform": platform.platform(),
            "processor": processor(),
            "packages": {name: _version(name) for name in PACKAGES},
            "ray_resources": {key: resources[key] for key in ("CPU", "GPU", "memory") if key in resources},
            "git_revision": git_revision(),
            "features_hash": features_hash,
            "synthetic_data": synthetic,
        }
        write_text(self.path / "env.json", json.dumps(document, indent=1))


def _first_difference(there: Any, here: Any) -> tuple[str, Any, Any] | None:
    """Find the first key whose value differs between two resolved studies, the free keys left out."""
    old, new = _flat(there), _flat(here)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and not any(key == free or key.startswith(free + ".") for free in FREE_KEYS):
            return key, old.get(key), new.get(key)
    return None


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, child in value.items():
        flat.update(_flat(child, f"{prefix}.{name}" if prefix else str(name)))
    return flat


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def git_revision() -> str | None:
    """Git revision of the running code, with ``+changes`` if the work tree differs; None outside a checkout.

    A job's code is outside a checkout and has the revision in :data:`REVISION_VARIABLE`.
    """
    if carried := os.environ.get(REVISION_VARIABLE):
        return carried
    here = Path(__file__).resolve().parent
    try:
        run = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty=+changes", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def processor() -> str:
    """Name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
