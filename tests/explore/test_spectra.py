from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asd_ray.config import FeatureConfig
from asd_ray.data.clips import Clip
from asd_ray.errors import AsdRayError
from asd_ray.explore import mel_axis, spectra
from asd_ray.features import store

RATE = 16000


def write(root: Path, path: str, signal: np.ndarray) -> Clip:
    machine, split, name = path.split("/")
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(root / path, signal, RATE, subtype="FLOAT")
    return Clip(path, machine, "00", split, name.split("_")[0], sample_rate=RATE, frames=len(signal))  # type: ignore[arg-type]


def tone(hertz: float, amplitude: float = 0.1) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)


def band_of(hertz: float, features: FeatureConfig) -> int:
    return int(np.searchsorted(mel_axis.band_edges(features), hertz)) - 1


@pytest.mark.parametrize(
    "config",
    [
        FeatureConfig(seconds=1),
        FeatureConfig(seconds=1, norm=None, log="db"),
        FeatureConfig(seconds=1, mel_scale="htk", n_mels=100, power=1.0, log="db"),
        FeatureConfig(seconds=1, n_mels=8, floor_rule="add"),
    ],
)
@pytest.mark.parametrize("hertz", [150, 3000, 7000])
def test_a_tones_energy_is_in_its_band(tmp_path: Path, config: FeatureConfig, hertz: float) -> None:
    clips = [
        write(tmp_path, "fan/test/normal_0.wav", tone(hertz)),
        write(tmp_path, "fan/test/normal_1.wav", tone(hertz, 0.05)),
    ]
    levels = spectra.spectra_from_recordings(clips, tmp_path, config).band_levels()
    assert levels.shape == (2, 9)
    assert levels[0, :8].argmax() == band_of(hertz, config)
    assert levels[0, 8] == pytest.approx(levels[0].max(), abs=3)
    # Half the amplitude is 6 dB, for any exponent and logarithm.
    assert levels[0, 8] - levels[1, 8] == pytest.approx(20 * np.log10(2), abs=0.01)


def test_a_bands_energy_does_not_depend_on_the_filters_norm_or_the_logarithm(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    clips = [write(tmp_path, "fan/test/normal_0.wav", noise)]
    by_norm = [
        spectra.spectra_from_recordings(clips, tmp_path, FeatureConfig(seconds=1, norm=norm, log=log)).band_levels()
        for norm in (None, "slaney")
        for log in ("natural", "db")
    ]
    for levels in by_norm[1:]:
        np.testing.assert_allclose(levels, by_norm[0], atol=1e-3)
    # White noise: energy is proportional to bandwidth, but for the half filters at both ends.
    widths = np.diff(mel_axis.band_edges(FeatureConfig()))
    np.testing.assert_allclose(
        by_norm[0][0, 1:7] - 10 * np.log10(widths[1:7]), by_norm[0][0, 3] - 10 * np.log10(widths[3]), atol=1
    )


def make_store(folder: Path, clips: list[Clip], log_mel: np.ndarray, config: FeatureConfig, skipped: list[str]) -> None:
    shards: dict[str, list[store.Shard]] = {"train": [], "test": []}
    for number, clip in enumerate(clips):  # a shard per clip
        columns = {"log_mel": log_mel[number : number + 1].astype(np.float16), "level_db": np.zeros(1, np.float32)}
        name = store.write_shard(
            folder, f"log_mel-{clip.split}-{number:05d}-{number:016x}", [clip], columns, {"clips": 1}
        )
        shards[clip.split].append(store.Shard(1, {"log_mel": name}))
    counts = {split: len(files) for split, files in shards.items()}
    store.write_manifest(folder, store.Manifest(store.settings_of(config, 0), shards, counts, 0.0, 1.0, {}, skipped))


@pytest.mark.parametrize("log", ["natural", "db"])
def test_a_store_gives_the_spectra_of_the_recordings(tmp_path: Path, log: str) -> None:
    config = FeatureConfig(seconds=1, n_mels=32, log=log, n_fft=512, win_length=512)
    rng = np.random.default_rng(0)
    clips = [
        write(tmp_path, f"fan/{split}/normal_{n}.wav", 0.1 * rng.standard_normal(RATE))
        for split in ("train", "test")
        for n in range(2)
    ]
    read = spectra.log_mel_reader(config)
    make_store(tmp_path / "store", clips, np.stack([read(tmp_path / clip.path) for clip in clips]), config, [])
    calls: list[tuple[int, int]] = []
    wanted = [clips[3], clips[0]]
    found = spectra.spectra_from_store(wanted, tmp_path / "store", lambda done, total: calls.append((done, total)))
    direct = spectra.spectra_from_recordings(wanted, tmp_path, config)
    assert found.clips == direct.clips == wanted
    assert found.features == config
    np.testing.assert_allclose(found.decibels, direct.decibels, atol=0.05)
    assert calls[-1] == (2, 2)


def test_a_store_without_a_clip_says_so_unless_it_left_it_out_itself(tmp_path: Path) -> None:
    config = FeatureConfig(seconds=1, n_mels=8)
    clips = [write(tmp_path, f"fan/test/normal_{n}.wav", tone(500)) for n in range(2)]
    features = np.zeros((1, 8, config.frames))
    make_store(tmp_path / "store", clips[:1], features, config, [])
    with pytest.raises(AsdRayError, match=r"1 of 2 clips are not in this store \(the first is fan/test/normal_1.wav\)"):
        spectra.spectra_from_store(clips, tmp_path / "store")
    make_store(tmp_path / "skipping", clips[:1], features, config, ["fan/test/normal_1.wav"])
    assert spectra.spectra_from_store(clips, tmp_path / "skipping").clips == clips[:1]
    with pytest.raises(AsdRayError, match="no feature store is there"):
        spectra.spectra_from_store(clips, tmp_path)


def test_a_bad_recording_stops_the_analysis_or_is_left_out(tmp_path: Path) -> None:
    clips = [write(tmp_path, f"fan/test/normal_{n}.wav", tone(500)) for n in range(2)]
    (tmp_path / clips[0].path).write_bytes(b"RIFF")
    config = FeatureConfig(seconds=1)
    with pytest.raises(AsdRayError, match=r"normal_0\.wav.*data\.skip_bad=true"):
        spectra.spectra_from_recordings(clips, tmp_path, config)
    assert spectra.spectra_from_recordings(clips, tmp_path, config, skip_bad=True).clips == clips[1:]
    with pytest.raises(AsdRayError, match="none of its 1 clips could be read"):
        spectra.spectra_from_recordings(clips[:1], tmp_path, config, skip_bad=True)


def test_only_machines_with_both_kinds_of_test_clips_are_analysed(caplog: pytest.LogCaptureFixture) -> None:
    def clip(machine: str, split: str, label: str) -> Clip:
        return Clip(f"{machine}/{split}/{label}.wav", machine, "00", split, label)  # type: ignore[arg-type]

    fan = [clip("fan", "train", "normal"), clip("fan", "test", "normal"), clip("fan", "test", "anomaly")]
    hidden = [clip("pump", "train", "normal"), clip("pump", "test", "unknown"), clip("fan", "test", "unknown")]
    assert spectra.comparable_clips([*fan, *hidden], Path("set")) == fan
    assert "pump: left out" in caplog.text
    with pytest.raises(AsdRayError, match=r"set: no machine has both .* \(their labels: unknown\).*clips\.csv"):
        spectra.comparable_clips(hidden, Path("set"))
    with pytest.raises(AsdRayError, match="no test clips"):
        spectra.comparable_clips(fan[:1], Path("set"))
