from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as nnf
import yaml
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from asd_ray.config.os_scl import OsSclConfig, OsSclTrainConfig
from asd_ray.methods.base import DataInfo
from asd_ray.methods.os_scl import method as os_scl
from asd_ray.training.stage_run import learning_rate_factor
from tests.methods.os_scl.os_scl_parts import CLASSES, INFO, clips, count, method, optimiser_of, stage_of, step

ALL = ("mel", "tgram", "tfgram")
SUBSETS = [subset for size in (1, 2, 3) for subset in combinations(ALL, size)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)  # the networks are tiny
    torch.manual_seed(0)


def test_parameters_are_the_published_ones_without_the_unused_layer() -> None:
    info = DataInfo(128, 313, tuple(f"machine/{number:02}" for number in range(41)), 0.0, 1.0, 10**6)
    unused_fc_out = 128 * 41 + 41
    assert count(method(info=info)) == 1_372_246 == 1_377_535 - unused_fc_out
    assert count(method(info=info, inputs=["mel"])) == 891_968 == 897_257 - unused_fc_out
    assert count(method(info=info, inputs=["mel", "tgram"])) == 891_968 + 280_406 + 64 * 9
    assert count(method(info=info, inputs=["mel", "tfgram"])) == 891_968 + 198_720 + 64 * 9


@pytest.mark.parametrize("inputs", SUBSETS, ids="+".join)
def test_every_parameter_that_is_built_is_used(inputs: tuple[str, ...]) -> None:
    stage = stage_of(method(inputs=inputs))
    assert stage.average is not None
    loss, _ = stage(*clips())
    loss.backward()
    for name, parameter in stage.student.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert not any(parameter.requires_grad for parameter in stage.average.parameters())
    assert {"tgram", "tfgram"} & set(inputs) == set(stage.student.grams)


@pytest.mark.parametrize("inputs", SUBSETS, ids="+".join)
def test_columns_are_known_before_anything_is_built_and_are_all_that_is_read(inputs: tuple[str, ...]) -> None:
    built = method(inputs=inputs)
    expected = [*(["log_mel"] if "mel" in inputs else []), *(["waveform"] if set(inputs) - {"mel"} else [])]
    assert list(built.config.columns) == expected
    batch, _ = clips()
    with torch.no_grad():
        z, logits = built.eval().embed({name: batch[name] for name in built.config.columns})
    assert (z.shape, logits.shape) == ((8, 128), (8, 3))
    assert z.dtype == logits.dtype == torch.float32


def test_channels_are_log_mel_tgram_tfgram_in_this_order() -> None:
    built, (batch, _) = method(inputs=["tfgram", "mel", "tgram"]).eval(), clips()
    seen: list[Tensor] = []
    built.network.mobilefacenet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        built.embed(batch)
        waveform = batch["waveform"] / 32768
        assert seen[0].shape == (8, 3, 16, 24)
        assert torch.equal(seen[0][:, 0], batch["log_mel"].float())  # in dB as stored, without normalisation
        for number, name in ((1, "tgram"), (2, "tfgram")):
            torch.testing.assert_close(seen[0][:, number], built.network.grams[name](waveform))
    assert waveform.abs().max() <= 1


def test_the_feature_perturbation_head() -> None:
    def layers(kind: str) -> list[Any]:
        return list(os_scl.perturbation_head(kind, 128, 64))  # type: ignore[call-overload]

    kinds = [type(layer) for layer in layers("relu")]
    assert kinds == [nn.Linear, nn.ReLU, nn.BatchNorm1d] * 2
    assert [(layer.in_features, layer.out_features) for layer in layers("relu")[::3]] == [(128, 64), (64, 128)]
    assert [layer.negative_slope for layer in layers("leaky_relu")[1::3]] == [0.01, 0.01]
    assert isinstance(os_scl.perturbation_head("none", 128, 64), nn.Identity)
    assert count(method(perturbation="relu")) - count(method(perturbation="none")) == 16_960


def test_what_has_no_part_is_not_built() -> None:
    built = method(perturbation="none", inputs=["mel"], train={"ema": 0})
    assert stage_of(built).average is None
    assert stage_of(built).student is built.network
    assert {key.split(".")[1] for key in built.state_dict()} == {"mobilefacenet", "head"}


def test_settings_that_do_not_fit_are_refused() -> None:
    for options, message in (
        ({"inputs": []}, "at least 1"),
        ({"inputs": ["mel", "mel"]}, "inputs lists mel more than once"),
        ({"inputs": ["stft"]}, "'mel', 'tgram' or 'tfgram'"),
        ({"train": {"lr": 1e-6}}, "lr_min <= lr must hold, but got 1e-05 and 1e-06"),
        ({"train": {"patience": 3, "validation": 0}}, "patience needs clips"),
        ({"train": {"student_decay": 2e-6, "ema": 0}}, "student_decay is part of the average"),
    ):
        with pytest.raises(ValidationError, match=message):
            OsSclConfig.model_validate(options)


def test_learning_rate_is_torchs_cosine_epoch_by_epoch() -> None:
    config, steps = OsSclTrainConfig(epochs=7), 5
    optimiser = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=7, eta_min=1e-5)
    factor = learning_rate_factor(config, steps)
    for epoch in range(7):
        for number in range(steps):
            assert config.lr * factor(epoch * steps + number) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        optimiser.step()
        schedule.step()
    smooth = learning_rate_factor(config.model_copy(update={"schedule": "cosine"}), steps)
    assert config.lr * smooth(35) == pytest.approx(1e-5)
    assert 1 == smooth(0) > smooth(1) > smooth(34) > 0.1


# Training


def test_a_resumed_run_is_the_uninterrupted_one() -> None:
    """All state is in parameters and buffers."""
    first = method({"ema": 0.9})
    stage = stage_of(first)
    optimiser = optimiser_of(stage)
    for seed in range(2):
        step(stage, optimiser, seed)
    torch.manual_seed(7)
    second = method({"ema": 0.9})
    resumed = stage_of(second)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(stage.state_dict())
    optimiser_again = optimiser_of(resumed)
    optimiser_again.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    assert step(stage, optimiser, 2) == step(resumed, optimiser_again, 2)
    again = resumed.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in stage.state_dict().items())
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


def test_a_detector_is_the_scoring_network_alone_and_embeds_alike() -> None:
    built = method({"ema": 0.5})
    stage = stage_of(built)
    step(stage, optimiser_of(stage))
    assert {key.split(".")[0] for key in built.state_dict()} == {"network"}
    torch.manual_seed(1)
    loaded = method({"ema": 0.5})
    loaded.load_state_dict(built.state_dict())
    with torch.no_grad():
        assert all(map(torch.equal, built.eval().embed(clips()[0]), loaded.eval().embed(clips()[0])))


@pytest.mark.parametrize(
    ("train", "options"),
    [
        ({"contrast": 0}, {}),
        ({"mixup": 0}, {}),
        ({"mixup": 0, "contrast": 0}, {"inputs": ["mel"], "perturbation": "none"}),
    ],
    ids=str,
)
def test_learns_three_classes_of_clips_that_it_has_not_seen(train: dict[str, Any], options: dict[str, Any]) -> None:
    built = method({"ema": 0.8, **train}, scale=10.0, margin=0.1, **options)
    stage = stage_of(built)
    optimiser = optimiser_of(stage.train(), lr=3e-3)
    batch, labels = clips(24, seed=100)

    def accuracy() -> float:
        with torch.no_grad():
            return (built.eval().embed(batch)[1].argmax(dim=1) == labels).float().mean().item()

    assert accuracy() < 0.7
    stage.train()
    for seed in range(30):
        step(stage, optimiser, seed)
    assert accuracy() > 0.9


@pytest.fixture
def _process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("_process_group")
def test_distributed_data_parallel_finds_every_gradient() -> None:
    """It would refuse the second step if a parameter of the stage had no part in the first's loss."""
    parallel = DistributedDataParallel(stage_of(method()), broadcast_buffers=False)
    optimiser = optimiser_of(parallel)
    assert all(math.isfinite(step(parallel, optimiser, seed)) for seed in range(3))


@pytest.mark.parametrize(("frames", "hop", "samples"), [(1, 512, 400), (9, 512, 4300), (101, 160, 16_000)])
def test_one_clip_of_any_length(frames: int, hop: int, samples: int) -> None:
    info = DataInfo(16, frames, CLASSES, 0.0, 1.0, 10**6, features={"hop_length": hop})
    built = method(info=info).eval()
    batch = {"log_mel": torch.randn(1, 16, frames).half(), "waveform": torch.randint(-999, 999, (1, samples)).short()}
    with torch.no_grad():
        z, _ = built.embed(batch)
        both, _ = built.embed({name: column.repeat(2, *[1] * (column.ndim - 1)) for name, column in batch.items()})
    assert z.shape == (1, 128)
    torch.testing.assert_close(both[1:], z, atol=1e-4, rtol=1e-3)


def test_bf16_is_used_in_the_network_and_close_to_fp32() -> None:
    built, (batch, _) = method(precision="bf16"), clips()
    stage = stage_of(built)
    optimiser = optimiser_of(stage)
    for seed in range(3):
        step(stage, optimiser, seed)
    network, seen = stage.student.eval(), []
    network.mobilefacenet.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.no_grad():
        half = network(os_scl.as_floats(batch))
        network.precision = "fp32"
        full = network(os_scl.as_floats(batch))
    assert seen == [torch.bfloat16, torch.float32]
    assert half.dtype == torch.float32
    assert nnf.cosine_similarity(half, full).min() > 0.99


# Score


def test_own_score_has_the_margin_on_the_own_class() -> None:
    built, (batch, _) = method(margin=0.7).eval(), clips(5)
    assert built.has_own_score
    names = ["fan/00", "pump/00", "fan/99", "fan/02", "pump/00"]
    with torch.no_grad():
        z, logits = built.embed(batch)
        scores = built.own_score(z, names)
    assert (scores.shape, scores.dtype) == ((5,), torch.float64)

    def score(row: list[float], label: int) -> float:
        angle = math.acos(row[label] / 30)
        assert angle < math.pi - 0.7
        logits = [30 * math.cos(angle + 0.7) if j == label else value for j, value in enumerate(row)]
        return math.log(sum(math.exp(value - logits[label]) for value in logits))

    for row, name, found in zip(logits.tolist(), names, scores.tolist(), strict=True):
        tried = [CLASSES.index(name)] if name in CLASSES else [0, 1, 2]
        assert found == pytest.approx(min(score(row, label) for label in tried), rel=1e-3)
    plain = -logits.double().log_softmax(dim=1)
    assert scores[0] > plain[0, 0]
    assert method().own_score(z[:0], []).shape == (0,)


def test_own_score_sums_over_the_classes_of_an_id() -> None:
    """With the margin on each of them, in fp64 and one after the other."""
    classes = ("fan/00", "fan/00/a", "pump/00/a", "fan/00/b", "fan/02")
    built = method(info=replace(INFO, classes=classes), margin=0.7).eval()
    z = nnf.normalize(torch.randn(6, 128), dim=1)
    with torch.no_grad():
        cosine = (z @ nnf.normalize(built.network.head.weight).T).double().tolist()
        scores = built.own_score(z, ["fan/00", "pump/00", "fan/02", "fan/99", "fan/00", "pump/00"]).tolist()

    def score(row: list[float], own: set[int]) -> float:
        s = 30.0
        powers = [math.exp(s * math.cos(math.acos(c) + (0.7 if j in own else 0))) for j, c in enumerate(row)]
        return math.log(sum(powers) / sum(powers[j] for j in own))

    groups = [{0, 1, 3}, {2}, {4}]
    for row, tried, found in zip(cosine, [[0], [1], [2], [0, 1, 2], [0], [1]], scores, strict=True):
        assert found == pytest.approx(min(score(row, groups[number]) for number in tried), rel=1e-3)


def test_without_margin_own_score_is_classification() -> None:
    built, (batch, labels) = method(margin=0.0).eval(), clips()
    with torch.no_grad():
        z, logits = built.embed(batch)
        scores = built.own_score(z, [CLASSES[label] for label in labels])
    expected = -logits.double().log_softmax(dim=1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


# Study files

COMPARATORS = Path(__file__).parents[3] / "studies" / "comparators"
CHANGED = {
    "os_scl": {},
    "os_scl_mel": {"inputs": ("mel",)},
    "os_scl_without_tfgram": {"inputs": ("mel", "tgram")},
    "os_scl_without_tgram": {"inputs": ("mel", "tfgram")},
    "os_scl_without_mixup": {"mixup": 0},
    "os_scl_without_contrast": {"contrast": 0},
    "os_scl_without_perturbation": {"perturbation": "none"},
    "os_scl_without_ema": {"ema": 0},
}


@pytest.mark.parametrize("name", CHANGED)
def test_every_ablation_takes_out_its_one_part(name: str) -> None:
    document = yaml.safe_load((COMPARATORS / f"{name}.yaml").read_text(encoding="utf-8"))
    config = OsSclConfig.model_validate(document["method"])
    default = OsSclConfig(precision="fp32")
    settings, defaults = ({**c.model_dump(exclude={"train"}), **c.train.model_dump()} for c in (config, default))
    assert {key: value for key, value in settings.items() if value != defaults[key]} == CHANGED[name]
    assert (document["name"], document["features"]["preset"]) == (name, "os_scl")


@pytest.mark.parametrize(("name", "mixup", "batch_size"), [("stgram_mfn", 0, 128), ("noisy_arcmix", 0.5, 64)])
def test_comparators_are_angular_margins_alone(name: str, mixup: float, batch_size: int) -> None:
    document = yaml.safe_load((COMPARATORS / f"{name}.yaml").read_text(encoding="utf-8"))
    config = OsSclConfig.model_validate(document["method"])
    assert (config.inputs, config.margin, config.scale, config.perturbation) == (("mel", "tgram"), 0.7, 30, "none")
    assert (config.train.mixup, config.train.contrast, config.train.ema) == (mixup, 0, 0)
    assert (config.train.lr, config.train.lr_min, config.train.batch_size) == (1e-4, 1e-5, batch_size)
