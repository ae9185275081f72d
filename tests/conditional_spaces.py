"""Search spaces with conditions, drawn at random from keys that every study of ``sia_moco`` has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

CONDITIONS: dict[str, dict[str, Any]] = {
    "method.pretrain.projection": {"choice": ["linear", "mlp"]},
    "evaluation.distance": {"choice": ["cosine", "euclidean"]},
    "evaluation.neighbours": {"int": [1, 3]},
    "evaluation.per_domain": {"choice": [True, False]},
}
OTHERS: dict[str, dict[str, Any]] = {
    "method.pretrain.alpha": {"uniform": [0.1, 0.6]},
    "method.pretrain.temperature": {"loguniform": [0.05, 0.5]},
    "method.pretrain.queue_size": {"logint": [64, 65536]},
}


def values_of(key: str) -> list[Any]:
    [(kind, bounds)] = CONDITIONS[key].items()
    return bounds if kind == "choice" else list(range(bounds[0], bounds[1] + 1))


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Spaces as a study file has them, in any order, without circles: a key depends on earlier ones of an order."""
    order = draw(st.permutations([*CONDITIONS, *OTHERS]))
    space: dict[str, dict[str, Any]] = {}
    for place, key in enumerate(order):
        space[key] = dict({**CONDITIONS, **OTHERS}[key])
        earlier = [other for other in order[:place] if other in CONDITIONS]
        for other in draw(st.lists(st.sampled_from(earlier), unique=True, max_size=2)) if earlier else []:
            accepted = draw(st.lists(st.sampled_from(values_of(other)), unique=True, min_size=1))
            space[key].setdefault("when", {})[other] = accepted if len(accepted) > 1 else accepted[0]
    return {key: space[key] for key in draw(st.permutations(order))}


def active(space: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]) -> dict[str, Any]:
    """The slow, obvious way: keys are added while there is one whose conditions all hold among those that are in."""
    found: dict[str, Any] = {}
    while True:
        new = [
            key
            for key in space
            if key not in found
            and all(
                other in found and found[other] in (accepted if isinstance(accepted, list) else [accepted])
                for other, accepted in space[key].get("when", {}).items()
            )
        ]
        if not new:
            return found
        found.update({key: values[key] for key in new})
