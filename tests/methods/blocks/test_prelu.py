from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from asd_ray.methods.blocks.prelu import PReLU


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize("slopes", [5, 1])
@pytest.mark.parametrize("channels_last", [True, False])
def test_value_and_gradient_are_torchs(slopes: int, channels_last: bool) -> None:
    ours, torchs = PReLU(slopes), nn.PReLU(slopes)
    nn.init.normal_(ours.weight)
    torchs.load_state_dict(ours.state_dict())
    data, weights = torch.randn(3, 5, 4, 7), torch.randn(3, 5, 4, 7)
    data[0, :, 0, :3] = 0  # the slope of 0 counts as negative
    if channels_last:
        data = data.contiguous(memory_format=torch.channels_last)
    outputs: list[tuple[Tensor, ...]] = []
    for module in (ours, torchs):
        x = data.clone().requires_grad_()
        y = module(x)
        (y * weights).sum().backward()
        assert x.grad is not None
        assert module.weight.grad is not None
        outputs.append((y.detach(), x.grad, module.weight.grad))
    for own, expected in zip(*outputs, strict=True):
        torch.testing.assert_close(own, expected)


def test_gradient_in_fp64_by_finite_differences() -> None:
    module = PReLU(3).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(module, {"weight": w}, x), (x, module.weight)
    )


def test_under_autocast_it_stays_in_bf16() -> None:
    convolution, activation = nn.Conv2d(2, 4, 1), PReLU(4)
    network = nn.Sequential(convolution, activation)
    reference = copy.deepcopy(network)
    reference[1] = nn.PReLU(4)
    x = torch.randn(3, 2, 5, 5)
    gradients = []
    for module in (network, reference):
        with torch.autocast("cpu", torch.bfloat16):
            y = module(x)
        assert y.dtype == torch.bfloat16
        y.float().square().sum().backward()
        gradients.append([parameter.grad for parameter in module.parameters()])
    for own, expected in zip(*gradients, strict=True):
        assert own is not None
        assert expected is not None
        assert own.dtype == torch.float32
        torch.testing.assert_close(own, expected, atol=0.02, rtol=0.02)


def test_its_state_is_torchs() -> None:
    assert list(PReLU(4).state_dict()) == ["weight"]
    with torch.no_grad():
        x = torch.randn(2, 4, 3)
        assert torch.equal(PReLU(4)(x), nn.PReLU(4)(x))
