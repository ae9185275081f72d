"""The synthetic set: what is planned, and how it sounds."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from asd_ray.config import SyntheticConfig
from asd_ray.data.synthetic.acoustics import Grid, power, to_spectrum
from asd_ray.data.synthetic.machines import MACHINES
from asd_ray.data.synthetic.recordings import IDS, LEVEL_DB, Recording, plan, render
from asd_ray.errors import AsdRayError

SMALL = SyntheticConfig(machines=2, ids=1, train=3, test_normal=2, test_anomaly=2)
configs = st.builds(
    SyntheticConfig,
    machines=st.integers(1, len(MACHINES)),
    ids=st.integers(1, 7),
    train=st.integers(1, 30),
    test_normal=st.integers(1, 15),
    test_anomaly=st.integers(1, 15),
    seed=st.integers(0, 2**31),
)
layouts = st.sampled_from(["dcase2020", "dcase2022"])


# --- Plan ------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(configs, layouts)
def test_a_plan_has_what_was_asked_for(config, layout):
    recordings = plan(config, layout)
    assert recordings == plan(config, layout)
    assert len({r.path for r in recordings}) == len({r.seed for r in recordings}) == len(recordings)
    count = Counter((r.machine, r.id, r.split, r.label) for r in recordings)
    names = IDS[layout][: config.ids]
    asked = {("train", "normal"): config.train, ("test", "normal"): config.test_normal}
    asked["test", "anomaly"] = config.test_anomaly
    machines = list(MACHINES)[: config.machines]
    assert count == {(m, i, *key): n for m in machines for i in names for key, n in asked.items()}
    for r in recordings:
        assert (r.label == "anomaly") == bool(r.fault) == bool(r.band) == (r.severity > 0)
        assert not r.fault or MACHINES[r.machine].faults[r.fault].band == r.band
        assert LEVEL_DB[0] <= r.level_db <= LEVEL_DB[1]


@pytest.mark.parametrize("layout", ["dcase2020", "dcase2022"])
def test_kinds_of_fault_differ_by_one_clip_at_most(layout):
    config = SyntheticConfig(machines=6, ids=2, test_anomaly=23)
    strata: dict[tuple[str, ...], Counter[str]] = {}
    for r in plan(config, layout):
        if r.fault:
            strata.setdefault((r.machine, r.id, r.domain), Counter())[r.fault] += 1
        if r.fault and r.domain != "none":
            strata.setdefault((r.machine, r.id, "both"), Counter())[r.fault] += 1
    for (machine, *_), kinds in strata.items():
        assert set(kinds) == set(MACHINES[machine].faults)
        assert max(kinds.values()) - min(kinds.values()) <= 1


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**31), st.integers(12, 40), layouts)
def test_loudness_tells_nothing_on_any_id(seed, clips, layout):
    config = SyntheticConfig(machines=3, ids=4, train=24, test_normal=clips, test_anomaly=clips, seed=seed)
    by_id: dict[tuple[str, str], list[Recording]] = {}
    for recording in plan(config, layout):
        by_id.setdefault((recording.machine, recording.id), []).append(recording)
    areas: dict[str, list[float]] = {}
    for members in by_id.values():
        usual = np.mean([r.level_db for r in members if r.split == "train"])
        test = [r for r in members if r.split == "test"]
        labels = [r.label == "anomaly" for r in test]
        for name, scores in {
            "level": [r.level_db for r in test],
            "distance": [abs(r.level_db - usual) for r in test],
            "speed": [r.speed for r in test],
            "load": [r.load for r in test],
            "snr": [r.snr_db for r in test],
        }.items():
            areas.setdefault(name, []).append(roc_auc_score(labels, scores))
    for name, values in areas.items():
        assert 0.45 < np.mean(values) < 0.55, name
        assert 0.25 < min(values) <= max(values) < 0.75, name


def test_a_larger_set_has_the_same_machines():
    few, many = plan(SMALL), plan(SyntheticConfig(**{**SMALL.model_dump(), "machines": 4, "ids": 3}))
    assert set(few) <= set(many)


def test_another_seed_has_other_machines():
    first, other = plan(SMALL), plan(SMALL.model_copy(update={"seed": 1}))
    assert [r.path for r in first] == [r.path for r in other]
    assert not {r.individual for r in first} & {r.individual for r in other}


def test_the_target_domain_is_rare_in_training_and_shifted():
    recordings = plan(SyntheticConfig(machines=1, ids=2, train=30, test_normal=8, test_anomaly=8), "dcase2022")
    count = Counter((r.id, r.split, r.label, r.domain) for r in recordings)
    for name in ("00", "01"):
        assert count[name, "train", "normal", "target"] == 3
        assert count[name, "test", "anomaly", "target"] == count[name, "test", "normal", "source"] == 4
    source, target = ([r for r in recordings if r.domain == domain] for domain in ("source", "target"))
    assert max(r.speed for r in source) < min(r.speed for r in target)
    assert np.mean([r.load for r in source]) + 0.2 < np.mean([r.load for r in target])


@pytest.mark.parametrize(
    ("config", "layout", "message"),
    [
        (SMALL, "dcase2019", "expected one of dcase2020, dcase2022"),
        (SMALL.model_copy(update={"machines": 7}), "dcase2020", "at most 6 types"),
        (SMALL.model_copy(update={"ids": 8}), "dcase2022", "7 IDs"),
    ],
)
def test_a_plan_beyond_the_generator_is_refused(config, layout, message):
    with pytest.raises(AsdRayError, match=message):
        plan(config, layout)


# --- Sound -----------------------------------------------------------------------------------------------------------

EXAMPLES = plan(SyntheticConfig(machines=6, ids=1, train=1, test_normal=1, test_anomaly=4))


@pytest.mark.parametrize("recording", EXAMPLES[::2], ids=lambda r: r.path)
def test_a_clip_has_its_level_whatever_its_fault(recording):
    signal = render(recording)
    assert signal.dtype == np.float32
    assert signal.shape == (160000,)
    assert 20 * np.log10(np.sqrt(np.mean(signal.astype(float) ** 2))) == pytest.approx(recording.level_db, abs=0.01)
    assert np.abs(signal).max() < 1, "clipped"


GOLDEN = {  # power in dB of full scale in 50-300, 300-1000, 1000-3000, 3000-7500 Hz of each machine's first faulty clip
    "fan": (-41.8, -46.5, -47.3, -56.9),
    "pump": (-44.3, -46.6, -44.4, -60.1),
    "slider": (-45.1, -44.2, -45.4, -50.3),
    "valve": (-52.2, -46.7, -42.9, -49.0),
    "gearbox": (-50.6, -43.9, -44.9, -47.0),
    "ToyCar": (-55.5, -43.3, -46.9, -46.0),
}


@pytest.mark.parametrize(
    "recording", [r for r in EXAMPLES if r.path.endswith("anomaly_id_00_00000000.wav")], ids=lambda r: r.machine
)
def test_sounds_do_not_change_unnoticed(recording):
    """Whoever changes a sound on purpose raises GENERATOR, and these numbers."""
    grid = Grid(16000, 160000)
    spectrum = to_spectrum(render(recording))
    bands = [power(spectrum, grid, *edges) for edges in ((50, 300), (300, 1000), (1000, 3000), (3000, 7500))]
    np.testing.assert_allclose(10 * np.log10(bands), GOLDEN[recording.machine], atol=0.15)


def test_a_clip_is_the_same_in_another_process():
    script = (
        "import hashlib\n"
        "from asd_ray.config import SyntheticConfig\n"
        "from asd_ray.data.synthetic.recordings import plan, render\n"
        "clips = plan(SyntheticConfig(machines=2, ids=1, train=3, test_normal=2, test_anomaly=2))[::3]\n"
        "print(hashlib.sha256(b''.join(render(clip, 8000, 2.0).tobytes() for clip in reversed(clips))).hexdigest())\n"
    )
    there = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    here = hashlib.sha256(b"".join(render(clip, 8000, 2.0).tobytes() for clip in reversed(plan(SMALL)[::3])))
    assert there == here.hexdigest()


def test_the_snr_is_the_machine_over_the_rest():
    """At a high SNR a clip is all machine, at a low one all background; between, it is their sum."""
    recording = EXAMPLES[0]
    machine, noise = (render(replace(recording, snr_db=snr), seconds=2.0) for snr in (80.0, -80.0))
    for snr in (-6.0, 6.0):
        mixture = render(replace(recording, snr_db=snr), seconds=2.0).astype(float)
        basis = np.stack([machine, noise], axis=1).astype(float)
        weights, residual, *_ = np.linalg.lstsq(basis, mixture, rcond=None)
        assert residual[0] < 1e-3 * np.sum(mixture**2)
        # The room and the microphone come after the SNR was set, and change it a little.
        assert 20 * np.log10(weights[0] / weights[1]) == pytest.approx(snr, abs=4)


def test_a_target_domain_is_heard_elsewhere():
    source = next(r for r in plan(SMALL, "dcase2022") if r.domain == "source")
    target = replace(source, domain="target")

    def spectrum(recording: Recording) -> np.ndarray:
        return 10 * np.log10((np.abs(np.fft.rfft(render(recording)))[1:] ** 2).reshape(100, -1).mean(1))

    moved = np.std(spectrum(source) - spectrum(target))
    assert moved > 1.5 * np.std(spectrum(source) - spectrum(replace(source, seed=1)))
