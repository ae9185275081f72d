from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from asd_ray import metrics
from tests.metrics.scored_clips import clip_frame, slow_auc, slow_pauc

# STgram-MFN (liuyoude/STgram-MFN @ 147f292, README): AUC and pAUC of every development ID.
PUBLISHED = {
    "ToyCar": (
        [0.830719697, 0.951617251, 0.995218329, 0.99993531],
        [0.652198679, 0.874308413, 0.981046957, 0.999659526],
    ),
    "ToyConveyor": ([0.869696875, 0.641580986, 0.725856264], [0.766776316, 0.547164566, 0.594070052]),
    "fan": ([0.950638821, 0.996852368, 0.813936782, 0.999972299], [0.894607526, 0.983433514, 0.681034483, 0.999854206]),
    "pump": ([0.892342657, 0.83481982, 0.9999, 0.950490196], [0.744939271, 0.693219535, 0.999473684, 0.832301342]),
    "slider": ([1.0, 0.982209738, 0.99988764, 0.999775281], [1.0, 0.906367041, 0.999408634, 0.998817268]),
    "valve": ([1.0, 0.988333333, 1.0, 0.99725], [1.0, 0.952192982, 1.0, 0.985526316]),
}


def of_split(rows: pd.DataFrame, split: str) -> pd.Series:
    return metrics.averages(rows).set_index("split").loc[split]


def test_the_average_of_2020_on_published_values() -> None:
    """The averages that its authors print, to the last digit."""
    rows = pd.DataFrame(
        [
            ("select", machine, str(n), "none", 1, 1, *both)
            for machine, areas in PUBLISHED.items()
            for n, both in enumerate(zip(*areas, strict=True))
        ],
        columns=list(metrics.ROW_COLUMNS),
    )
    average = of_split(rows, "select")
    assert average["auc"] == pytest.approx(0.923614376, abs=1e-9)
    assert average["pauc"] == pytest.approx(0.863433498, abs=1e-9)
    assert average["mauc"] == pytest.approx(0.8486, abs=5e-5)
    assert average["auc_pauc"] == pytest.approx((0.923614376 + 0.863433498) / 2, abs=1e-9)
    machines = metrics.per_machine(rows).set_index("machine")
    assert machines.loc["ToyConveyor", "auc"] == pytest.approx(0.745711375, abs=1e-9)
    assert machines.loc["ToyConveyor", "pauc"] == pytest.approx(0.636003645, abs=1e-9)
    assert machines.loc["ToyConveyor", "mauc"] == 0.641580986


def slow_2022(clips, split):
    """The official 2022 numbers, written out section by section."""
    eps = np.finfo(float).eps
    aucs, paucs = {"source": [], "target": []}, []
    members = clips[clips["split"] == split]
    for machine in set(members["machine"]):
        for section in set(members["id"]):
            part = members[(members["machine"] == machine) & (members["id"] == section)]
            anomalies = part[part["label"] == "anomaly"]
            for domain in aucs:
                normals = part[(part["label"] == "normal") & (part["domain"] == domain)]
                labels = [0] * len(normals) + [1] * len(anomalies)
                aucs[domain].append(max(slow_auc(labels, [*normals["score"], *anomalies["score"]]), eps))
            paucs.append(max(slow_pauc(part["label"] == "anomaly", part["score"], 0.1), eps))

    def harmonic(values):
        return len(values) / sum(1 / value for value in values)

    return {
        "auc_source": harmonic(aucs["source"]),
        "auc_target": harmonic(aucs["target"]),
        "auc": harmonic(aucs["source"] + aucs["target"]),
        "pauc": harmonic(paucs),
        "auc_pauc": harmonic(aucs["source"] + aucs["target"] + paucs),
    }


def test_the_average_of_2022_against_a_slow_reference():
    clips = clip_frame(np.random.default_rng(2), domains=("source", "target"), ids=("00", "01", "02"))
    rows = metrics.per_id(clips)
    assert list(rows["domain"][:3]) == ["source", "target", "all"]
    assert list(rows["n_normal"][:3]) == [8, 8, 16]
    assert list(rows["n_anomaly"][:3]) == [12, 12, 12]
    for split in metrics.SPLITS:
        averages = of_split(rows, split)
        for name, value in slow_2022(clips, split).items():
            assert averages[name] == pytest.approx(value, abs=1e-12), name
        assert averages["n_ids"] == averages["n_defined"] == 6


def test_an_auc_of_zero_floors_the_harmonic_mean():
    clips = clip_frame(np.random.default_rng(2), machines=("fan",), ids=("00",), domains=("source", "target"))
    clips["score"] = np.where(clips["label"] == "normal", 1.0, 0.0) + (clips["domain"] == "target") * 2
    official = of_split(metrics.per_id(clips), "select")
    assert 0 < official["auc_pauc"] < 1e-14


@pytest.mark.parametrize("lowest", [0.0, 1e-300, 0.3])
def test_the_official_score_of_2022_is_the_harmonic_mean_of_63_numbers(lowest) -> None:
    values = np.random.default_rng(3).uniform(0.4, 1, size=(7, 3, 3))  # source AUC, target AUC, pAUC of a section
    values[2, 1, 1] = lowest
    rows = [
        ("holdout", f"machine-{machine}", f"{section:02}", domain, 50, 100, auc, pauc)
        for machine in range(7)
        for section in range(3)
        for domain, auc, pauc in (
            ("source", values[machine, section, 0], 0.9),
            ("target", values[machine, section, 1], 0.9),
            ("all", 0.9, values[machine, section, 2]),
        )
    ]
    official = of_split(pd.DataFrame(rows, columns=list(metrics.ROW_COLUMNS)), "holdout")
    floored = [max(value, np.finfo(float).eps) for value in values.ravel()]
    assert len(floored) == 63
    assert official["auc_pauc"] == pytest.approx(63 / sum(1 / value for value in floored), rel=1e-12)
    assert official["auc_pauc"] == pytest.approx(scipy.stats.hmean(floored), rel=1e-12)
    assert official["auc_source"] == pytest.approx(scipy.stats.hmean(values[:, :, 0].ravel()), rel=1e-12)
