from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from asd_ray.errors import AsdRayError
from asd_ray.scoring import Embedded, domain_codes, group_logits


def embedded(group, **changed) -> Embedded:
    n = len(group)
    columns = {"embedding": np.ones((n, 4), np.float32), "group_logits": np.zeros((n, 3), np.float32)}
    return Embedded(**{**columns, "group": np.asarray(group, dtype=np.int64), **changed})


def test_domains_are_numbers_that_can_be_left_out() -> None:
    assert embedded([0, 1, -1]).domain.tolist() == [0, 0, 0]
    domain = domain_codes(["source", "target", "none"])
    assert domain.tolist() == [1, 2, 0]
    clips = embedded([0, 1, 2], domain=domain)
    assert clips.domain is domain
    np.testing.assert_array_equal(Embedded(**dataclasses.asdict(clips)).domain, domain)
    assert len(embedded([]).domain) == 0
    with pytest.raises(AsdRayError, match="one of none, source, target; found 'Source'"):
        domain_codes(["source", "Source"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e13, -1e13])
@pytest.mark.parametrize("name", ["embedding", "group_logits"])
def test_what_diverged_is_refused(name: str, value: float) -> None:
    array = np.ones((4, 3), np.float32)
    array[2, 1] = value
    with pytest.raises(
        AsdRayError, match=rf"{name.removeprefix('group_')} of 1 of 4 clips hold NaN.*clip number 2\).*diverged"
    ):
        embedded([0, 1, 2, 0], **{name: array})


def test_arrays_must_fit_together() -> None:
    with pytest.raises(AsdRayError, match="Groups must lie in -1 to 2, found 0 to 3"):
        embedded([0, 3])
    with pytest.raises(AsdRayError, match="Domains must lie in 0 to 2, found 0 to 3"):
        embedded([0, 1], domain=np.array([0, 3]))
    with pytest.raises(AsdRayError, match="2 clips need as many"):
        embedded([0, 1], embedding=np.ones((1, 4), np.float32))
    with pytest.raises(AsdRayError, match=r"and domains, .* and \(3,\)"):
        embedded([0, 1], domain=np.zeros(3, np.int64))
    with pytest.raises(AsdRayError, match=r"2 clips need as many class labels, found the shape \(3,\)"):
        embedded([0, 1], label=np.zeros(3, np.int64))


def test_clips_are_learned_as_their_groups_unless_it_is_said() -> None:
    assert embedded([0, 2]).label.tolist() == [0, 2]
    assert embedded([0, 2], label=np.array([5, 7])).label.tolist() == [5, 7]


def test_p_of_a_group_is_the_sum_over_its_classes() -> None:
    classes = ["fan/00", "fan/00/a", "pump/00/a", "fan/00/b", "pump/01"]
    logits = 5 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    p = logits.double().softmax(dim=1)
    expected = torch.stack([p[:, 0] + p[:, 1] + p[:, 3], p[:, 2], p[:, 4]], dim=1)
    of_groups = group_logits(logits, classes)
    torch.testing.assert_close(of_groups.double().softmax(dim=1), expected, rtol=1e-5, atol=1e-12)
    assert torch.equal(of_groups[:, 1:], logits[:, [2, 4]])
    assert torch.equal(group_logits(logits, ["a/0", "b/0", "a/1", "c/0", "d/0"]), logits)
    assert group_logits(logits[:0], classes).shape == (0, 3)
