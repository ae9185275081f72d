from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray import metrics
from asd_ray.config import FeatureConfig
from asd_ray.data.clips import Clip
from asd_ray.data.side_files import Fault
from asd_ray.explore import bands, pictures
from asd_ray.explore.spectra import Spectra

FEATURES = FeatureConfig(n_mels=16)  # two filters per band


def make(
    gain_db: np.ndarray,
    kinds: list[tuple[str, str, str, str, int]],
    seed: int = 0,
    noise_db: float = 1.0,
) -> Spectra:
    """Clips of (machine, id, split, label, number), each a steep spectrum with noise, plus (clips, 8) dB of change."""
    rng = np.random.default_rng(seed)
    clips = [
        Clip(f"{machine}/{split}/{label}_{machine_id}_{number}.wav", machine, machine_id, split, label)  # type: ignore[arg-type]
        for machine, machine_id, split, label, count in kinds
        for number in range(count)
    ]
    tilt = -5.0 * np.arange(8) + 3 * np.array([len(clip.id) + ord(clip.id[-1]) for clip in clips])[:, None]
    levels = tilt + noise_db * rng.standard_normal((len(clips), 8)) + gain_db
    return Spectra(clips, np.repeat(10 ** (levels / 10), 2, axis=1), FEATURES)


def kinds(machine: str = "fan", ids: tuple[str, ...] = ("00", "02"), count: int = 30) -> list[tuple]:
    parts = (("train", "normal"), ("test", "normal"), ("test", "anomaly"))
    return [(machine, machine_id, split, label, count) for machine_id in ids for split, label in parts]


def planted(layout: list[tuple], change: dict[int, float]) -> np.ndarray:
    """Changes in dB of anomalous clips, by band from 0."""
    rows = []
    for _, _, _, label, count in layout:
        row = np.zeros(8)
        if label == "anomaly":
            row[list(change)] = list(change.values())
        rows.append(np.tile(row, (count, 1)))
    return np.concatenate(rows)


def means(table: pd.DataFrame, measure: str, machine: str = "fan", fault: str = "") -> np.ndarray:
    rows = table[(table["id"] == "mean") & (table["machine"] == machine) & (table["fault"] == fault)]
    return rows.set_index("band").loc[range(1, 9), measure].to_numpy()


@pytest.mark.parametrize(("band", "change"), [(6, 4.0), (1, 4.0), (3, -4.0)])
def test_a_planted_change_is_found_in_its_band_alone_and_with_its_direction(band: int, change: float) -> None:
    layout = kinds()
    table = bands.analyse(make(planted(layout, {band: change}), layout))
    either = means(table, "shape_either")
    assert either.argmax() == band
    assert either[band] > 0.9
    others = np.delete(either, band)
    assert (np.abs(others - 0.5) < 0.2).all()
    assert (means(table, "shape_more")[band] > 0.9) == (change > 0)
    assert (means(table, "energy_more")[band] > 0.9) == (change > 0)


def test_loudness_hides_the_band_from_energy_but_not_from_shape() -> None:
    layout = kinds()
    louder = planted(layout, dict.fromkeys(range(8), 12.0)) + planted(layout, {5: 4.0})
    table = bands.analyse(make(louder, layout))
    assert means(table, "energy_either").min() > 0.99
    assert means(table, "shape_either").argmax() == 5
    assert np.delete(means(table, "shape_either"), 5).max() < 0.7
    level = table[(table["band"] == 0) & (table["machine"] == "all")]
    assert level["energy_more"].item() == 1
    assert level["shape_either"].isna().all()


@given(st.integers(0, 2**16))
@settings(deadline=None, max_examples=5)
def test_gain_does_not_change_the_shape(seed: int) -> None:
    layout = kinds(count=6)
    gain = 20 * np.random.default_rng(seed).standard_normal((36, 1))
    still = bands.analyse(make(planted(layout, {2: 1.0}), layout, seed))
    moved = bands.analyse(make(planted(layout, {2: 1.0}) + gain, layout, seed))
    for measure in ("shape_more", "shape_either"):
        np.testing.assert_allclose(still[measure], moved[measure])
    assert not np.allclose(still["energy_either"], moved["energy_either"])


@pytest.mark.parametrize("domains", [False, True])
def test_equals_the_metrics_of_slowly_computed_scores(domains: bool) -> None:
    layout = [*kinds(count=8), *kinds("pump", ("00", "06"), 5)]
    spectra = make(planted(layout, {4: 1.0, 0: -1.0}), layout)
    clips = [
        Clip(c.path, c.machine, c.id, c.split, c.label, ("source", "target")[n % 2] if domains else "none")
        for n, c in enumerate(spectra.clips)
    ]
    spectra = Spectra(clips, spectra.power, FEATURES)
    table = bands.analyse(spectra).set_index(["machine", "id", "domain", "band"])
    levels = spectra.band_levels()
    for measure in bands.MEASURES:
        for band in (1, 5, 8):
            rows = []
            for clip, level in zip(clips, levels, strict=True):
                if clip.split == "train":
                    continue
                usual = np.mean(
                    [x for c, x in zip(clips, levels, strict=True) if (c.group, c.split) == (clip.group, "train")],
                    axis=0,
                )
                away = level - usual
                score = away[band - 1] - (np.median(away[:8]) if measure.startswith("shape") else 0)
                score = abs(score) if measure.endswith("either") else score
                rows.append(("test", clip.machine, clip.id, clip.domain, clip.label, score))
            frame = pd.DataFrame(rows, columns=["split", "machine", "id", "domain", "label", "score"])
            expected = metrics.per_id(frame)
            for row in expected.itertuples():
                assert table.loc[(row.machine, row.id, row.domain, band), measure] == pytest.approx(row.auc)
            overall = metrics.averages(expected)["auc"].item()
            assert table.loc[("all", "mean", "", band), measure] == pytest.approx(overall)


def test_an_id_without_training_clips_has_only_the_direct_measure() -> None:
    layout = [("fan", "00", "test", "normal", 4), ("fan", "00", "test", "anomaly", 4), *kinds(ids=("02",), count=4)]
    table = bands.analyse(make(planted(layout, {1: 9.0}), layout))
    row = table[(table["id"] == "00") & (table["band"] == 2)].iloc[0]
    assert (row["n_train"], row["n_normal"], row["n_anomaly"]) == (0, 4, 4)
    assert row["energy_more"] == 1
    assert row[["energy_either", "shape_more", "shape_either"]].isna().all()
    mean = table[(table["id"] == "mean") & (table["machine"] == "fan") & (table["band"] == 2)].iloc[0]
    assert mean["shape_either"] == table[(table["id"] == "02") & (table["band"] == 2)]["shape_either"].item()


def test_a_set_without_training_clips_still_has_energies() -> None:
    layout = [("fan", "00", "test", "normal", 9), ("fan", "00", "test", "anomaly", 9)]
    table = bands.analyse(make(planted(layout, {1: 9.0}), layout))
    assert means(table, "energy_more").argmax() == 1
    assert table[["energy_either", "shape_more", "shape_either"]].isna().all(axis=None)
    text = bands.report(table, "set", synthetic=False)
    assert "No ID has training clips" in text
    assert "| fan       | 0/9/9   |" in text
    pictures.mean_spectra(make(planted(layout, {1: 9.0}), layout), table, synthetic=False)


def test_faults_have_rows_of_their_own_against_the_machines_normal_clips() -> None:
    layout = [*kinds(), *kinds("pump")]
    change, faults = np.zeros((len(layout) * 30, 8)), {}
    clean = make(change, layout)
    for number, clip in enumerate(clean.clips):
        if clip.label == "anomaly":
            low = number % 2 == 0
            faults[clip.path] = Fault("clogging", "low", "0.5") if low else Fault("leak", "high", "0.5")
            change[number, 1 if low else 6] = 5
    table = bands.analyse(make(change, layout), faults)
    for machine in ("fan", "pump"):
        assert means(table, "shape_either", machine, "clogging").argmax() == 1
        assert means(table, "shape_either", machine, "leak").argmax() == 6
        both = means(table, "shape_either", machine)
        assert set(np.argsort(both)[-2:]) == {1, 6}
    rows = table[(table["machine"] == "fan") & (table["fault"] == "leak") & (table["id"] == "mean")]
    assert set(rows["fault_band"]) == {"high"}
    assert set(zip(rows["n_normal"], rows["n_anomaly"], strict=True)) == {(60, 30)}
    assert not ((table["machine"] == "all") & (table["fault"] != "")).any()
    text = bands.report(table, "set", synthetic=True)
    assert "Synthetic data" in text
    assert text.count("| clogging") == text.count("| leak") == 4


def test_chance_is_the_deviation_of_aucs_where_nothing_differs() -> None:
    layout = kinds(count=9) + kinds("pump", ("00",), 5)
    tables = [bands.analyse(make(np.zeros((69, 8)), layout, seed)) for seed in range(12)]
    for machine in ("fan", "pump", "all"):
        found = np.std([means(table, "shape_either", machine) for table in tables])
        stated = tables[0][(tables[0]["machine"] == machine) & (tables[0]["id"] == "mean")]["chance_sd"].iloc[0]
        assert found == pytest.approx(stated, rel=0.3)


def test_the_verdict_compares_upper_and_lower_bands() -> None:
    layout = [*kinds(), *kinds("pump")]
    high = bands.analyse(make(planted(layout, {5: 5.0, 6: 5.0, 7: 5.0}), layout))
    low = bands.analyse(make(planted(layout, {0: 5.0, 1: 5.0}), layout))
    assert "more above 1,689 Hz" in bands.verdict(high)  # half of 8 kHz in mel
    assert "on 2 of 2 machines" in bands.verdict(high)
    assert "on 0 of 2 machines" in bands.verdict(low)
    halves = means(high, "shape_either", "all")
    assert (
        f"{halves[4:].mean():.2f} in the upper four bands, {halves[:4].mean():.2f} in the lower four"
        in bands.verdict(high)
    )
    assert "luck alone gives about 0.4" in bands.verdict(high)


def test_tables_have_a_row_per_machine_and_say_the_edges() -> None:
    layout = kinds(count=4)
    table = bands.analyse(make(planted(layout, {1: 9.0}), layout))
    lines = bands.band_table(table, "energy_more").splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["fan", "all"]
    assert lines[0].count(" Hz") == 8
    assert "whole clip" in lines[0]
    assert "whole clip" not in bands.band_table(table, "shape_more")
    assert "8/8/8" in lines[2]
    assert "By kind of fault" not in bands.report(table, "set", synthetic=False)
