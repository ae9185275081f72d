"""Save a pre-trained encoder in a folder, to publish it or to start another training from it.

``model.safetensors`` holds the weights under timm's own names, in fp32 whatever precision they were trained in;
``config.json`` describes them: architecture, input, features, normalisation, settings of the pre-training. Read such a
folder without asd_ray (unless the architecture is ``mobilefacenet``) by::

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
NO_MATTER = ("channel",)  # the microphone makes no difference to the network's input


def save_encoder(folder: Path, encoder: Network, study: Mapping[str, Any], info: DataInfo) -> None:
    """Write the folder of an encoder, or overwrite it.

    Of the study it contains the name, the seed and the settings of the pre-training, but no path of this computer.

    Args:
        folder: is created if it does not exist.
        encoder: on any device, in any precision.
        study: resolved, with the trial's values; as ``StudyConfig.model_dump(mode="json")`` gives it.
        info: description of the pre-training data.
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
        # Two files cannot be replaced at once. The hash tells whether both are of the same encoder.
        "sha256": _sha256(folder / WEIGHTS),
    }
    write_text(folder / CONFIG, json.dumps(config, indent=1, ensure_ascii=False))


def load_encoder(folder: Path, encoder: Network, info: DataInfo) -> None:
    """Load the weights of a saved encoder into ``encoder``, for ``method.pretrain.init_from``.

    The pre-norm is not loaded: it standardises the new data, as the saved encoder's did its own data.

    A method calls this if it is built to be trained, but not if ``info.restored`` is set: a saved detector has all
    weights, and the encoder's folder may be gone.

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
    """Read the hash of a saved encoder's weights.

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
