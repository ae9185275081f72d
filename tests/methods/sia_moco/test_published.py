from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from asd_ray.config import FeatureConfig, StudyConfig
from asd_ray.errors import ConfigError
from asd_ray.features.store import settings_of
from asd_ray.methods.base import DataInfo
from asd_ray.methods.blocks.networks import Network
from asd_ray.methods.sia_moco.published import load_encoder, save_encoder

FEATURES = FeatureConfig(n_mels=32, seconds=1.25)
INFO = DataInfo(
    n_mels=32, frames=40, classes=("fan/00",), mean=-5.0, std=3.0, clips=24, features=settings_of(FEATURES, 0)
)


def an_encoder(seed: int, name: str = "test_resnet", precision: str = "fp32") -> Network:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    encoder = Network(name, 32, 40, precision=precision)
    with torch.no_grad():
        encoder(torch.randn(4, 32, 40))  # moves batch norm's statistics from where they start
    return encoder


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    study = StudyConfig.model_validate(
        {
            "name": "pre-training",
            "data": {"layout": "dcase2020", "root": "/home/someone/secret"},
            "method": {"pretrain": {"encoder": "test_resnet", "alpha": 0.3, "init_from": "/home/someone/secret/first"}},
        }
    )
    save_encoder(tmp_path / "encoder", an_encoder(0), study.model_dump(mode="json"), INFO)
    return tmp_path / "encoder"


def test_a_loaded_encoder_equals_the_saved_one(saved: Path) -> None:
    encoder, x = an_encoder(1, precision="bf16"), torch.randn(3, 32, 40)
    load_encoder(saved, encoder, INFO)
    encoder.precision = "fp32"
    assert torch.equal(encoder.eval()(x), an_encoder(0).eval()(x))
    assert encoder.network.conv1[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_the_folder_is_complete_for_others_and_says_nothing_of_this_computer(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    text = (saved / "config.json").read_text()
    assert "secret/" not in text
    assert "/home" not in text
    config = json.loads(text)
    assert (config["mean"], config["std"], config["num_features"]) == (-5.0, 3.0, 96)
    assert config["features"]["n_fft"] == 1024
    assert config["study"]["pretrain"]["alpha"] == 0.3
    network = timm.create_model(config["architecture"], in_chans=1, num_classes=0).eval()
    network.load_state_dict(load_file(saved / "model.safetensors"))
    x = torch.randn(2, 32, 40)
    torch.testing.assert_close(network(x[:, None]), an_encoder(0).eval()(x))


def test_saving_again_replaces_and_keeps_nothing(saved: Path) -> None:
    save_encoder(saved, an_encoder(2), StudyConfig(name="x").model_dump(mode="json"), INFO)
    encoder = an_encoder(1)
    load_encoder(saved, encoder, INFO)
    assert all(map(torch.equal, encoder.state_dict().values(), an_encoder(2).state_dict().values()))


def test_another_architecture_is_refused(saved: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a test_resnet, but method\.pretrain\.encoder is test_byobnet"):
        load_encoder(saved, an_encoder(1, "test_byobnet"), INFO)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"log": "db", "n_fft": 2048}, "log is natural there and db here, n_fft is 1024 there and 2048 here;"),
        ({"n_mels": 64}, "n_mels is 32 there and 64 here;"),
        ({"seconds": 2.0}, "frames is 40 there and 63 here, seconds is 1.25 there and 2.0 here;"),
    ],
)
def test_other_features_are_refused_by_name(saved: Path, other: dict[str, Any], expected: str) -> None:
    features = FEATURES.model_copy(update=other)
    info = replace(
        INFO, n_mels=features.n_mels, frames=features.frames, features=settings_of(features, 0), mean=1.0, std=2.0
    )
    with pytest.raises(ConfigError, match=rf"is for other features: {expected}"):
        load_encoder(saved, an_encoder(1), info)


def test_other_recordings_with_the_same_features_are_welcome(saved: Path) -> None:
    load_encoder(
        saved, an_encoder(1), replace(INFO, mean=1.0, std=2.0, clips=7, features=settings_of(FEATURES, "mean"))
    )
    load_encoder(saved, an_encoder(1), replace(INFO, features={}))  # unknown: only the shape is compared
    with pytest.raises(ConfigError, match="frames is 40 there and 41 here"):
        load_encoder(saved, an_encoder(1), replace(INFO, frames=41, features={}))


def change(**entries: Any) -> Callable[[Path], object]:
    def write(folder: Path) -> object:
        config = {**json.loads((folder / "config.json").read_text()), **entries}
        config = {key: value for key, value in config.items() if value is not None}
        return (folder / "config.json").write_text(json.dumps(config))

    return write


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"cannot read config\.json \(No such file"),
        (lambda folder: (folder / "config.json").write_text("{"), r"is unknown: config\.json is not JSON"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff"), r"is unknown: config\.json is not JSON"),
        (lambda folder: (folder / "config.json").write_text("[1]"), r"not one that asd_ray saved"),
        (change(kind="ResNetForImageClassification"), r"not one that asd_ray saved"),
        (change(format=2), r"of format 2, but this version of asd_ray reads format 1"),
        (change(sha256=None, frames=None), r"not complete: config\.json lacks frames, sha256"),
        (change(features=[]), r"not complete: config\.json lacks features"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"not readable: model\.safetensors: .*No such file"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 100),
            r"damaged: model\.safetensors is not the file",
        ),
        (lambda folder: save_file({"a": torch.zeros(2)}, folder / "model.safetensors"), r"is damaged: "),
    ],
)
def test_what_is_no_encoder_is_refused(saved: Path, damage: Callable[[Path], object], expected: str) -> None:
    damage(saved)
    encoder = an_encoder(1)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(ConfigError, match=rf"method\.pretrain\.init_from: .*{expected}") as error:
        load_encoder(saved, encoder, INFO)
    assert "\n" not in str(error.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())


def test_weights_that_do_not_fit_are_refused_whole(saved: Path) -> None:
    """Another version of timm: some tensor has another name or shape."""
    encoder = an_encoder(1)
    encoder.network.conv1[0].weight = torch.nn.Parameter(torch.zeros(3, 1, 3, 3))
    before = encoder.network.layer4[0].conv1.weight.clone()
    with pytest.raises(ConfigError, match=r"another version of timm: 1 of its tensors do not fit, conv1\.0\.weight"):
        load_encoder(saved, encoder, INFO)
    assert torch.equal(encoder.network.layer4[0].conv1.weight, before)


def test_a_valid_hash_of_something_else_is_refused(saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"\x80\x04 pickled")
    change(sha256=hashlib.sha256(b"\x80\x04 pickled").hexdigest())(saved)
    with pytest.raises(ConfigError, match=r"not readable: model\.safetensors"):
        load_encoder(saved, an_encoder(1), INFO)
