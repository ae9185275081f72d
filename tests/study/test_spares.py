"""Processes started ahead of their trials: how many, and when."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from asd_ray.study import spares


def started(at_once: int, processes: int, begun: int) -> list[int]:
    """What is asked of Ray before any trial begins, and when each of some trials has begun."""
    asked: list[int] = []
    with patch.object(spares, "start_processes", asked.append):
        kept = spares.Spares(at_once)
        kept.expect(processes)
        before = [sum(asked)]
        for _ in range(begun):
            kept.trial_begins()
            before.append(sum(asked))
    return before


def test_one_for_every_place_and_the_next_when_a_trial_takes_it() -> None:
    assert started(at_once=2, processes=5, begun=5) == [2, 3, 4, 5, 5, 5]


def test_none_for_a_study_that_has_nothing_to_run() -> None:
    assert started(at_once=2, processes=0, begun=0) == [0]


def test_a_trial_that_begins_again_after_a_failure_may_find_none() -> None:
    assert started(at_once=1, processes=2, begun=4) == [1, 2, 2, 2, 2]


@given(st.integers(1, 100), st.integers(0, 40))
def test_every_trial_finds_one_and_none_is_left(at_once: int, processes: int) -> None:
    before = started(at_once, processes, processes)
    for trial in range(processes):
        assert trial < before[trial] <= trial + min(at_once, spares.MOST)
    assert before[-1] == processes


def test_repeats_are_expected_after_the_trials() -> None:
    asked: list[int] = []
    with patch.object(spares, "start_processes", asked.append):
        kept = spares.Spares(2)
        kept.expect(1)
        kept.trial_begins()
        kept.expect(3)
    assert asked == [1, 2]
