from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from asd_ray.methods.blocks.cpu_layers import StridedDepthwise
from asd_ray.methods.blocks.heads import ArcFaceHead
from asd_ray.methods.blocks.mobilefacenet import Bottleneck, MobileFaceNet


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_shapes_at_128_mel_bands_and_313_frames() -> None:
    network, shapes = MobileFaceNet(1, 128, 313).eval(), []

    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        shapes.append(tuple(output.shape[1:]))

    layers = [network.stem, network.depthwise, *network.blocks, network.expand, network.global_depthwise]
    for layer in layers:
        layer.register_forward_hook(note)
    with torch.no_grad():
        assert network(torch.randn(2, 1, 128, 313)).shape == (2, 128) == (2, network.num_features)
    assert shapes == [
        (64, 64, 157),
        (64, 64, 157),
        *[(128, 32, 79)] * 2,
        *[(128, 16, 40)] * 2,
        *[(128, 8, 20)] * 2,
        (512, 8, 20),
        (512, 1, 1),
    ]


def test_parameters_layer_by_layer() -> None:
    """Weights of each convolution, scale and shift of its batch norm, and slopes where it has a PReLU."""
    network = MobileFaceNet(1, 128, 313)

    def bottleneck(inputs: int, hidden: int) -> int:
        return (inputs * hidden + 3 * hidden) + (9 * hidden + 3 * hidden) + (hidden * 128 + 2 * 128)

    expected = {
        "stem": 9 * 64 + 3 * 64,
        "depthwise": 9 * 64 + 3 * 64,
        "blocks": bottleneck(64, 128) + bottleneck(128, 256) + 4 * bottleneck(128, 512),
        "expand": 128 * 512 + 3 * 512,
        "global_depthwise": 512 * 8 * 20 + 2 * 512,
        "embedding": 512 * 128 + 2 * 128,
    }
    assert {name: count(child) for name, child in network.named_children()} == expected
    assert count(network) == 869_760


def test_parameters_are_the_published_ones() -> None:
    """897,257 of OS-SCL on Log-Mel are the network, its head, 41 class weights, and a linear layer without use."""
    feature_perturbation = (128 * 64 + 64) + 2 * 64 + (64 * 128 + 128) + 2 * 128
    unused_output = 128 * 41 + 41
    used = count(MobileFaceNet(1, 128, 313)) + feature_perturbation + count(ArcFaceHead(128, 41))
    assert used + unused_output == 897_257


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_input_channels_only_widen_the_stem(channels: int) -> None:
    network = MobileFaceNet(channels, 32, 40)
    assert count(network) - count(MobileFaceNet(1, 32, 40)) == (channels - 1) * 64 * 9
    assert network(torch.randn(2, channels, 32, 40)).shape == (2, 128)


@settings(deadline=None, max_examples=15)
@given(n_mels=st.integers(1, 80), frames=st.integers(1, 120))
def test_any_number_of_mel_bands_and_frames(n_mels: int, frames: int) -> None:
    network = MobileFaceNet(1, n_mels, frames)
    kernel = network.global_depthwise[0].kernel_size
    assert kernel == (math.ceil(n_mels / 16), math.ceil(frames / 16))
    with torch.no_grad():
        assert network.eval()(torch.randn(1, 1, n_mels, frames)).shape == (1, 128)


def test_residuals_where_stride_is_1() -> None:
    """A bottleneck whose last batch norm is silent gives x back, or nothing."""
    network = MobileFaceNet(1, 32, 40).eval()
    silenced = 0
    for number, block in enumerate(network.blocks):
        assert isinstance(block, Bottleneck)
        nn.init.zeros_(block.layers[-1][1].weight)
        x = torch.randn(1, 64 if number == 0 else 128, 6, 8)
        y = block(x)
        if number % 2:
            assert torch.equal(y, x)
        else:
            assert y.shape == (1, 128, 3, 4)
            assert not y.any()
        silenced += 1
    assert silenced == 6


def test_activations_and_biases() -> None:
    network = MobileFaceNet(1, 32, 40)
    assert all(module.bias is None for module in network.modules() if isinstance(module, nn.Conv2d))
    slopes = [module.num_parameters for module in network.modules() if isinstance(module, nn.PReLU)]
    assert slopes == [64, 64, 128, 128, 256, 256, *[512] * 8, 512]  # per channel; none in the three linear places
    linear = [block.layers[-1] for block in network.blocks] + [network.global_depthwise, network.embedding]
    assert all(isinstance(layer[-1], nn.BatchNorm2d) for layer in linear)


def test_initial_weights_as_published() -> None:
    """Normal, variance 2 / (k² · output channels), for depthwise convolutions too."""
    network = MobileFaceNet(1, 128, 313)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            height, width = module.kernel_size
            expected = math.sqrt(2 / (height * width * module.out_channels))
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05)
            assert abs(module.weight.mean().item()) < 0.05 * expected


def test_running_variances_start_near_what_the_initial_weights_give() -> None:
    """An input's mean square is about 1/2 after PReLU, 1 or 2 on the way of the residuals."""
    network, found = MobileFaceNet(1, 64, 80), []

    def note(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None
        assert norm.running_var.unique().numel() == 1  # not yet updated
        found.append((inputs[0].var().item(), norm.running_var[0].item()))

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(note)
    network(torch.randn(16, 1, 64, 80))
    assert len(found) == 5 + 3 * 6
    assert all(0.3 < actual / start < 2.5 for actual, start in found)
    assert min(start for _, start in found) < 0.01  # far from torch's 1


def test_every_parameter_gets_a_gradient() -> None:
    network = MobileFaceNet(2, 32, 40)
    network(torch.randn(4, 2, 32, 40)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_equals_its_layers_written_out() -> None:
    """One bottleneck and the ends of the network by plain arithmetic, in eval mode."""
    network = MobileFaceNet(1, 16, 16).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias, std=0.1)

    def norm(layer: nn.Sequential, x: Tensor) -> Tensor:
        n = layer[1]
        scale = n.weight / (n.running_var + 1e-5).sqrt()
        return (x - n.running_mean[:, None, None]) * scale[:, None, None] + n.bias[:, None, None]

    def prelu(layer: nn.Sequential, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, layer[2].weight[:, None, None] * x)

    def pointwise(layer: nn.Sequential, x: Tensor) -> Tensor:
        return norm(layer, torch.einsum("oi,bihw->bohw", layer[0].weight[:, :, 0, 0], x))

    def depthwise(layer: nn.Sequential, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, (1, 1, 1, 1))
        height, width = x.shape[2:]
        shifts = [(i, j) for i in range(3) for j in range(3)]
        sums = [
            padded[:, :, i : i + height, j : j + width] * layer[0].weight[:, 0, i, j, None, None] for i, j in shifts
        ]
        return norm(layer, torch.stack(sums).sum(0))

    block = network.blocks[1]
    assert isinstance(block, Bottleneck)
    first, second, third = block.layers
    x = torch.randn(2, 128, 5, 6)
    hidden = prelu(second, depthwise(second, prelu(first, pointwise(first, x))))
    torch.testing.assert_close(block(x), x + pointwise(third, hidden), atol=1e-4, rtol=1e-4)

    image = torch.randn(2, 1, 16, 16)
    before = network.blocks(network.depthwise(network.stem(image)))  # (2, 128, 1, 1)
    wide = prelu(network.expand, pointwise(network.expand, before))
    pooled = norm(network.global_depthwise, wide * network.global_depthwise[0].weight[:, 0])
    expected = pointwise(network.embedding, pooled).flatten(1)
    torch.testing.assert_close(network(image), expected, atol=1e-4, rtol=1e-4)


def test_the_network_has_them_where_torch_is_slow() -> None:
    strided = [m for m in MobileFaceNet(3, 128, 313).modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert [isinstance(module, StridedDepthwise) for module in strided] == [False, True, True, True]
