from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asd_ray.config import OptimiserConfig
from asd_ray.data.clips import Clip
from asd_ray.features.batches import CachedBatches
from asd_ray.methods.base import Inputs, Method, Stage
from asd_ray.methods.workers import Workers
from asd_ray.training.checkpoints import FileCheckpoints, load_rank, save_rank
from asd_ray.training.loop import embed, train
from asd_ray.training.stage_run import StageRun, TrainingFailed, held_out_clips, learning_rate_factor


class Regression(Stage):
    """Predicts the label from noisy features, with batch norm and a buffer: all that a run must keep."""

    def __init__(self, net: nn.Module, name: str, epochs: int) -> None:
        super().__init__()
        self.net, self.name = net, name
        self.optimiser = OptimiserConfig(epochs=epochs, batch_size=4, lr=0.01, probe_every=0)
        self.register_buffer("steps", torch.zeros(()))
        self.steps: Tensor
        self.spoil = False
        self.noise = 0.1
        self.seen: list[int] = []

    def forward(self, inputs: Inputs, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        features = inputs["log_mel"].float()
        self.seen += features[:, 0, 0].mul(1000).round().int().tolist()
        noisy = features + self.noise * torch.randn(features.shape)
        loss = (self.net(noisy.flatten(1)).squeeze(1) - labels).square().mean()
        return loss * (math.nan if self.spoil else 1), {"half": loss.detach() / 2}

    best_after: int | None = None

    def validation_loss(self, inputs: Inputs, labels: Tensor) -> Tensor:
        if self.best_after is not None:
            return len(labels) * (self.steps - self.best_after).abs()
        return (self.net(inputs["log_mel"].float().flatten(1)).squeeze(1) - labels).square().sum()

    def end_step(self, progress: float) -> None:
        self.steps += 1
        self.progress = progress


class TwoStages(Method):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        self.parts = [Regression(self.net, "first", 3), Regression(self.net, "second", 2)]

    def stages(self) -> list[Stage]:
        return list(self.parts)

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        flat = inputs["log_mel"].float().flatten(1)
        return self.net[0](flat), self.net(flat)


class Memory:
    """Checkpoints in memory; ``stop`` interrupts the run after that many."""

    def __init__(self, state: dict[str, Any] | None = None, stop: int | None = None) -> None:
        self.states = [state] if state else []
        self.stop = stop

    def load(self) -> dict[str, Any] | None:
        return self.states[-1] if self.states else None

    def save(self, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        self.states.append(copy.deepcopy(state))
        if self.stop is not None and len(self.states) == self.stop:
            raise KeyboardInterrupt


def data(count: int = 10) -> CachedBatches:
    """Clips whose class number is about what is to be predicted."""
    features = torch.randn(count, 2, 3, generator=torch.Generator().manual_seed(0)).half()
    numbers = features.float().sum((1, 2)).round().int().tolist()
    clips = [Clip(f"{index}.wav", "m", f"{number:+d}", "train", "normal") for index, number in enumerate(numbers)]
    return CachedBatches(clips, {"log_mel": features}, [f"m/{number:+d}" for number in range(-9, 10)])


def source(splits: tuple[str, ...]) -> CachedBatches:
    assert splits == ("train",)
    return data()


def fresh() -> TwoStages:
    torch.manual_seed(0)
    return TwoStages()


def test_all_stages_are_trained_and_reported() -> None:
    reports: list[dict[str, Any]] = []
    method = fresh()
    history = train(method, source, 1, Memory(), report=reports.append)
    assert history == reports
    assert [(row["stage"], row["epoch"], row["epochs"]) for row in history] == [
        ("first", 1, 5),
        ("first", 2, 5),
        ("first", 3, 5),
        ("second", 4, 5),
        ("second", 5, 5),
    ]
    assert [part.progress for part in method.parts] == [1, 1]
    assert all(row["half"] == pytest.approx(row["loss"] / 2) for row in history)


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_run_cut_off_after_any_epoch_continues_bit_for_bit(stop: int, tmp_path: Path) -> None:
    whole = fresh()
    expected = train(whole, source, 1, Memory())
    interrupted = Memory(stop=stop)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(), source, 1, interrupted)
    files = FileCheckpoints(tmp_path)
    for number, state in enumerate(interrupted.states, 1):
        files.save(state, {"epoch": number})
    torch.manual_seed(99)  # a new process has another random state
    resumed = TwoStages()
    history = train(resumed, source, 1, files)
    timing = ("seconds", "samples_per_s")
    for row, wanted in zip(history, expected, strict=True):
        assert {k: v for k, v in row.items() if k not in timing} == {k: v for k, v in wanted.items() if k not in timing}
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_every_epoch_has_its_own_order_and_no_clip_twice() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        stage = Regression(TwoStages().net, "first", 3)
        StageRun(stage, data(), seed, Workers()).epoch(epoch)
        return stage.seen

    assert order(1, 2) == order(1, 2)
    assert len(set(order(1, 2))) == len(order(1, 2)) == 8
    assert len({tuple(order(*args)) for args in [(1, 2), (2, 2), (1, 3)]}) == 3


def test_accumulated_parts_take_the_step_of_the_whole_batch() -> None:
    def weights(accumulate: int) -> list[Tensor]:
        torch.manual_seed(0)
        stage = Regression(nn.Sequential(nn.Linear(6, 1)), "first", 1)
        stage.noise = 0.0
        stage.optimiser = OptimiserConfig(epochs=1, batch_size=8, lr=0.01, accumulate=accumulate, probe_every=0)
        StageRun(stage, data(16), 1, Workers()).epoch(0)
        assert stage.steps == 2
        return list(stage.parameters())

    for whole, parts in zip(weights(1), weights(2), strict=True):
        torch.testing.assert_close(parts, whole)


def validated(
    keep: str, patience: int, best_after: int | None = None
) -> tuple[TwoStages, list[dict[str, Any]], Memory]:
    """A run whose second stage holds clips out."""
    method, memory = fresh(), Memory()
    stage = method.parts[1]
    stage.validation, stage.keep, stage.patience = 0.3, keep, patience
    stage.best_after = best_after
    stage.optimiser = OptimiserConfig(epochs=6, batch_size=3, probe_every=0)
    history = train(method, source, 1, memory)
    return method, [row for row in history if row["stage"] == "second"], memory


def test_held_out_clips_are_never_trained_on_and_judge_every_epoch() -> None:
    method, rows, _ = validated("last", 0)
    held_out = held_out_clips(data().clips, 0.3)
    assert 0 < held_out.sum() < 6
    values = data().columns["log_mel"][held_out][:, 0, 0].float().mul(1000).round().int().tolist()
    assert not set(values) & set(method.parts[1].seen)
    method.eval()
    left = data().where(held_out)
    batch = next(left.in_order(10))
    expected = method.parts[1].validation_loss(batch.inputs, batch.labels).item() / len(left.clips)
    assert rows[-1]["validation_loss"] == pytest.approx(expected, rel=1e-5)


def test_the_best_epoch_is_kept_and_patience_ends_the_stage() -> None:
    best, rows, memory = validated("best", 2, best_after=4)  # two steps an epoch: after its second epoch
    assert [row["validation_loss"] for row in rows] == [2, 0, 2, 4]
    at_best = memory.states[3 + 1]["method"]
    for key, value in best.state_dict().items():
        assert torch.equal(at_best[key], value), key
    assert not torch.equal(memory.states[-1]["method"]["net.0.weight"], at_best["net.0.weight"])
    assert len(validated("best", 0, best_after=4)[1]) == 6
    # Cut off right after the last epoch, the run ends where it ended.
    resumed = fresh()
    part = resumed.parts[1]
    part.validation, part.keep, part.patience, part.optimiser = 0.3, "best", 2, best.parts[1].optimiser
    train(resumed, source, 1, Memory(memory.states[-1]))
    for key, value in best.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


@pytest.mark.parametrize("keep", ["last", "best"])
def test_checkpoints_hold_the_best_epoch_whichever_is_left_behind(keep: str) -> None:
    trained, _, memory = validated(keep, 0, best_after=4)
    at_best, at_end = memory.states[3 + 1], memory.states[-1]
    assert at_end["best"]["epoch"] == 2
    assert at_end["best"]["state"].keys() == at_best["stage_state"].keys()
    for key, value in at_end["best"]["state"].items():
        assert torch.equal(value, at_best["stage_state"][key]), key
    left = at_best if keep == "best" else at_end
    assert torch.equal(trained.state_dict()["net.0.weight"], left["method"]["net.0.weight"])


def test_probes_come_every_so_many_epochs_and_at_the_end() -> None:
    method = fresh()
    method.parts[0].optimiser = OptimiserConfig(epochs=5, batch_size=4, probe_every=2)
    history = train(method, source, 1, Memory(), probe=lambda: {"knn_auc": 0.5})
    assert [row["epoch"] for row in history if "knn_auc" in row] == [2, 4, 5]


def test_what_follows_a_stage_is_called_once_it_is_trained() -> None:
    method, names = fresh(), []
    train(
        method, source, 1, Memory(), after=lambda stage, rows: names.append((stage.name, int(stage.steps), len(rows)))
    )
    assert names == [("first", 6, 3), ("second", 4, 2)]


def test_a_stage_that_is_recalled_is_not_trained_and_told_as_if_it_was() -> None:
    method, told, after = fresh(), [], []
    rows = [{"stage": "first", "epoch": 1, "loss": 0.5, "recalled": True}]
    history = train(
        method,
        source,
        1,
        Memory(),
        report=told.append,
        recall=lambda stage: rows if stage.name == "first" else None,
        after=lambda stage, metrics: after.append((stage.name, metrics == rows)),
    )
    assert not method.parts[0].seen
    assert told == history
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert after == [("first", True), ("second", False)]


def test_a_resumed_stage_is_not_recalled() -> None:
    first = Memory(stop=4)  # within the second stage
    with pytest.raises(KeyboardInterrupt):
        train(fresh(), source, 1, first)
    asked = []
    train(fresh(), source, 1, Memory(first.states[-1]), recall=lambda stage: asked.append(stage.name))
    assert not asked


def test_a_loss_that_is_not_a_number_ends_the_run_with_its_name() -> None:
    method = fresh()
    method.parts[1].spoil = True
    with pytest.raises(TrainingFailed, match="second: loss is nan"):
        train(method, source, 1, Memory())


def test_too_few_clips_say_so() -> None:
    with pytest.raises(TrainingFailed, match="at least 2"):
        train(fresh(), lambda splits: data(1), 1, Memory())


def test_the_last_two_checkpoints_stay_and_a_damaged_one_costs_one_epoch(tmp_path: Path) -> None:
    files = FileCheckpoints(tmp_path / "run")
    assert files.load() is None
    for epoch in (1, 2, 3):
        files.save({"epoch": epoch}, {"epoch": epoch})
    assert [path.name for path in sorted(files.folder.iterdir())] == ["epoch_00002.pt", "epoch_00003.pt"]
    (files.folder / "epoch_00003.pt").write_bytes(b"torn")
    assert files.load() == {"epoch": 2}


def test_a_worker_gets_what_all_share_and_its_own(tmp_path: Path) -> None:
    save_rank(tmp_path, 0, {"epoch": 3, "stage_state": {"queue": 1, "bank": 2}})
    save_rank(tmp_path, 1, {"epoch": 3, "stage_state": {"bank": 5}})
    assert load_rank(tmp_path, 0)["stage_state"] == {"queue": 1, "bank": 2}
    assert load_rank(tmp_path, 1)["stage_state"] == {"queue": 1, "bank": 5}


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    factor = learning_rate_factor(OptimiserConfig(epochs=10, warmup_epochs=2, schedule="cosine"), 5)
    values = [factor(step) for step in range(51)]
    assert values[0] == pytest.approx(0.1)
    assert max(values) == values[10] == pytest.approx(1)
    assert values[30] == pytest.approx(0.5)
    assert values[50] == pytest.approx(0)
    constant = learning_rate_factor(OptimiserConfig(epochs=10, schedule="constant"), 5)
    assert {constant(step) for step in range(50)} == {1.0}


def test_embedding_is_in_eval_mode_and_in_order() -> None:
    method, clips = fresh(), data()
    embedding, logits = embed(method, clips, batch_size=3)
    assert embedding.shape == (10, 3)
    assert logits.shape == (10, 1)
    one = np.arange(10) == 4
    torch.testing.assert_close(embed(method, clips.where(one))[1], logits[4:5])
    assert embed(method, clips.where(~one & one))[0].shape == (0, 0)
