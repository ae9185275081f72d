from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from asd_ray import scoring
from asd_ray.config import StudyConfig
from asd_ray.config.os_scl import OsSclConfig
from asd_ray.detector import detector as module
from asd_ray.detector.detector import Detector, data_info, save_detector
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.features.store import settings_of
from asd_ray.methods.base import Inputs, Method, Stage
from asd_ray.methods.registry import build
from asd_ray.scoring import Embedded
from asd_ray.scoring.thresholds import fit_thresholds
from tests.detector.tiny_detector import (
    CLASSES,
    RATE,
    embed,
    save_tiny_detector,
    tiny_manifest,
    tiny_study,
    write_recordings,
)


@pytest.fixture(scope="module")
def study() -> StudyConfig:
    return tiny_study()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    return write_recordings(tmp_path_factory.mktemp("set"))


Saved = tuple[Path, Method, Embedded]


@pytest.fixture(scope="module")
def saved(study: StudyConfig, recordings: dict[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("study") / "detector"
    return (folder, *save_tiny_detector(folder, study, recordings))


@pytest.fixture
def folder(saved: Saved, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(saved[0], tmp_path / "detector"))


def test_a_detector_is_after_loading_what_it_was_before_saving(study: StudyConfig, saved: Saved) -> None:
    folder, method, train = saved
    torch.manual_seed(99)
    detector = Detector.load(folder)
    assert detector.study == study
    assert detector.info.classes == CLASSES
    assert detector.info.features == settings_of(study.features, 0)
    assert detector.info.restored
    assert detector.kind == "knn"
    for name, tensor in method.state_dict().items():
        assert torch.equal(detector.method.state_dict()[name], tensor)
    for array in ("embedding", "group_logits", "group", "label", "domain"):
        np.testing.assert_array_equal(getattr(detector.train, array), getattr(train, array))
    assert not detector.method.training
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    assert [path.name for path in folder.parent.iterdir()] == ["detector"]


def test_thresholds_are_those_of_the_rule(study: StudyConfig, saved: Saved) -> None:
    folder, _, train = saved
    own = scoring.Scorer(train, study.evaluation).score_train(["knn"])["knn"]
    expected = fit_thresholds(own, train.group, CLASSES, study.evaluation)
    assert Detector.load(folder).thresholds == dict(zip(CLASSES, expected.tolist(), strict=False))


@pytest.fixture(scope="module")
def some(study: StudyConfig, saved: Saved, recordings: dict[Path, str]) -> tuple[dict[Path, str], Embedded]:
    files = dict(list(recordings.items())[::3])
    return files, embed(saved[1], study, files)


@pytest.mark.parametrize("kind", [kind for kind in scoring.KINDS if kind != "own"])
def test_scores_equal_the_studys_own(
    study: StudyConfig,
    saved: Saved,
    some: tuple[dict[Path, str], Embedded],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Whatever the batches and chunks: embeddings as the features of a store give them, scored by ``scoring``."""
    monkeypatch.setattr(module, "BATCH", 2)
    monkeypatch.setattr(module, "CHUNK", 5)
    folder, _, train = saved
    files, embedded = some
    expected = scoring.score_all(train, embedded, study.evaluation, [kind])[kind]
    detector = replace(Detector.load(folder), kind=kind)
    table = detector.score(files)
    assert table.columns.tolist() == ["path", "machine", "id", "score", "decision", "threshold"]
    assert table["path"].tolist() == [str(path) for path in files]
    assert (table["machine"] + "/" + table["id"]).tolist() == list(files.values())
    np.testing.assert_allclose(table["score"], expected, rtol=1e-4, atol=1e-5)
    assert table["threshold"].tolist() == [detector.thresholds[name] for name in files.values()]
    assert table["decision"].tolist() == [int(s > t) for s, t in zip(table["score"], table["threshold"], strict=True)]


def test_recordings_are_cut_and_one_channel_is_taken_as_when_features_are_built(
    saved: Saved, recordings: dict[Path, str], tmp_path: Path
) -> None:
    detector = Detector.load(saved[0])
    first = next(iter(recordings))
    samples, _ = soundfile.read(first, dtype="int16")
    soundfile.write(tmp_path / "long.wav", np.concatenate([samples, samples[:100]]), RATE)
    soundfile.write(tmp_path / "stereo.wav", np.stack([samples, samples[::-1]], axis=1), RATE)
    table = detector.score([first, tmp_path / "long.wav", tmp_path / "stereo.wav"], "fan", "00")
    assert table["score"].tolist() == pytest.approx([0, 0, 0], abs=1e-6)  # it is a training clip


class OnWaveforms(Method):
    """A method that looks at the waveform alone, and remembers what it got."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.got: list[Inputs] = []

    def stages(self) -> list[Stage]:
        return []

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        self.got.append(inputs)
        parts = inputs["waveform"].float().unflatten(1, (4, -1)).std(dim=2)
        return parts * self.scale, parts[:, :3] * self.scale


def test_a_method_of_waveforms_gets_the_samples_of_the_file(saved: Saved, recordings: dict[Path, str]) -> None:
    method = OnWaveforms()
    train = Embedded(np.eye(4, dtype=np.float32)[:3], np.eye(3, dtype=np.float32), np.arange(3))
    detector = Detector.load(saved[0])
    study = detector.study.model_copy(update={"method": OsSclConfig(inputs=("tgram",))})
    detector = replace(detector, study=study, method=method, train=train)
    first = next(iter(recordings))
    detector.score([first])
    [inputs] = method.got
    assert list(inputs) == ["waveform"]
    np.testing.assert_array_equal(inputs["waveform"][0].numpy(), soundfile.read(first, dtype="int16")[0])


def test_a_bad_recording_is_left_out_or_raised(saved: Saved, recordings: dict[Path, str], tmp_path: Path) -> None:
    detector = Detector.load(saved[0])
    good = next(iter(recordings))
    (tmp_path / "bad.wav").write_bytes(good.read_bytes()[:100])
    files = [(tmp_path / "bad.wav", "fan/00"), (good, "fan/00"), (tmp_path / "none.wav", "fan/02")]
    errors: list[AsdRayError] = []
    counts: list[int] = []
    [table] = detector.scores(files, errors.append, counts.append)
    assert table["path"].tolist() == [str(good)]
    assert [str(error).split(":")[0] for error in errors] == [str(tmp_path / "bad.wav"), str(tmp_path / "none.wav")]
    assert sum(counts) == 3
    assert list(detector.scores(files[:1], errors.append)) == []
    with pytest.raises(AsdRayError, match=r"bad\.wav"):
        detector.score([tmp_path / "bad.wav"], "fan", "00")
    with pytest.raises(ConfigError, match=r"bad\.wav: cannot tell"):
        detector.score([tmp_path / "bad.wav"])
    assert detector.score([]).columns.tolist() == list(module.COLUMNS)


def test_saving_again_replaces_the_folder_as_a_whole(
    study: StudyConfig, saved: Saved, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, method, train = saved
    manifest = tiny_manifest(study, 1)
    (folder / "left.over").write_text("")
    before = sorted(path.name for path in folder.iterdir())

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_arrays", full)
        with pytest.raises(AsdRayError, match="detector: the disk is full"):
            save_detector(folder, study, manifest, CLASSES, method, train, score="knn")
    assert sorted(path.name for path in folder.iterdir()) == before
    save_detector(folder, study, manifest, CLASSES, method, train, score="gmm")
    assert not (folder / "left.over").exists()
    assert Detector.load(folder).kind == "gmm"
    assert [path.name for path in folder.parent.iterdir()] == ["detector"]


FINE = ("fan/00", "fan/00/spd_1", "fan/00/spd_2", "fan/02/spd_1", "pump/00")


@pytest.fixture(scope="module")
def of_attributes(
    study: StudyConfig, recordings: dict[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Method, Embedded]:
    """A detector whose first ID was learned as three classes, and its second under the name of its attributes."""
    torch.manual_seed(0)
    manifest, folder = tiny_manifest(study, len(recordings)), tmp_path_factory.mktemp("fine") / "detector"
    method = build(study.method, data_info(manifest, FINE))
    train = embed(method, study, recordings, FINE)
    train = replace(train, label=np.array([0, 0, 1, 1, 1, 2, 2] + [3] * 7 + [4] * 7))
    save_detector(folder, study, manifest, FINE, method, train, score="mahalanobis")
    return folder, method, train


@pytest.mark.parametrize("kind", [kind for kind in scoring.KINDS if kind != "own"])
def test_a_detector_of_attribute_classes_scores_machines_and_ids(
    study: StudyConfig,
    of_attributes: tuple[Path, Method, Embedded],
    recordings: dict[Path, str],
    kind: str,
) -> None:
    folder, method, train = of_attributes
    detector = Detector.load(folder)
    assert (detector.info.classes, tuple(detector.info.groups)) == (FINE, CLASSES)
    np.testing.assert_array_equal(detector.train.label, train.label)
    np.testing.assert_array_equal(detector.train.group_logits, train.group_logits)
    own = scoring.Scorer(train, study.evaluation).score_train(["mahalanobis"])["mahalanobis"]
    assert detector.thresholds == dict(
        zip(CLASSES, fit_thresholds(own, train.group, CLASSES, study.evaluation).tolist(), strict=False)
    )
    files = dict(list(recordings.items())[::3])
    expected = scoring.score_all(train, embed(method, study, files, FINE), study.evaluation, [kind])[kind]
    table = replace(detector, kind=kind).score(files)
    np.testing.assert_allclose(table["score"], expected, rtol=1e-4, atol=1e-5)
    assert (table["machine"] + "/" + table["id"]).tolist() == list(files.values())
    assert table["threshold"].tolist() == [detector.thresholds[name] for name in files.values()]


def test_a_detector_of_the_format_before_is_read(folder: Path, saved: Saved, recordings: dict[Path, str]) -> None:
    files = list(recordings)[:4]
    expected = Detector.load(folder).score(files)
    edited(lambda d: d.update(format=2))(folder)
    edited(lambda d: [d["study"]["data"].pop(key) for key in ("classes", "min_class_clips")])(folder)
    changed("train.safetensors", lambda a: a.pop("learned"))(folder)
    pd.testing.assert_frame_equal(Detector.load(folder).score(files), expected)


def edited(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        document = json.loads((folder / "detector.json").read_text())
        change(document)
        (folder / "detector.json").write_text(json.dumps(document))

    return edit


def changed(name: str, change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        arrays = {key: array.copy() for key, array in load_file(folder / name).items()}
        change(arrays)
        save_file(arrays, folder / name)

    return edit


def fill(arrays: dict[str, np.ndarray], key: str, value: float) -> None:
    arrays[key].flat[0] = value


WEIGHT = "head.weight"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "detector.json").unlink(), "holds no detector"),
        (lambda folder: (folder / "detector.json").write_text("{"), "holds no detector"),
        (lambda folder: (folder / "detector.json").write_text("[]"), "format None, this version reads 2 and 3"),
        (edited(lambda d: d.update(format=99)), "a detector of format 99, this version reads 2 and 3"),
        (edited(lambda d: d.update(more=1)), r"detector\.json: more: "),
        (edited(lambda d: d["study"]["method"].update(name="magic")), r"study\.method.*no method 'magic'"),
        (edited(lambda d: d["study"]["method"]["pretrain"].update(encoder="x/y")), "encoder"),
        (edited(lambda d: d["info"].update(mean="low")), r"detector\.json: info\.mean: "),
        (edited(lambda d: d["info"].update(std=float("nan"))), r"detector\.json: info\.std: "),
        (edited(lambda d: d.update(score="best")), r"detector\.json: score: "),
        (edited(lambda d: d["thresholds"].update({"fan/00": float("inf")})), r"detector\.json: thresholds"),
        (edited(lambda d: d["thresholds"].pop("fan/00")), "thresholds are not those of the machines"),
        (edited(lambda d: d["info"].update(classes=["fan/00", "fan/02"])), "do not fit together"),
        (lambda folder: (folder / "weights.safetensors").unlink(), r"weights\.safetensors"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"\x80\x04pickle"), "do not fit together"),
        (changed("weights.safetensors", lambda a: fill(a, WEIGHT, np.nan)), "head.weight holds NaN or infinity"),
        (changed("weights.safetensors", lambda a: a.pop(WEIGHT)), "Missing key"),
        (changed("weights.safetensors", lambda a: a.update({WEIGHT: a[WEIGHT][:, 1:].copy()})), "size mismatch"),
        (changed("train.safetensors", lambda a: fill(a, "embedding", np.nan)), "embedding of 1 of 21 clips"),
        (changed("train.safetensors", lambda a: a.update(logits=a["logits"][:, :2].copy())), "do not fit together"),
        (changed("train.safetensors", lambda a: a.update(label=a["label"][1:].copy())), "as many embeddings"),
        (changed("train.safetensors", lambda a: a.update(label=a["label"].astype(np.float32))), "not clips of the 3"),
        (changed("train.safetensors", lambda a: fill(a, "label", -1)), "not clips of the 3 machines"),
        (changed("train.safetensors", lambda a: a.update(more=a["label"].copy())), "more"),
        (changed("train.safetensors", lambda a: a.pop("logits")), "logits"),
        (changed("train.safetensors", lambda a: a.update(learned=a["learned"][1:].copy())), "as many class labels"),
        (changed("train.safetensors", lambda a: a.update(learned=a["learned"] / 2)), "not clips of the 3"),
        (changed("train.safetensors", lambda a: a.update(embedding=a["embedding"][:, 0].copy())), "fit together"),
    ],
)
def test_tampered_and_foreign_content_is_refused_in_one_sentence(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(folder)
    with pytest.raises(AsdRayError, match=message) as refused:
        Detector.load(folder)
    assert str(refused.value).startswith(f"{folder}: ")
    assert "\n" not in str(refused.value)


def test_training_clips_of_another_network_are_found_when_scoring(folder: Path, recordings: dict[Path, str]) -> None:
    changed("train.safetensors", lambda a: a.update(embedding=a["embedding"][:, 1:].copy()))(folder)
    detector = Detector.load(folder)
    with pytest.raises(AsdRayError, match="not of one detector"):
        detector.score(list(recordings)[:1])
