"""A cache of trained stages: one trial trains a stage, the other trials of the study load it.

A search over fine-tuning pre-trains once; a search over scores trains once. A stage's folder is named by a hash of
everything that decides its weights: the method's settings for this stage, the features and their clips, the classes,
the run's seed and the number of workers. So a loaded stage has exactly the weights that training would give (tested bit
for bit).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from asd_ray.config import Section, StudyConfig
from asd_ray.config.study_file import get_key
from asd_ray.data.clips import stable_hash
from asd_ray.files import write_folder_atomically
from asd_ray.methods.base import Stage
from asd_ray.methods.registry import fingerprints

log = logging.getLogger("asd_ray")
FORMAT = 1
WEIGHTS, ABOUT = "weights.safetensors", "stage.json"
History = list[dict[str, Any]]


def no_wait(path: Path) -> None:
    """Return at once: no other trial trains at the same time."""


@dataclass(frozen=True)
class StageCache:
    """A folder of trained stages, and the rule which stages to store.

    Attributes:
        folder: for all stages.
        searched: searched key -> True if two trials can have the same value (integers and choices).
        always: store every stage, for other studies too.
        turn: called with a stage's folder before the stage is loaded or trained. It returns once the folder is there,
            or once no other trial is training the stage.
    """

    folder: Path
    searched: Mapping[str, bool]
    always: bool = False
    turn: Callable[[Path], None] = no_wait

    def keeps(self, stage: Stage) -> bool:
        """True if another trial of the study may need the same stage."""
        inside = [again for key, again in self.searched.items() if _decides(key, stage)]
        return self.always or (len(inside) < len(self.searched) and all(inside))

    def path(self, stage: Stage, study: StudyConfig, *others: object) -> Path:
        """Folder of a stage: its name is a hash of the stage's settings in the study, and of ``others``."""
        settings = {key: _plain(get_key(study, key)) for key in stage.settings}
        others = (*others, *fingerprints(study.method))
        text = json.dumps([FORMAT, stage.name, study.method.name, settings, others], sort_keys=True, default=str)
        return self.folder / f"{stage.name}-{stable_hash(text):016x}"

    def load(self, path: Path, module: nn.Module) -> History | None:
        """Load a stage's weights into the module that it trains.

        Returns:
            The metrics of its epochs, or None if there is no such stage or its files are damaged.
        """
        if not (path / ABOUT).exists():
            return None
        try:
            about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
            module.load_state_dict(load_file(path / WEIGHTS))
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            log.warning("%s: not a readable stage (%s); training it again.", path, error)
            return None
        return [{**row, "recalled": True} for row in about["history"]]

    def save(self, path: Path, module: nn.Module, history: Sequence[Mapping[str, Any]]) -> None:
        """Store the weights of a trained stage, and the metrics of its epochs."""
        weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}

        def write(beside: Path) -> None:
            save_file(weights, beside / WEIGHTS)
            (beside / ABOUT).write_text(json.dumps({"format": FORMAT, "history": list(history)}), encoding="utf-8")

        write_folder_atomically(path, write)


def _decides(key: str, stage: Stage) -> bool:
    """True if a searched key changes a stage's weights. Features change every stage."""
    return any(key == part or key.startswith(part + ".") for part in ("features", *stage.settings))


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Section) else value
