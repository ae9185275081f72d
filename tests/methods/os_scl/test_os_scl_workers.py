"""os_scl on two processes: what 2 x B/2 clips have in common with 1 x B, and what not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from asd_ray.methods.blocks.mixup import mixed_cross_entropy
from asd_ray.methods.os_scl import method as os_scl
from asd_ray.methods.os_scl.method import OsSclStage, as_floats, mixed
from tests.methods.os_scl.os_scl_parts import clips, method, stage_of
from tests.two_processes import WORKERS, in_two_processes

EACH, RATIO = 6, 0.3
SWAPPED = torch.arange(EACH) ^ 1  # every worker mixes its own clips, here in pairs
CASES = {"unmixed": (False, False), "mixed": (True, False), "batch norm": (True, True)}
Gradients = dict[str, Tensor]


def made_stage(mixup: bool, training: bool) -> OsSclStage:
    torch.manual_seed(0)
    stage = stage_of(method({"mixup": 0.5 if mixup else 0, "contrast": 0.7, "ema": 0})).double()
    return stage.train(training)


def patched(patch: pytest.MonkeyPatch) -> None:
    """Mixes in pairs, and calculates in fp64, so that rounding hides no difference."""

    def draw(alpha: float, batch: int, device: torch.device) -> tuple[float, Tensor]:
        return RATIO, torch.cat([EACH * part + SWAPPED for part in range(batch // EACH)])

    patch.setattr(os_scl, "draw_mixup", draw)
    patch.setattr(Tensor, "float", Tensor.double)


def gradients(stage: OsSclStage) -> Gradients:
    return {name: p.grad.clone() for name, p in stage.named_parameters() if p.grad is not None}


def worker(rank: int) -> dict[str, Gradients]:
    batch, labels = clips(WORKERS * EACH)
    mine = slice(rank * EACH, (rank + 1) * EACH)
    found = {}
    for name, settings in CASES.items():
        stage = made_stage(*settings)
        parallel = DistributedDataParallel(stage, broadcast_buffers=False)  # averages as long as there is a name for it
        with pytest.MonkeyPatch.context() as patch:
            patched(patch)
            loss, _ = parallel({key: column[mine] for key, column in batch.items()}, labels[mine])
        loss.backward()
        found[name] = {"loss": loss.detach(), **gradients(stage)}
    return found


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Gradients]]:
    return in_two_processes(worker, tmp_path_factory.mktemp("workers"))


def of_one_worker(name: str, in_halves: bool = False) -> Gradients:
    """Of the whole batch in this process; ``in_halves`` as far as the network, whose batch norm then sees halves."""
    stage, (batch, labels) = made_stage(*CASES[name]), clips(WORKERS * EACH)
    with pytest.MonkeyPatch.context() as patch:
        patched(patch)
        if not in_halves:
            loss, _ = stage(batch, labels)
        else:
            ratio, partner = os_scl.draw_mixup(0.5, len(labels), labels.device)
            inputs = mixed(as_floats(batch), partner, ratio)
            parts = [{key: x[half] for key, x in inputs.items()} for half in torch.arange(len(labels)).split(EACH)]
            z = torch.cat([stage.student(part) for part in parts])
            loss = mixed_cross_entropy(stage.student.head(z, labels), labels, labels[partner], ratio)
            loss = loss + stage.config.contrast * stage._contrast(z, labels)
    loss.backward()
    return {"loss": loss.detach(), **gradients(stage)}


def assert_equal(two: list[dict[str, Gradients]], name: str, one: Gradients) -> None:
    loss = torch.stack([worker[name]["loss"] for worker in two]).mean()
    torch.testing.assert_close(loss, one["loss"])
    expected = {key: gradient for key, gradient in one.items() if key != "loss"}
    # Of the largest: before batch norm some gradients are 0 but for rounding.
    tolerance = 1e-9 * max(gradient.abs().max().item() for gradient in expected.values())
    for worker in two:
        assert worker[name].keys() == one.keys()
        for key, gradient in expected.items():
            torch.testing.assert_close(worker[name][key], gradient, rtol=1e-7, atol=tolerance, msg=key)


@pytest.mark.parametrize("name", ["unmixed", "mixed"])
def test_two_halves_have_the_gradients_of_the_whole(two_workers: list[dict[str, Gradients]], name: str) -> None:
    """With the contrast among all clips; batch norm in eval mode, and clips mixed within their half."""
    assert_equal(two_workers, name, of_one_worker(name))


def test_batch_norm_sees_a_workers_own_clips_and_nothing_else_differs(
    two_workers: list[dict[str, Gradients]],
) -> None:
    assert_equal(two_workers, "batch norm", of_one_worker("batch norm", in_halves=True))
    whole, key = of_one_worker("batch norm"), "student.head.weight"
    assert not torch.allclose(two_workers[0]["batch norm"][key], whole[key], rtol=0.01)
