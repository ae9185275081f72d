"""Hyperparameter studies for anomalous sound detection, distributed with Ray.

A study takes recordings of machines, trains a detector with many settings, and tells which settings detect best:

    >>> import asd_ray
    >>> study = asd_ray.load_study("studies/quickstart.yaml", {"search.num_trials": 2})
    >>> outcome = asd_ray.run_study(study, "runs/first", progress=print)
    >>> outcome.best["objective"]
    >>> outcome.detector().score(["fan/test/normal_id_00_00000000.wav"])

Names are imported when they are first used: ``import asd_ray`` imports neither torch nor Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asd_ray.config.study_file import load_study
    from asd_ray.data.public.download import download
    from asd_ray.datasets import build_features, read_features, scan, synthesise
    from asd_ray.detector.detector import Detector
    from asd_ray.errors import AsdRayError
    from asd_ray.registry import register_encoder, register_layout, register_method, register_score
    from asd_ray.run import run_study
    from asd_ray.study.outcome import read_study

__version__ = "0.1.0"
__all__ = [
    "AsdRayError",
    "Detector",
    "build_features",
    "download",
    "load_study",
    "read_features",
    "read_study",
    "register_encoder",
    "register_layout",
    "register_method",
    "register_score",
    "run_study",
    "scan",
    "synthesise",
]
_MODULES = {
    "AsdRayError": "errors",
    "Detector": "detector.detector",
    "build_features": "datasets",
    "download": "data.public.download",
    "load_study": "config.study_file",
    "read_features": "datasets",
    "read_study": "study.outcome",
    "register_encoder": "registry",
    "register_layout": "registry",
    "register_method": "registry",
    "register_score": "registry",
    "run_study": "run",
    "scan": "datasets",
    "synthesise": "datasets",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'asd_ray' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"asd_ray.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
