"""A pre-trained encoder as a folder that can be published, and started from.

``model.safetensors`` holds the weights under timm's own names, in fp32 whatever precision they were trained in;
``config.json`` says what they are: architecture, input, features and normalisation, the settings of the pre-training.
Without asd_ray such a folder is read by::

    network = timm.create_model(config["architecture"], in_chans=1, num_classes=0)
    network.load_state_dict(safetensors.torch.load_file("model.safetensors"))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from asd_ray.errors import ConfigError
from asd_ray.files import shown, write_atomically, write_text
from asd_ray.methods.base import DataInfo
from asd_ray.methods.blocks.networks import Network

KIND = "asd_ray encoder"
FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
NO_MATTER = ("channel",)  # which microphone was listened to says nothing about what the network takes


def save_encoder(folder: Path, encoder: Network, study: Mapping[str, Any], info: DataInfo) -> None:
    """Writes an encoder's folder, in place of what is there.

    Of the study only name, seed and the settings of the pre-training are written, and no path of this computer.

    Args:
        folder: is made where there is none.
        encoder: on any device, in any precision.
        study: resolved, with the trial's values; as ``StudyConfig.model_dump(mode="json")`` gives it.
        info: of the data that it was pre-trained on.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.network.state_dict().items()}
    pretrain = dict(study["method"]["pretrain"])
    if pretrain.get("init_from"):
        pretrain["init_from"] = Path(pretrain["init_from"]).name
    write_atomically(folder / WEIGHTS, lambda beside: save_file(weights, beside))
    config = {
        "kind": KIND,
        "format": FORMAT,
        "architecture": encoder.name,
        "n_mels": info.n_mels,
        "frames": info.frames,
        "num_features": encoder.num_features,
        "features": dict(info.features),
        "mean": info.mean,
        "std": info.std,
        "clips": info.clips,
        "extra_clips": info.extra_clips,
        "study": {"name": study["name"], "seed": study["seed"], "pretrain": pretrain},
        # Two files cannot be replaced at once: with the weights' hash, halves of two encoders are never taken for one.
        "sha256": _sha256(folder / WEIGHTS),
    }
    write_text(folder / CONFIG, json.dumps(config, indent=1, ensure_ascii=False))


def load_encoder(folder: Path, encoder: Network, info: DataInfo) -> None:
    """Puts the weights of a saved encoder into ``encoder``: what ``method.pretrain.init_from`` asks for.

    The pre-norm stays that of ``info``'s data: both data sets reach the network with mean 0 and standard deviation 1.

    Call it where a method is built that is going to be trained. A saved detector has all weights itself, and the folder
    may be gone by then: its loader builds the method with ``info.restored`` set, and a method then leaves this out.

    Raises:
        ConfigError: there is no encoder in the folder, it is damaged, of another architecture, or for other features.
    """
    config = _read_config(folder)
    if config["architecture"] != encoder.name:
        raise _refusal(
            folder,
            f"a {config['architecture']}, but method.pretrain.encoder is {encoder.name}; set it to the former or "
            "choose another folder",
        )
    here = {**info.features, "n_mels": info.n_mels, "frames": info.frames}
    there = {**config["features"], "n_mels": config["n_mels"], "frames": config["frames"]}
    if not info.features:
        there = {key: there[key] for key in here}
    differing = sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key))
    if differing := [key for key in differing if key not in NO_MATTER]:
        found = ", ".join(f"{key} is {there.get(key)} there and {here.get(key)} here" for key in differing)
        raise _refusal(folder, f"for other features: {found}; set features as they are there or choose another folder")
    weights = _read_weights(folder, config["sha256"])
    expected = encoder.network.state_dict()
    wrong = sorted(name for name in expected.keys() | weights.keys() if not _same_shape(expected, weights, name))
    if wrong:
        raise _refusal(
            folder,
            f"a {encoder.name} of another version of timm: {len(wrong)} of its tensors do not fit, {wrong[0]} the "
            "first; install the timm that it was saved with or choose another folder",
        )
    encoder.network.load_state_dict(weights)


def fingerprint(folder: Path) -> str:
    """The hash of a saved encoder's weights.

    Raises:
        ConfigError: there is no encoder in the folder.
    """
    return str(_read_config(folder)["sha256"])


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"method.pretrain.init_from: {shown(folder)}: cannot read {CONFIG} ({error.strerror}); name a folder with "
            f"a saved encoder, {CONFIG} and {WEIGHTS}."
        ) from None
    except ValueError:
        raise _refusal(folder, f"unknown: {CONFIG} is not JSON; choose another folder") from None
    if not isinstance(config, dict) or config.get("kind") != KIND:
        raise _refusal(folder, f"not one that asd_ray saved: {CONFIG} does not say {KIND!r}; choose another folder")
    if config.get("format") != FORMAT:
        raise _refusal(
            folder, f"of format {config.get('format')}, but this version of asd_ray reads format {FORMAT}; save it anew"
        )
    lacking = [key for key in ("architecture", "n_mels", "frames", "features", "sha256") if key not in config]
    if lacking or not isinstance(config["features"], dict):
        raise _refusal(
            folder, f"not complete: {CONFIG} lacks {', '.join(lacking) or 'features'}; choose another folder"
        )
    return config


def _read_weights(folder: Path, sha256: str) -> dict[str, Tensor]:
    try:
        if _sha256(folder / WEIGHTS) != sha256:
            raise _refusal(
                folder, f"damaged: {WEIGHTS} is not the file that {CONFIG} was written for; copy or save it anew"
            )
        return load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise _refusal(folder, f"not readable: {WEIGHTS}: {error}; copy or save it anew") from None


def _same_shape(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], name: str) -> bool:
    return name in expected and name in weights and expected[name].shape == weights[name].shape


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _refusal(folder: Path, what: str) -> ConfigError:
    return ConfigError(f"method.pretrain.init_from: the encoder in {shown(folder)} is {what}.")
