from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as nnf

from asd_ray.errors import ConfigError
from asd_ray.methods.blocks.mobilefacenet import MobileFaceNet
from asd_ray.methods.blocks.networks import Network, check_name


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)  # the networks are tiny
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("test_resnet", 96),
        ("mobilenetv3_small_050", 1024),  # timm calls its num_features 288
        ("mobilefacenet", 128),
    ],
)
def test_spectrograms_in_pooled_features_out(name: str, features: int) -> None:
    encoder = Network(name, 64, 80, precision="fp32")
    x = torch.randn(3, 64, 80)
    output = encoder(x)
    assert encoder.num_features == features
    assert output.shape == (3, features)
    assert output.dtype == torch.float32
    assert encoder.training  # the probe of D leaves the mode as it was


def test_an_untrained_network_with_one_channel_in_channels_last() -> None:
    encoder = Network("resnet18", 32, 40, precision="fp32")
    assert encoder.network.conv1.weight.shape[1] == 1
    assert encoder.network.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert sum(p.numel() for p in encoder.parameters()) == 11_170_240  # ResNet-18 without classifier, 1 channel
    assert encoder.network.conv1(torch.randn(2, 1, 32, 40)).is_contiguous(memory_format=torch.channels_last)


def test_every_parameter_gets_a_gradient() -> None:
    encoder = Network("test_resnet", 32, 40, precision="fp32")
    encoder(torch.randn(2, 32, 40)).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_bf16_is_used_and_close_to_fp32() -> None:
    encoder, x = Network("test_resnet", 32, 40, precision="fp32").eval(), torch.randn(4, 32, 40)
    seen: list[torch.dtype] = []
    encoder.network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    full = encoder(x)
    encoder.precision = "bf16"
    half = encoder(x)
    assert seen == [torch.float32, torch.bfloat16]
    assert half.dtype == torch.float32
    assert nnf.cosine_similarity(full, half).min() > 0.999


def test_an_unknown_architecture_is_named_with_close_ones() -> None:
    with pytest.raises(ConfigError, match=r"method.encoder: timm has no architecture 'resnet500'; close are resnet50"):
        Network("resnet500", 32, 40)


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18.a1_in1k", "local-dir:/tmp/x"])
def test_nothing_is_looked_up_elsewhere(name: str) -> None:
    with pytest.raises(ConfigError, match="timm has no architecture"):
        Network(name, 32, 40)


def test_an_architecture_of_fixed_input_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="test_vit does not take inputs of 1 × 32 × 40"):
        Network("test_vit", 32, 40)


def test_mobilefacenet_is_one_of_timms_and_of_the_size_of_the_clips() -> None:
    network = Network("mobilefacenet", 64, 80, channels=2, precision="fp32")
    assert isinstance(network.network, MobileFaceNet)
    assert network.network.global_depthwise[0].kernel_size == (4, 5)
    assert network(torch.randn(2, 2, 64, 80)).shape == (2, 128)
    with pytest.raises(ConfigError, match=r"method.finetune.network: .* 'mobilefacenets'; close are mobilefacenet"):
        check_name("mobilefacenets", "method.finetune.network")


@pytest.mark.parametrize("name", ["test_resnet", "mobilefacenet"])
def test_a_feature_map_is_pooled_to_the_features(name: str) -> None:
    network, x = Network(name, 64, 80, precision="fp32").eval(), torch.randn(2, 64, 80)
    features = network.feature_map(x)
    assert features.shape[:2] == (2, network.num_features)
    assert torch.equal(network.network.forward_head(features), network(x))


@pytest.fixture
def dynamo(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """``torch.compile`` without the slow code generation; counts the graphs that it was given."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(len(inputs))
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    yield graphs
    torch.compiler.reset()


def test_compiled_it_computes_the_same_under_the_same_keys(dynamo: list[int]) -> None:
    torch.manual_seed(1)
    plain, x = Network("test_resnet", 32, 40, precision="fp32"), torch.randn(2, 32, 40)
    compiled = Network("test_resnet", 32, 40, precision="fp32", compile=True)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    compiled.load_state_dict(plain.state_dict())
    assert not dynamo  # nothing is compiled before it is used
    torch.testing.assert_close(compiled(x), plain(x))
    assert len(dynamo) == 1
    compiled(x).sum().backward()
    assert all(p.grad is not None for p in compiled.parameters())
    copy = deepcopy(compiled).requires_grad_(False)
    copy(x)
    assert len(dynamo) == 2  # the key encoder is compiled as well
    assert not deepcopy(plain).network._compiled_call_impl
