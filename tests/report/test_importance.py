from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from asd_ray.report.importance import FANOVA_UP_TO, importance

SPACE = {
    "method.alpha": {"uniform": [0.1, 0.6]},
    "method.size": {"logint": [32, 512]},
    "method.kind": {"choice": ["a", "b", None]},
}


def trials_of(n: int, seed: int = 0) -> pd.DataFrame:
    """The objective depends on alpha alone, but for a little noise."""
    rng = np.random.default_rng(seed)
    alpha = rng.uniform(0.1, 0.6, n)
    return pd.DataFrame(
        {
            "trial": range(n),
            "status": "complete",
            "objective": 0.8 - abs(alpha - 0.35) + 0.01 * rng.normal(size=n),
            "method.alpha": alpha,
            "method.size": np.exp(rng.uniform(np.log(32), np.log(512), n)).astype(int),
            "method.kind": rng.choice(["a", "b"], n),
        }
    )


@pytest.mark.parametrize(("n", "how"), [(60, "fANOVA"), (FANOVA_UP_TO + 1, "PED-ANOVA")])
def test_the_key_that_matters_is_found(n: int, how: str) -> None:
    found = importance(trials_of(n), list(SPACE), SPACE)
    assert found.how == how
    assert found.keys[0] == "method.alpha"
    assert found.shares["method.alpha"] > 0.6
    assert sum(found.shares.values()) == pytest.approx(1)
    assert importance(trials_of(n), list(SPACE), SPACE) == found  # the same every time


def test_only_complete_trials_count() -> None:
    trials = trials_of(60)
    stopped = trials_of(60, seed=1).assign(status="pruned", objective=lambda rows: rows["method.size"] / 512)
    both = pd.concat([trials, stopped], ignore_index=True)
    assert importance(both, list(SPACE), SPACE) == importance(trials, list(SPACE), SPACE)


def test_too_few_trials_and_nothing_to_explain_are_said() -> None:
    assert (
        importance(trials_of(9), list(SPACE), SPACE).missing == "9 complete trials are too few for it; 10 are needed."
    )
    keys = [f"method.k{number}" for number in range(8)]
    many = trials_of(12).assign(**{key: np.arange(12.0) for key in keys})
    assert "16 are needed" in importance(many, keys, {key: {"uniform": [0, 12]} for key in keys}).missing
    flat = trials_of(20).assign(objective=0.5)
    assert "No searched key, or no objective, differs" in importance(flat, list(SPACE), SPACE).missing
    assert importance(trials_of(20), [], {}).shares == {}


def test_a_key_under_a_condition_counts_once_there_are_trials_enough() -> None:
    space = {**SPACE, "method.size": {"logint": [32, 512], "when": {"method.kind": "a"}}}

    def conditional(n: int) -> pd.DataFrame:
        trials = trials_of(n)
        size = trials["method.size"].where(trials["method.kind"] == "a")
        # Where it is drawn the objective is its alone.
        return trials.assign(**{"method.size": size}, objective=trials["objective"].where(size.isna(), size / 512))

    found = importance(conditional(120), list(space), space)
    assert found.how == "PED-ANOVA"
    assert set(found.shares) == set(space)
    assert found.shares["method.size"] > found.shares["method.alpha"]
    few = importance(conditional(40), list(space), space)
    assert few.how == "fANOVA, without method.size, which not every trial has"
    assert set(few.shares) == {"method.alpha", "method.kind"}


def test_constant_and_incomplete_keys_are_left_out_and_warm_starts_may_lie_outside() -> None:
    trials = trials_of(40)
    trials["method.size"] = 64
    trials.loc[3, "method.kind"] = None
    trials.loc[0, "method.alpha"] = 0.9
    found = importance(trials, list(SPACE), SPACE)
    assert list(found.shares) == ["method.alpha"]
