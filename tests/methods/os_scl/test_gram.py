from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as nnf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from asd_ray.methods.os_scl.gram import TFgram, Tgram


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shaken(module: nn.Module) -> nn.Module:
    """With batch and layer norms that do something, also in eval mode."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.normal_(child.running_mean, std=0.1)
            nn.init.uniform_(child.running_var, 0.5, 2)
        if isinstance(child, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.normal_(child.weight, 1, 0.2)
            nn.init.normal_(child.bias, std=0.2)
    return module


def test_parameters_layer_by_layer() -> None:
    tgram, tfgram = Tgram(128, 313), TFgram(128, 313)
    assert count(tgram.extract) == 128 * 1024
    assert count(tgram.encode) == 3 * (2 * 313 + 3 * 128 * 128)
    assert count(tgram) == 280_406
    blocks = [2 * 3 * 64 * 64 + 2 * 128, 3 * 64 * 128 + 3 * 128 * 128 + 2 * 256, 2 * 3 * 128 * 128 + 2 * 256]
    assert count(tfgram.stem) == 11 * 64 + 128
    assert [count(block) for block in tfgram.blocks] == blocks
    assert count(tfgram) == 198_720 == count(TFgram(128, 7))


def test_shapes_at_ten_seconds() -> None:
    tgram, tfgram, shapes = Tgram(128, 313), TFgram(128, 313), []
    layers = [tgram.extract, *tgram.encode, tfgram.stem, *tfgram.blocks]
    for layer in layers:
        layer.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    x = torch.randn(1, 160_000)
    with torch.no_grad():
        assert tgram(x).shape == tfgram.eval()(x).shape == (1, 128, 313)
    in_blocks = [(64, 1, 32_000), (64, 1, 32_000), (128, 1, 8_000), (128, 1, 626)]
    assert shapes == [(128, 313)] * 10 + in_blocks


def test_tgram_equals_its_layers_written_out() -> None:
    tgram = shaken(Tgram(4, 6, hop_length=300)).double()
    assert isinstance(tgram, Tgram)
    x = torch.randn(2, 1700, dtype=torch.float64)
    padded = nnf.pad(x, (512, 512))
    y = torch.stack([padded[:, 300 * t : 300 * t + 1024] @ tgram.extract.weight[:, 0].T for t in range(6)], dim=2)
    for norm, _, convolution in zip(*[iter(tgram.encode)] * 3, strict=True):
        mean, variance = y.mean(dim=2, keepdim=True), y.var(dim=2, correction=0, keepdim=True)
        y = (y - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias
        y = torch.where(y > 0, y, 0.2 * y)
        sides = nnf.pad(y, (1, 1))
        y = sum(torch.einsum("of,bft->bot", convolution.weight[:, :, k], sides[:, :, k : k + 6]) for k in range(3))
    torch.testing.assert_close(tgram(x), y)


def published_tfgram(tfgram: TFgram, x: Tensor) -> Tensor:
    """TFgram of 1-d convolutions, as published, in the mode and with the weights of ``tfgram``."""

    def layer(convolution: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
        dilation, stride = convolution.dilation[1], convolution.stride[1]
        weight = convolution.weight.squeeze(2)
        x = nnf.conv1d(x, weight, None, stride, dilation * (weight.shape[2] // 2), dilation)
        if norm.training:
            mean, variance = x.mean(dim=(0, 2)), x.var(dim=(0, 2), correction=0)
        else:
            mean, variance = norm.running_mean, norm.running_var
        x = (x - mean[:, None]) / (variance[:, None] + 1e-5).sqrt() * norm.weight[:, None] + norm.bias[:, None]
        return x.clamp(min=0)

    x = layer(tfgram.stem[0], tfgram.stem[1], x[:, None])
    for number, block in enumerate(tfgram.blocks):
        x = layer(block[3], block[4], layer(block[0], block[1], x))
        x = nnf.max_pool1d(x, 4) if number == 0 else nnf.adaptive_max_pool1d(x, tfgram.frames * (3 - number))
    return x


@pytest.mark.parametrize("training", [True, False])
def test_tfgram_and_its_gradient_equal_the_published_one(training: bool) -> None:
    tfgram = shaken(TFgram(16, 7)).double().train(training).to(memory_format=torch.channels_last)
    assert isinstance(tfgram, TFgram)
    reference = copy.deepcopy(tfgram)
    x = torch.randn(3, 1500, dtype=torch.float64)
    weights = torch.randn(3, 16, 7, dtype=torch.float64)
    y, expected = tfgram(x), published_tfgram(reference, x)
    torch.testing.assert_close(y, expected)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    for (name, parameter), other in zip(tfgram.named_parameters(), reference.parameters(), strict=True):
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
        torch.testing.assert_close(parameter.grad, other.grad, msg=name)


@settings(deadline=None, max_examples=25)
@given(samples=st.integers(20, 6000), hop=st.integers(50, 700), n_mels=st.integers(1, 12), batch=st.integers(1, 3))
def test_any_length_in_the_shape_of_the_log_mel(samples: int, hop: int, n_mels: int, batch: int) -> None:
    frames = 1 + samples // hop
    x = torch.randn(batch, samples)
    with torch.no_grad():
        assert Tgram(n_mels, frames, hop)(x).shape == (batch, n_mels, frames)
        assert TFgram(n_mels, frames).eval()(x).shape == (batch, n_mels, frames)


def test_a_clip_alone_is_what_it_is_in_a_batch() -> None:
    x = torch.randn(3, 4000)
    for network in (Tgram(8, 8), shaken(TFgram(8, 8)).eval()):
        with torch.no_grad():
            torch.testing.assert_close(network(x[1:2]), network(x)[1:2], atol=1e-5, rtol=1e-4)


def test_initial_weights_of_tfgram_are_glorots() -> None:
    for module in TFgram(128, 313).modules():
        if isinstance(module, nn.Conv2d):
            outputs, inputs, _, kernel = module.weight.shape
            bound = math.sqrt(6 / (kernel * (inputs + outputs)))
            assert 0.95 * bound < module.weight.abs().max().item() <= bound
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
