from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from asd_ray.bench import stages
from asd_ray.bench.step import _bare, flops
from asd_ray.bench.table import Measured
from asd_ray.methods.os_scl.method import OsSclStage
from asd_ray.methods.sia_moco.augment import TwoViews

CPU = torch.device("cpu")


def test_stages_and_bare_networks_are_the_methods_own() -> None:
    pretrain = stages.stage("pretrain", "resnet18", "fp32", 4, CPU)
    assert isinstance(pretrain.get_submodule("views"), TwoViews)
    finetune = stages.stage("finetune", "mobilefacenet", "fp32", 4, CPU)
    assert finetune.name == "finetune"
    for network, stage, name in (
        ("resnet18", pretrain, "query.0.network"),
        ("mobilefacenet", finetune, "trunk.network"),
    ):
        assert repr(_bare("finetune", network, "fp32", CPU)) == repr(stage.get_submodule(name).train())


@pytest.mark.parametrize(("network", "columns"), [("mel", 1), ("tgram+tfgram", 1), ("mel+tgram", 2)])
def test_an_os_scl_stage_trains_on_its_columns_and_its_bare_network_passes(network: str, columns: int) -> None:
    stage = stages.stage("os_scl", network, "fp32", 2, CPU)
    assert isinstance(stage, OsSclStage)
    bare = _bare("os_scl", network, "fp32", CPU)
    assert repr(bare) == repr(stage.student.train())
    clips = stages.clips(2, CPU, stages.columns("os_scl", network))
    assert len(clips.columns) == columns
    assert math.isfinite(stages.stage_run(stage, clips).epoch(0)["loss"])
    stages.bare_step(bare, stages.bare_inputs("os_scl", network, 2, CPU), "fp32")()
    assert all(p.grad is not None for name, p in bare.named_parameters() if not name.startswith("head."))


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (6, 1), (6, 2), (2, 2)])
def test_operations_of_a_backward_pass_are_twice_the_forward_passs(groups: int, stride: int) -> None:
    layer, x = nn.Conv2d(6, 6, 3, stride, 1, groups=groups), torch.randn(2, 6, 8, 8, requires_grad=True)
    with stages.counted_flops() as forward:
        y = layer(x)
    with stages.counted_flops() as backward:
        y.sum().backward()
    assert forward.get_total_flops() == 2 * y.numel() * 9 * 6 // groups
    assert backward.get_total_flops() == 2 * forward.get_total_flops()


def test_a_bare_step_is_one_forward_and_backward_pass() -> None:
    network, x = nn.Conv2d(1, 2, 3), torch.randn(4, 1, 5, 6)
    step = stages.bare_step(network, x, "fp32")
    with stages.counted_flops() as counter:
        step()
    first = network.weight.grad
    step()
    assert first is not None
    assert network.weight.grad is not None
    torch.testing.assert_close(network.weight.grad, first)  # not added up
    one_pass = 4 * (3 * 4) * 2 * 9 * 2  # clips, places, channels, taps, multiply and add
    assert counter.get_total_flops() == 2 * one_pass  # and the gradient of the weights; none of the input


def test_made_up_clips_are_raw_features() -> None:
    clips = stages.clips(50, CPU)
    batch = next(clips.shuffled(50, 0))
    assert batch.inputs["log_mel"].shape == (50, stages.F, stages.T)
    assert batch.inputs["log_mel"].dtype == torch.float16
    assert float(batch.inputs["log_mel"].float().mean()) == pytest.approx(stages.MEAN, abs=0.1)
    assert sorted(batch.labels.unique().tolist()) == list(range(stages.CLASSES))


def test_operations_per_second() -> None:
    assert flops(Measured((10.0, 20.0), "samples/s"), 3e9) == Measured((30.0, 60.0), "GFLOP/s")
