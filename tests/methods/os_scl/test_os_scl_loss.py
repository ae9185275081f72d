from __future__ import annotations

import copy
import logging
import math

import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor

from asd_ray.config.os_scl import OsSclConfig
from asd_ray.methods.base import DataInfo
from asd_ray.methods.os_scl import method as os_scl
from asd_ray.methods.os_scl.method import OsSclNetwork
from tests.methods.os_scl.os_scl_parts import CLASSES, clips, method, optimiser_of, stage_of, step

RATIO, PARTNER = 0.3, torch.tensor([1, 2, 3, 4, 5, 6, 7, 0])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)  # the networks are tiny
    torch.manual_seed(0)


def fixed_mixup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os_scl, "draw_mixup", lambda alpha, batch, device: (RATIO, PARTNER[:batch]))


def slow_loss(network: OsSclNetwork, batch: dict[str, Tensor], labels: Tensor, config: OsSclConfig) -> Tensor:
    """The published loss clip by clip, with angles instead of cosines, in fp64; batch norm as in eval mode."""
    network = network.double()
    rows = []
    for a, b in enumerate(PARTNER[: len(labels)].tolist()):
        parts = {name: column[[a, b]].double() for name, column in batch.items()}
        mel = RATIO * parts["log_mel"][0] + (1 - RATIO) * parts["log_mel"][1]
        wave = (RATIO * parts["waveform"][0] + (1 - RATIO) * parts["waveform"][1]) / 32768
        channels = [mel, *(gram(wave[None])[0] for gram in network.grams.values())]
        features = network.perturbation(network.mobilefacenet(torch.stack(channels)[None]))[0]
        rows.append(features / features.square().sum().sqrt())
    z, total = torch.stack(rows), torch.zeros((), dtype=torch.float64)
    temperature, base = config.train.temperature, config.train.base_temperature
    for i, a in enumerate(labels.tolist()):
        logits = []
        for j, weight in enumerate(network.head.weight):
            angle = torch.acos(z[i] @ weight / weight.square().sum().sqrt())
            if j == a and angle < math.pi - config.margin:
                angle = angle + config.margin
            elif j == a:
                raise AssertionError("beyond the margin's range, which test_heads covers")
            logits.append(config.scale * angle.cos())
        log_p = torch.stack(logits) - torch.logsumexp(torch.stack(logits), 0)
        total = total - RATIO * log_p[a] - (1 - RATIO) * log_p[labels[PARTNER[i]]]
        positives = [p for p in range(len(z)) if p != i and labels[p] == a]
        everyone = torch.logsumexp(torch.stack([z[i] @ z[k] / temperature for k in range(len(z)) if k != i]), 0)
        for p in positives:
            total = total - temperature / base / len(positives) * (z[i] @ z[p] / temperature - everyone)
    return total / len(labels)


def test_loss_and_gradient_equal_the_equations_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed_mixup(monkeypatch)
    stage, (batch, labels) = stage_of(method(train={"temperature": 0.1})), clips()
    stage(batch, labels)
    stage.eval()  # with the batch statistics of one step
    reference = copy.deepcopy(stage.student)
    loss, metrics = stage(batch, labels)
    expected = slow_loss(reference, batch, labels, OsSclConfig.model_validate({"train": {"temperature": 0.1}}))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert loss.item() == pytest.approx(metrics["classification"].item() + metrics["contrast"].item())
    loss.backward()
    expected.backward()
    for (name, parameter), other in zip(stage.student.named_parameters(), reference.parameters(), strict=True):
        assert parameter.grad is not None, name
        assert other.grad is not None, name
        error = (parameter.grad - other.grad).norm() / other.grad.norm()
        assert error < 2e-3, f"{name}: {error}"


def test_mixup_keeps_the_columns_apart_and_takes_one_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    x = {"log_mel": torch.tensor([[1.0], [5.0]]), "waveform": torch.tensor([[0.5], [-0.5]])}
    mixed = os_scl.mixed(x, torch.tensor([1, 0]), 0.25)
    assert mixed["log_mel"].tolist() == [[4.0], [2.0]]
    assert mixed["waveform"].tolist() == [[-0.25], [0.25]]
    drawn: list[float] = []
    monkeypatch.setattr(os_scl, "draw_mixup", lambda alpha, batch, device: (drawn.append(alpha), (1.0, PARTNER))[1])
    stage_of(method())(*clips())
    assert drawn == [0.5]
    stage_of(method({"mixup": 0}))(*clips())
    assert drawn == [0.5]


def test_without_mixup_and_contrast_it_is_the_angular_margin_alone() -> None:
    stage, (batch, labels) = stage_of(method({"mixup": 0, "contrast": 0}, margin=0.7)).eval(), clips()
    loss, metrics = stage(batch, labels)
    z = stage.student(os_scl.as_floats(batch))
    assert torch.equal(loss, nnf.cross_entropy(stage.student.head(z, labels), labels))
    assert set(metrics) == {"classification", "accuracy"}
    assert stage.student.head.margin == 0.7


def test_the_weight_of_the_contrast(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed_mixup(monkeypatch)
    stage = stage_of(method({"contrast": 0.25})).eval()
    loss, metrics = stage(*clips())
    torch.testing.assert_close(loss.detach(), metrics["classification"] + 0.25 * metrics["contrast"])


def test_the_contrast_of_two_workers_is_that_of_their_joint_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker has gradients for its own half; DistributedDataParallel averages them."""
    stage = stage_of(method())
    z, labels = nnf.normalize(torch.randn(8, 128), dim=1), torch.arange(8) % 3
    whole = z.clone().requires_grad_()
    expected = stage._contrast(whole, labels)
    expected.backward()
    assert whole.grad is not None
    monkeypatch.setattr(os_scl, "world_size", lambda: 2)
    monkeypatch.setattr(os_scl, "gather", lambda x: labels if x.ndim == 1 else z)
    for worker in range(2):
        monkeypatch.setattr(os_scl, "rank", lambda worker=worker: worker)
        part = z[4 * worker : 4 * worker + 4].clone().requires_grad_()
        loss = stage._contrast(part, labels[4 * worker : 4 * worker + 4])
        loss.backward()
        assert part.grad is not None
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(part.grad / 2, whole.grad[4 * worker : 4 * worker + 4])


# Average of the weights


@pytest.mark.parametrize("student_decay", [0.0, 0.01])
def test_average_after_three_steps_is_the_recurrences(student_decay: float) -> None:
    stage = stage_of(method({"ema": 0.9, "student_decay": student_decay}))
    assert stage.average is not None
    expected = {name: tensor.double() for name, tensor in stage.average.state_dict().items()}
    assert all(torch.equal(tensor.double(), expected[name]) for name, tensor in stage.student.state_dict().items())
    optimiser = optimiser_of(stage)
    for seed in range(3):
        loss, _ = stage(*clips(seed=seed))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        before = {name: tensor.double() for name, tensor in stage.student.state_dict().items()}
        stage.end_step(0.0)
        for name, tensor in stage.student.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                expected[name] = 0.9 * expected[name] + 0.1 * before[name]
                torch.testing.assert_close(tensor.double(), before[name] * (1 - student_decay), rtol=1e-6, atol=0)
    assert any(name.endswith("running_var") for name in expected)
    for name, tensor in stage.average.state_dict().items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-7, msg=name)


def test_the_average_scores_and_validates() -> None:
    built = method({"ema": 0.5})
    stage, (batch, labels) = stage_of(built), clips()
    assert stage.average is built.network
    step(stage, optimiser_of(stage))
    stage.eval()
    with torch.no_grad():
        z, logits = built.embed(batch)
        average, student = (network(os_scl.as_floats(batch)) for network in (stage.average, stage.student))
        assert torch.equal(z, average)
        assert not torch.allclose(z, student)
        assert torch.equal(logits, built.network.head(z))
        torch.testing.assert_close(z.norm(dim=1), torch.ones(8))
        log_p = built.network.head(z, labels).double().log_softmax(dim=1)
        total = stage.validation_loss(batch, labels)
        assert total.item() == pytest.approx(-sum(log_p[i, label].item() for i, label in enumerate(labels)), rel=1e-5)
        parts = [stage.validation_loss({k: v[s] for k, v in batch.items()}, labels[s]) for s in (slice(3), slice(3, 8))]
        assert sum(part.item() for part in parts) == pytest.approx(total.item(), rel=1e-4)


def test_without_average_the_weights_score() -> None:
    built = method({"ema": 0})
    stage = stage_of(built)
    before = built.network.head.weight.detach().clone()
    step(stage, optimiser_of(stage))
    assert not torch.equal(built.network.head.weight, before)
    stage.eval()
    with torch.no_grad():
        assert stage.validation_loss(*clips()).isfinite()


def test_an_average_that_stays_at_the_start_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    short = DataInfo(16, 24, CLASSES, 0.0, 1.0, clips=640)
    with caplog.at_level(logging.WARNING, "asd_ray"):
        method(info=short, train={"epochs": 10}).stages()
        assert "0.9999 leaves 99 % of the random start" in caplog.text
        assert "after 90 steps" in caplog.text
        caplog.clear()
        method(info=short, train={"epochs": 10, "ema": 0.9}).stages()
        method(train={"epochs": 300}).stages()
        assert not caplog.text


def test_stage_takes_its_settings_and_none_has_no_epochs() -> None:
    stage = stage_of(method({"validation": 0.2, "patience": 3, "keep": "last", "epochs": 7}))
    assert (stage.validation, stage.patience, stage.keep, stage.optimiser.epochs) == (0.2, 3, "last", 7)
    assert method({"epochs": 0}).stages() == []
    default = stage_of(method()).optimiser
    assert (default.lr, default.weight_decay, default.epochs, default.batch_size) == (1e-4, 0.01, 300, 64)
