from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asd_ray.config import OptimiserConfig
from asd_ray.methods.base import Method, Stage
from asd_ray.training.checkpoints import FileCheckpoints, load_rank, save_rank
from asd_ray.training.loop import StageRun, TrainingFailed, Workers, embed, learning_rate_factor, train


class Regression(Stage):
    """Predicts the label from noisy features, with batch norm and a buffer: all that a run must keep."""

    def __init__(self, net: nn.Module, name: str, epochs: int) -> None:
        super().__init__()
        self.net, self.name = net, name
        self.optimiser = OptimiserConfig(epochs=epochs, batch_size=4, lr=0.01)
        self.register_buffer("steps", torch.zeros(()))
        self.steps: Tensor
        self.spoil = False

    def forward(self, features: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        noisy = features.float() + 0.1 * torch.randn(features.shape)
        loss = (self.net(noisy.flatten(1)).squeeze(1) - labels).square().mean()
        return loss * (math.nan if self.spoil else 1), {"half": loss.detach() / 2}

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

    def embed(self, features: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.net[0](features.float().flatten(1))
        return hidden, self.net(features.float().flatten(1))


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


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(10, 2, 3, generator=generator).half()
    return features, features.float().sum((1, 2)).round().long()


def fresh() -> TwoStages:
    torch.manual_seed(0)
    return TwoStages()


def test_all_stages_are_trained_and_reported() -> None:
    reports: list[dict[str, Any]] = []
    method = fresh()
    history = train(method, *data(), 1, Memory(), report=reports.append)
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
    expected = train(whole, *data(), 1, Memory())
    interrupted = Memory(stop=stop)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(), *data(), 1, interrupted)
    files = FileCheckpoints(tmp_path)
    for number, state in enumerate(interrupted.states, 1):
        files.save(state, {"epoch": number})
    torch.manual_seed(99)  # a new process has another random state
    resumed = TwoStages()
    history = train(resumed, *data(), 1, files)
    timing = ("seconds", "samples_per_s")
    for row, wanted in zip(history, expected, strict=True):
        assert {k: v for k, v in row.items() if k not in timing} == {k: v for k, v in wanted.items() if k not in timing}
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_the_order_depends_on_seed_epoch_and_worker_alone() -> None:
    features, labels = data()

    def order(seed: int, epoch: int, rank: int) -> list[int]:
        run = StageRun(Regression(TwoStages().net, "first", 3), features, labels, 10, seed, Workers(rank, 1))
        batches = list(run.batches(epoch))
        assert [len(batch) for batch in batches] == [4, 4]
        return torch.cat(batches).tolist()

    assert order(1, 2, 0) == order(1, 2, 0)
    assert len(set(order(1, 2, 0))) == 8
    assert len({tuple(order(*args)) for args in [(1, 2, 0), (2, 2, 0), (1, 3, 0), (1, 2, 1)]}) == 4


def test_a_loss_that_is_not_a_number_ends_the_run_with_its_name() -> None:
    method = fresh()
    method.parts[1].spoil = True
    with pytest.raises(TrainingFailed, match="second: loss is nan"):
        train(method, *data(), 1, Memory())


def test_too_few_clips_say_so() -> None:
    features, labels = data()
    with pytest.raises(TrainingFailed, match="at least 2"):
        train(fresh(), features[:1], labels[:1], 1, Memory())


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
    method, (features, _) = fresh(), data()
    embedding, logits = embed(method, features, batch_size=3)
    assert embedding.shape == (10, 3)
    assert logits.shape == (10, 1)
    torch.testing.assert_close(embed(method, features[4:5])[1], logits[4:5])
    assert embed(method, features[:0])[0].shape == (0, 0)
