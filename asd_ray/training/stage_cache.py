"""Trained stages under the hash of all that decided them: what one trial has trained, the others of a study take over.

A search over fine-tuning then pre-trains once, and a search over scores trains once. A stage that is taken over leaves
exactly the weights behind that its own training would have (a test holds both against each other, bit for bit): its key
has all settings of the method that it sees, the features with their clips, the classes, the seed of the run and the
number of workers.
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
from asd_ray.methods.blocks.published import fingerprint

log = logging.getLogger("asd_ray")
FORMAT = 1
WEIGHTS, ABOUT = "weights.safetensors", "stage.json"
History = list[dict[str, Any]]


def anyone(path: Path) -> None:
    """Nobody else trains: it is always our turn."""


@dataclass(frozen=True)
class StageCache:
    """Where a study keeps stages, and which are worth it.

    Attributes:
        folder: of all stages.
        searched: searched key -> whether one of its values can come again (integers and choices).
        always: keep every stage, for other studies.
        turn: called with the folder of a stage before it is trained; returns when it is there, or when nobody else is
            training it.
    """

    folder: Path
    searched: Mapping[str, bool]
    always: bool = False
    turn: Callable[[Path], None] = anyone

    def keeps(self, stage: Stage) -> bool:
        """Whether another trial of the study may want the same stage."""
        inside = [again for key, again in self.searched.items() if _decides(key, stage)]
        return self.always or (len(inside) < len(self.searched) and all(inside))

    def path(self, stage: Stage, study: StudyConfig, *others: object) -> Path:
        """Folder of a stage that the study's settings and ``others`` decide."""
        settings = {key: _plain(get_key(study, key)) for key in stage.settings}
        encoder = getattr(getattr(study.method, "pretrain", None), "init_from", None)
        if encoder is not None:  # a folder's name does not say what is in it
            others = (*others, fingerprint(Path(encoder)))
        text = json.dumps([FORMAT, stage.name, study.method.name, settings, others], sort_keys=True, default=str)
        return self.folder / f"{stage.name}-{stable_hash(text):016x}"

    def load(self, path: Path, module: nn.Module) -> History | None:
        """Puts a stage's weights into the module that it trains.

        Returns:
            The metrics of its epochs, or None if it is not there or damaged: then it has to be trained.
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
        """Keeps what a stage has trained, written beside and renamed."""
        weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}

        def write(beside: Path) -> None:
            save_file(weights, beside / WEIGHTS)
            (beside / ABOUT).write_text(json.dumps({"format": FORMAT, "history": list(history)}), encoding="utf-8")

        write_folder_atomically(path, write)


def _decides(key: str, stage: Stage) -> bool:
    """Whether a searched key changes what a stage leaves behind. Features change every stage."""
    return any(key == part or key.startswith(part + ".") for part in ("features", *stage.settings))


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Section) else value
