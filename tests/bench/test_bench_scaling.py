from __future__ import annotations

import pytest

from asd_ray.bench import scaling
from asd_ray.bench.table import Measured


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(case: scaling.Case, precision: str) -> dict[str, Measured]:
        two = tuple(1.8 * rate for rate in (10.0, 30.0, 20.0))  # whatever the machine's speed
        one, apart = (10.0, 30.0, 20.0), (20.0, 60.0, 40.0)
        found = {scaling.ONE: one, scaling.TWO: two, scaling.APART: apart}
        return {kind: Measured(values, "samples/s") for kind, values in found.items()}

    monkeypatch.setattr(scaling, "measured", measured)


@pytest.mark.usefixtures("rates")
def test_every_case_is_held_against_one_worker_and_against_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "available_memory", lambda: 100.0)
    lines = scaling.run(quick=False).lines
    assert len(lines) == 2 * len(scaling.CASES)
    assert [line.value for line in lines[:2]] == pytest.approx([1.8, 0.9])
    assert [line.met for line in lines[:2]] == [False, None]
    assert "2.00 times as fast as one" in lines[0].note


@pytest.mark.usefixtures("rates")
def test_what_does_not_fit_into_memory_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "resolve_precision", lambda *args: None)  # fp32: twice the memory
    monkeypatch.setattr(scaling, "available_memory", lambda: 27.0)
    lines = scaling.run(quick=False).lines
    found = [line.what for line in lines if line.ours.values]
    assert [what for what in found if "against" not in what] == [
        "pretrain resnet18 fp32, batches of 64, two workers",
        "pretrain resnet50 fp32, batches of 64, two workers",
    ]
    assert "needs about 40 GiB of memory, 27.0 are free" in {line.reference_is for line in lines}
