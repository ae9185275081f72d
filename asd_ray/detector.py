"""A trained detector on disk: weights, settings and the training clips' embeddings; safetensors and JSON, no pickle."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from asd_ray.config import StudyConfig
from asd_ray.errors import AsdRayError
from asd_ray.features.store import Manifest
from asd_ray.files import write_text
from asd_ray.methods.base import DataInfo, Method
from asd_ray.methods.registry import build
from asd_ray.scoring import Embedded

FORMAT = 1


@dataclass(frozen=True)
class Detector:
    """A trained method with what its scores refer to.

    Attributes:
        study: resolved, with the trial's values; its ``features`` say how a recording becomes input.
        classes: ``machine/id`` of the classes in label order.
        method: in eval mode, on the CPU.
        train: embeddings, logits and class numbers of the training clips.
    """

    study: StudyConfig
    classes: tuple[str, ...]
    method: Method
    train: Embedded


def save_detector(
    folder: Path, study: StudyConfig, manifest: Manifest, classes: tuple[str, ...], method: Method, train: Embedded
) -> None:
    """Writes a detector folder; ``detector.json`` comes last, so a folder that has it is complete."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in method.state_dict().items()}
    save_file(weights, folder / "weights.safetensors")
    save_arrays(
        {name: np.ascontiguousarray(array) for name, array in asdict(train).items()}, folder / "train.safetensors"
    )
    n_mels, frames = manifest.shape
    description = {
        "format": FORMAT,
        "study": study.model_dump(mode="json"),
        "classes": list(classes),
        "features": {"n_mels": n_mels, "frames": frames, "mean": manifest.mean, "std": manifest.std},
        "clips": manifest.counts["train"],
    }
    write_text(folder / "detector.json", json.dumps(description, indent=1, ensure_ascii=False))


def load_detector(folder: Path) -> Detector:
    """Reads a detector folder.

    Raises:
        AsdRayError: the folder holds no complete detector of this version.
    """
    try:
        description = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AsdRayError(f"{folder}: holds no detector ({error}); a finished study has one in detector/.") from None
    if description.get("format") != FORMAT:
        raise AsdRayError(f"{folder}: detector format {description.get('format')}, this version reads {FORMAT}.")
    study = StudyConfig.model_validate(description["study"])
    info = DataInfo(**description["features"], classes=tuple(description["classes"]), clips=description["clips"])
    method = build(study.method, info)
    try:
        method.load_state_dict(load_file(folder / "weights.safetensors"))
        train = Embedded(**load_arrays(folder / "train.safetensors"))
    except (OSError, RuntimeError, TypeError) as error:
        raise AsdRayError(f"{folder}: the detector's files do not fit together ({error}).") from None
    return Detector(study, info.classes, method.eval(), train)
