from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from asd_ray.methods.blocks.cpu_layers import PReLU, StridedDepthwise


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


def test_depthwise_convolutions_with_stride_are_torchs_and_in_fp32_under_autocast() -> None:
    ours = StridedDepthwise(4, 4, 3, 2, 1, groups=4, bias=False)
    torchs = nn.Conv2d(4, 4, 3, 2, 1, groups=4, bias=False)
    torchs.load_state_dict(ours.state_dict())
    x, weights = torch.randn(2, 4, 9, 11), torch.randn(2, 4, 5, 6)
    x = x.bfloat16().float()
    results = []
    for module, dtype in ((ours, torch.bfloat16), (ours, torch.float32), (torchs, torch.float32)):
        inputs = x.clone().to(dtype).requires_grad_()
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = module(inputs)
        assert y.dtype == dtype
        (y.float() * weights.bfloat16().float()).sum().backward()
        results.append((y.float(), inputs.grad, module.weight.grad.clone()))
    (half, half_x, half_weight), full, expected = results
    for own, other in zip(full, expected, strict=True):
        assert torch.equal(own, other)
    torch.testing.assert_close(half, expected[0].bfloat16().float(), rtol=0, atol=0)  # only the output is rounded
    torch.testing.assert_close(half_x.float(), expected[1], rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(half_weight, expected[2])
