"""A trained detector: save it, load it, score recordings. Needs no Ray.

Legend: B batch, F mel bands, T frames, S samples, N training clips, D embedding, G groups (machine and ID).

Its folder has no pickle: ``detector.json`` (study, facts about the data, kind of score, thresholds),
``weights.safetensors``, and ``train.safetensors`` (embeddings and logits of the training clips, to which k-NN and other
scores measure distances).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor

from asd_ray.config import StudyConfig
from asd_ray.config.evaluation import ScoreKind
from asd_ray.data import audio
from asd_ray.detector.which_machine import infer_group
from asd_ray.errors import AsdRayError
from asd_ray.features.log_mel import LogMel, to_int16
from asd_ray.features.store import Manifest
from asd_ray.files import write_folder_atomically
from asd_ray.methods.base import DataInfo, Method, own_scores
from asd_ray.methods.registry import build
from asd_ray.scoring import Embedded, Scorer, group_logits
from asd_ray.scoring.thresholds import decide, fit_thresholds

FORMAT = 3  # format 2 is the same; it was written before classes could be finer than machine and ID
STORED = {"group_logits": "logits", "group": "label", "label": "learned"}
"""Names of :class:`Embedded`'s arrays in ``train.safetensors``, where they differ."""
READ = {stored: name for name, stored in STORED.items()}
COLUMNS = ("path", "machine", "id", "score", "decision", "threshold")
BATCH = 16  # clips whose waveforms and features are in memory
CHUNK = 512  # clips whose embeddings are in memory; they are scored together


class _Description(BaseModel):
    """The content of ``detector.json``."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    format: Literal[2, 3]
    study: StudyConfig
    info: DataInfo
    score: ScoreKind
    thresholds: dict[str, float]


@dataclass(frozen=True)
class Detector:
    """A trained method, with the training clips and thresholds that its scores need.

    Attributes:
        study: the study with the trial's values. Its ``features`` and ``data.channel`` say how to read a recording.
        info: facts about the training data; ``info.groups`` are the machines and IDs that the detector knows.
        method: in eval mode.
        train: embeddings, logits, groups and labels of the training clips.
        kind: of its scores, one of :data:`asd_ray.registry.SCORES`.
        thresholds: ``machine/id`` -> score above which a clip is called anomalous.
    """

    study: StudyConfig
    info: DataInfo
    method: Method
    train: Embedded
    kind: str
    thresholds: Mapping[str, float]

    @staticmethod
    def load(folder: str | Path) -> Detector:
        """Load a detector from its folder, which may come from anywhere: nothing in it is executed.

        Args:
            folder: ``detector/`` in a study folder.

        Raises:
            AsdRayError: the folder holds no detector, one of another version, or files that do not fit together.

        Example:
            >>> detector = Detector.load("runs/first/detector")
            >>> detector.score(["fan/test/normal_id_00_00000000.wav"])
        """
        folder = Path(folder)
        try:
            document = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise AsdRayError(
                f"{folder}: holds no detector ({error}); a finished study has one in detector/."
            ) from None
        found = document.get("format") if isinstance(document, dict) else None
        if found not in (2, FORMAT):
            raise AsdRayError(
                f"{folder}: holds a detector of format {found}, this version reads 2 and {FORMAT}; train it again."
            )
        try:
            description = _Description.model_validate(document)
        except ValidationError as error:
            detail = error.errors()[0]
            raise _misfit(folder, f"detector.json: {'.'.join(map(str, detail['loc']))}: {detail['msg']}") from None
        info = replace(description.info, restored=True)
        if set(description.thresholds) != set(info.groups):
            raise _misfit(folder, "detector.json: the thresholds are not those of the machines and IDs")
        try:
            method = build(description.study.method, info)
            weights = load_file(folder / "weights.safetensors")
            if bad := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
                raise AsdRayError(f"weights.safetensors: {bad[0]} holds NaN or infinity")
            method.load_state_dict(weights)
            train = Embedded(
                **{READ.get(name, name): a for name, a in load_arrays(folder / "train.safetensors").items()}
            )
        except (OSError, RuntimeError, TypeError, ValueError, SafetensorError, AsdRayError) as error:
            raise _misfit(folder, " ".join(str(error).split())[:300]) from None
        fits = (
            train.group_logits.shape[1] == len(info.groups) and train.group.dtype.kind == train.label.dtype.kind == "i"
        )
        if not (fits and len(train.group) and train.group.min() >= 0):
            raise _misfit(folder, f"train.safetensors: not clips of the {len(info.groups)} machines and IDs")
        return Detector(description.study, info, method.eval(), train, description.score, description.thresholds)

    def score(self, paths: Iterable[str | Path], machine: str | None = None, id: str | None = None) -> pd.DataFrame:
        """Score recordings and decide which are anomalous.

        Args:
            paths: wav, flac or ogg files.
            machine, id: of the files whose paths do not name them (:func:`infer_group`).

        Returns:
            ``path, machine, id, score, decision, threshold``, one row per file in the given order. Higher scores are
            more anomalous; a decision is 1 where the score is above the threshold.

        Raises:
            AsdRayError: a file cannot be read.
            ConfigError: the machine and ID of a file are not clear.

        Example:
            >>> table = detector.score(["recording.wav"], machine="fan", id="00")
            >>> table.loc[table["decision"] == 1, "path"]
        """

        def refuse(error: AsdRayError) -> None:
            raise error

        files = [(Path(path), infer_group(Path(path), self.info.groups, machine, id)) for path in paths]
        parts = list(self.scores(files, refuse))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))

    def scores(
        self,
        files: Sequence[tuple[Path, str]],
        bad: Callable[[AsdRayError], None],
        done: Callable[[int], None] = lambda count: None,
    ) -> Iterator[pd.DataFrame]:
        """Score recordings in chunks, so that memory does not grow with their number.

        Args:
            files: each file with its ``machine/id``.
            bad: called with the error of a file that cannot be read; the file is left out.
            done: called with the number of files that were finished since the last call.

        Yields:
            A table as from :meth:`score`, of up to ``CHUNK`` files.
        """
        for start in range(0, len(files), CHUNK):
            chunk = files[start : start + CHUNK]
            read: list[tuple[Path, str]] = []
            outputs: list[tuple[Tensor, Tensor]] = []
            for first in range(0, len(chunk), BATCH):
                batch = chunk[first : first + BATCH]
                waveforms = []
                for path, name in batch:
                    try:
                        waveforms.append(self._read(path))
                        read.append((path, name))
                    except AsdRayError as error:
                        bad(error)
                if waveforms:
                    outputs.append(self._embed(np.stack(waveforms)))
                done(len(batch))
            if read:
                yield self._table(read, outputs)

    def score_waveforms(self, waveforms: NDArray[np.float32], groups: Sequence[str]) -> NDArray[np.float64]:
        """Compute scores (B,) of waveforms (B, S) from :func:`audio.read`, each with its ``machine/id``."""
        return self._table([(Path(), group) for group in groups], [self._embed(waveforms)])["score"].to_numpy()

    @cached_property
    def _scorer(self) -> Scorer:
        return Scorer(self.train, self.study.evaluation)

    @cached_property
    def _log_mel(self) -> LogMel:
        return LogMel(self.study.features)

    def _read(self, path: Path) -> np.ndarray:
        features = self.study.features
        return audio.read(path, features.sample_rate, features.seconds, channel=self.study.data.channel)

    @torch.inference_mode()
    def _embed(self, waveforms: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        """Compute embeddings (B, D) and logits (B, C) of waveforms (B, S), with the precision of a feature store."""
        inputs: dict[str, Tensor] = {}
        if "log_mel" in self.study.method.columns:
            inputs["log_mel"] = self._log_mel(torch.from_numpy(waveforms)).half()
        if "waveform" in self.study.method.columns:
            inputs["waveform"] = torch.from_numpy(to_int16(waveforms))
        device = next(self.method.parameters()).device
        embedding, logits = self.method.embed({name: column.to(device) for name, column in inputs.items()})
        return embedding.float().cpu(), logits.float().cpu()

    def _table(self, files: Sequence[tuple[Path, str]], outputs: Sequence[tuple[Tensor, Tensor]]) -> pd.DataFrame:
        numbers = {name: number for number, name in enumerate(self.info.groups)}
        embedding, logits = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        if embedding.shape[1] != self.train.embedding.shape[1]:
            raise AsdRayError(
                f"The detector's network gives {embedding.shape[1]} dimensions, its training clips have "
                f"{self.train.embedding.shape[1]}: its files are not of one detector; copy or train it again."
            )
        names = [name for _, name in files]
        group = np.array([numbers[name] for name in names])
        own = own_scores(self.method, embedding, names).numpy()
        test = Embedded(embedding.numpy(), group_logits(logits, self.info.classes).numpy(), group, own=own)
        scores = self._scorer.score(test, [self.kind])[self.kind]
        thresholds = np.array([self.thresholds[name] for _, name in files])
        machines, ids = zip(*(name.split("/", 1) for _, name in files), strict=True)
        values = [
            [str(path) for path, _ in files],
            machines,
            ids,
            scores,
            decide(scores, thresholds),
            thresholds,
        ]
        return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


def data_info(manifest: Manifest, classes: Sequence[str], workers: int = 1) -> DataInfo:
    """Collect the facts about a feature store that a method needs, and the number of workers that train."""
    n_mels, frames = manifest.shape
    return DataInfo(
        n_mels=n_mels,
        frames=frames,
        classes=tuple(classes),
        mean=manifest.mean,
        std=manifest.std,
        clips=manifest.counts["train"],
        workers=workers,
        extra_clips=manifest.counts.get("extra", 0),
        features=manifest.settings,
    )


def save_detector(
    folder: Path,
    study: StudyConfig,
    manifest: Manifest,
    classes: Sequence[str],
    method: Method,
    train: Embedded,
    score: str,
) -> NDArray[np.float64]:
    """Write a detector's folder, as a whole or not at all.

    Args:
        folder: of the detector; its former content is replaced.
        study: the study with the trial's values.
        manifest: of the features that the method was trained on.
        classes: class names in label order.
        method: the trained method.
        train: embeddings and logits of the training clips.
        score: the kind of score that the detector uses.

    Returns:
        (G + 1,) the thresholds of that score (:func:`asd_ray.scoring.thresholds.fit_thresholds`).
    """
    own = Scorer(train, study.evaluation).score_train([score])[score]
    info = data_info(manifest, classes)
    thresholds = fit_thresholds(own, train.group, info.groups, study.evaluation)
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in method.state_dict().items()}
    arrays = {STORED.get(name, name): np.ascontiguousarray(array) for name, array in asdict(train).items()}
    description = _Description(
        format=FORMAT,
        study=study,
        info=info,
        score=score,
        thresholds=dict(zip(info.groups, thresholds.tolist(), strict=False)),
    )

    def write(beside: Path) -> None:
        save_file(weights, beside / "weights.safetensors")
        save_arrays(arrays, beside / "train.safetensors")
        (beside / "detector.json").write_text(description.model_dump_json(indent=1), encoding="utf-8")

    try:
        write_folder_atomically(folder, write)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AsdRayError(f"{folder}: the detector cannot be written ({reason}).") from None
    return thresholds


def _misfit(folder: Path, what: str) -> AsdRayError:
    return AsdRayError(f"{folder}: the detector's files do not fit together ({what}); copy or train it again.")
