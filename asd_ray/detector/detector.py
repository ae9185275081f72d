"""A trained detector: on disk as safetensors and JSON (no pickle), and at work on recordings. Needs no Ray.

Legend: B batch, F mel bands, T frames, S samples, N training clips, D embedding, G groups (machine and ID).

A folder holds ``detector.json`` (settings, data facts, kind of score, thresholds), ``weights.safetensors`` and
``train.safetensors`` (what the network says of the training clips: k-NN and its like measure distances to them).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, cast

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
from asd_ray.data import audio
from asd_ray.detector.which_machine import tell_group
from asd_ray.errors import AsdRayError
from asd_ray.features.log_mel import LogMel, to_int16
from asd_ray.features.store import Manifest
from asd_ray.files import write_folder_atomically
from asd_ray.methods.base import DataInfo, Method, own_scores
from asd_ray.methods.registry import build
from asd_ray.scoring import Embedded, ScoreKind, Scorer, group_logits
from asd_ray.scoring.thresholds import decide, fit_thresholds

FORMAT = 3  # 2, of before classes could be finer than machine and ID, differs in nothing else
STORED = {"group_logits": "logits", "group": "label", "label": "learned"}
"""Names of :class:`Embedded`'s arrays in ``train.safetensors``, where they differ."""
READ = {stored: name for name, stored in STORED.items()}
COLUMNS = ("path", "machine", "id", "score", "decision", "threshold")
BATCH = 16  # clips in memory as waveforms and features
CHUNK = 512  # clips in memory as embeddings, and scored together


class _Description(BaseModel):
    """``detector.json``."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    format: Literal[2, 3]
    study: StudyConfig
    info: DataInfo
    score: ScoreKind
    thresholds: dict[str, float]


@dataclass(frozen=True)
class Detector:
    """A trained method with what its scores refer to.

    Attributes:
        study: resolved, with the trial's values; its ``features`` and ``data.channel`` say how a recording is read.
        info: of the data that it was trained on; ``info.groups`` are the machines and IDs that it knows.
        method: in eval mode.
        train: embeddings, logits, groups and labels of the training clips.
        kind: of its scores, one of :data:`asd_ray.scoring.KINDS`.
        thresholds: ``machine/id`` -> score above which a clip is called anomalous.
    """

    study: StudyConfig
    info: DataInfo
    method: Method
    train: Embedded
    kind: ScoreKind
    thresholds: Mapping[str, float]

    @staticmethod
    def load(folder: str | Path) -> Detector:
        """:func:`load_detector`."""
        return load_detector(Path(folder))

    def score(
        self, files: Iterable[str | Path], machine: str | None = None, machine_id: str | None = None
    ) -> pd.DataFrame:
        """Anomaly scores and decisions of recordings.

        Args:
            files: wav, flac or ogg files.
            machine, machine_id: of the files whose names do not say it (:func:`tell_group`).

        Returns:
            ``path, machine, id, score, decision, threshold`` in the order of the files. Higher scores are more
            anomalous; a decision is 1 where the score is above the threshold.

        Raises:
            AsdRayError: a file cannot be read, or it cannot be told which machine and ID it is of.
        """

        def refuse(error: AsdRayError) -> None:
            raise error

        told = [(Path(file), tell_group(Path(file), self.info.groups, machine, machine_id)) for file in files]
        parts = list(self.scores(told, refuse))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))

    def scores(
        self,
        files: Sequence[tuple[Path, str]],
        bad: Callable[[AsdRayError], None],
        done: Callable[[int], None] = lambda count: None,
    ) -> Iterator[pd.DataFrame]:
        """Scores recordings in chunks: memory does not grow with their number.

        Args:
            files: file and ``machine/id`` of each.
            bad: called with the error of a file that cannot be read; it is left out.
            done: called with a number of files whenever so many more are done with.

        Yields:
            A table as :meth:`score` for up to ``CHUNK`` files.
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
        """Scores (B,) of waveforms (B, S) as :func:`audio.read` gives them, each of a ``machine/id``."""
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
        """Embeddings (B, D) and logits (B, C) of waveforms (B, S), by way of what a feature store would hold."""
        inputs: dict[str, Tensor] = {}
        if "log_mel" in self.method.columns:
            inputs["log_mel"] = self._log_mel(torch.from_numpy(waveforms)).half()
        if "waveform" in self.method.columns:
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
    """What a method must know of a feature store, and of the number of workers that train on it."""
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
    """Writes a detector's folder, beside and then renamed: it is there as a whole or not at all.

    Args:
        folder: of the detector; what it held is replaced.
        study: with the trial's values in place.
        manifest: of the features that it was trained on.
        classes: in label order.
        method: trained.
        train: what it says of the training clips.
        score: the kind of score that counts.

    Returns:
        (G + 1,) the thresholds of that kind of score (:func:`asd_ray.scoring.thresholds.fit_thresholds`).
    """
    kind = cast(ScoreKind, score)
    own = Scorer(train, study.evaluation).score_train([kind])[kind]
    info = data_info(manifest, classes)
    thresholds = fit_thresholds(own, train.group, info.groups, study.evaluation)
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in method.state_dict().items()}
    arrays = {STORED.get(name, name): np.ascontiguousarray(array) for name, array in asdict(train).items()}
    description = _Description(
        format=FORMAT,
        study=study,
        info=info,
        score=kind,
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


def load_detector(folder: Path) -> Detector:
    """Reads a detector's folder, which may come from anywhere: nothing in it is executed.

    Raises:
        AsdRayError: the folder holds no detector, one of another version, or files that do not fit together.
    """
    try:
        document = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AsdRayError(f"{folder}: holds no detector ({error}); a finished study has one in detector/.") from None
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
        train = Embedded(**{READ.get(name, name): a for name, a in load_arrays(folder / "train.safetensors").items()})
    except (OSError, RuntimeError, TypeError, ValueError, SafetensorError, AsdRayError) as error:
        raise _misfit(folder, " ".join(str(error).split())[:300]) from None
    fits = train.group_logits.shape[1] == len(info.groups) and train.group.dtype.kind == train.label.dtype.kind == "i"
    if not (fits and len(train.group) and train.group.min() >= 0):
        raise _misfit(folder, f"train.safetensors: not clips of the {len(info.groups)} machines and IDs")
    return Detector(description.study, info, method.eval(), train, description.score, description.thresholds)


def _misfit(folder: Path, what: str) -> AsdRayError:
    return AsdRayError(f"{folder}: the detector's files do not fit together ({what}); copy or train it again.")
