from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from matplotlib.image import imread
from typer.testing import CliRunner, Result

from asd_ray.cli.features import features_app
from asd_ray.config import FeatureConfig
from asd_ray.data import layouts
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.explore import pictures
from asd_ray.explore.spectra import log_mel_reader
from asd_ray.features import store

REAL = Path(__file__).parents[3] / "shared" / "data" / "real-mini"
SHORT = ["--set", "features.seconds=1", "--set", "features.n_mels=32"]


def show(*arguments: object) -> Result:
    return CliRunner().invoke(features_app, ["show", *map(str, arguments)])


def done(*arguments: object) -> dict:
    result = show(*arguments, "--json")
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


def refused(*arguments: object) -> AsdRayError:
    result = show(*arguments)
    assert isinstance(result.exception, AsdRayError), result.output
    return result.exception


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One machine, two IDs: noise, whose anomalies have more of it above 5.4 kHz, where the last band begins."""
    root, rng = tmp_path_factory.mktemp("set"), np.random.default_rng(0)
    faults = ["path,fault,band"]
    for machine_id in ("00", "02"):
        for split, label, count in (("train", "normal", 8), ("test", "normal", 6), ("test", "anomaly", 6)):
            for number in range(count):
                path = root / "fan" / split / f"{label}_id_{machine_id}_{number:08d}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                spectrum = np.fft.rfft(rng.standard_normal(16000))
                if label == "anomaly":
                    spectrum[5400:] *= 2
                    faults.append(f"{path.relative_to(root).as_posix()},whine,high")
                soundfile.write(path, 0.05 * np.fft.irfft(spectrum), 16000)
    (root / "faults.csv").write_text("\n".join(faults) + "\n")
    return root


def test_clips_become_a_picture_that_names_them(recordings: Path, tmp_path: Path) -> None:
    names = ["test/normal_id_00_00000000.wav", "test/anomaly_id_02_00000001.wav"]
    result = done(*(recordings / "fan" / name for name in names), "--out", tmp_path / "clips.png", *SHORT)
    assert imread(result["picture"]).std() > 0.1
    normal, anomaly = result["clips"]
    assert (normal["machine"], normal["id"], normal["label"]) == ("fan", "00", "normal")
    assert (anomaly["label"], anomaly["fault"]) == ("anomaly", "whine")
    text = show(recordings / "fan" / names[0], "--out", tmp_path / "one.svg", *SHORT)
    assert text.stdout.startswith("1 clip in ")
    svg = (tmp_path / "one.svg").read_text()
    assert "<svg" in svg


def test_views_depend_on_the_seed_and_the_studys_settings(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = sorted((recordings / "fan" / "train").iterdir())[:2]

    def views(*options: object) -> list[dict]:
        result = done(*clips, "--augment", "--out", tmp_path / "views.png", *SHORT, *options)
        return [view for clip in result["clips"] for view in clip["views"]]

    first = views()
    assert len(first) == 4
    assert imread(tmp_path / "views.png").std() > 0.1
    monkeypatch.setattr(pictures, "save", lambda figure, path: None)  # one picture is enough, the views are in the JSON
    assert {view["mixed_with"] for view in first} == {clip.name for clip in clips}
    seeded = views("--seed", 1)
    assert seeded != first
    study = tmp_path / "study.yaml"
    study.write_text("name: x\nseed: 1\nfeatures: {seconds: 1, n_mels: 32}\nmethod: {pretrain: {alpha: 0.01}}\n")
    small = views("--study", study)
    assert [view["crop"] for view in small] == [view["crop"] for view in seeded]
    assert all(view["lambda"] < 0.01 for view in small)


def test_a_set_becomes_a_table_a_report_and_a_figure(recordings: Path, tmp_path: Path) -> None:
    result = done("--data", recordings, "--out", tmp_path / "out", *SHORT)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bands.csv", "bands.md", "spectra.png"]
    table = pd.read_csv(tmp_path / "out" / "bands.csv", dtype={"id": str}, keep_default_na=False)
    best = pd.to_numeric(table[table["machine"] == "all"].set_index("band")["shape_either"])
    assert best.idxmax() == 8
    assert set(table["fault"]) == {"", "whine"}
    rows = [row for row in result["bands"] if row["machine"] == "all" and row["band"] == 8]
    assert rows[0]["energy_more"] > 0.95
    assert result["verdict"] in (tmp_path / "out" / "bands.md").read_text()
    assert imread(tmp_path / "out" / "spectra.png").std() > 0.05
    text = show("--data", recordings, "--out", tmp_path / "out", "--machine", "fan", *SHORT)
    assert "| whine" in text.stdout
    assert text.exit_code == 0


@pytest.fixture(scope="session")
def stored(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature store of the recordings, a shard for each split."""
    folder, config = tmp_path_factory.mktemp("store"), FeatureConfig(seconds=1, n_mels=32, log="db")
    shards, read = {}, log_mel_reader(config)
    for split in ("train", "test"):
        clips = [clip for clip in layouts.scan(recordings, "dcase2020") if clip.split == split]
        log_mel = np.stack([read(recordings / clip.path) for clip in clips]).astype(np.float16)
        columns = {"log_mel": log_mel, "level_db": np.zeros(len(clips), np.float32)}
        name = store.write_shard(folder, f"log_mel-{split}-00000-{0:016x}", clips, columns, {"clips": len(clips)})
        shards[split] = [store.Shard(len(clips), {"log_mel": name})]
    counts = {split: files[0].clips for split, files in shards.items()}
    store.write_manifest(folder, store.Manifest(store.settings_of(config, 0), shards, counts, -50.0, 5.0, {}, []))
    return folder


def test_a_store_spares_the_computing(recordings: Path, stored: Path, tmp_path: Path) -> None:
    from_store = done("--data", recordings, "--store", stored, "--out", tmp_path / "a")
    computed = done("--data", recordings, "--out", tmp_path / "b", *SHORT, "--set", "features.log=db")
    for one, other in zip(from_store["bands"], computed["bands"], strict=True):
        assert (one["machine"], one["fault"], one["band"]) == (other["machine"], other["fault"], other["band"])
        assert one["energy_more"] == pytest.approx(other["energy_more"], abs=0.03)  # fp16
    error = refused("--data", recordings, "--store", stored, "--out", tmp_path / "c", "--set", "features.n_mels=64")
    assert "n_mels is 32 there and 64 here" in str(error)


def test_a_store_gives_one_clip_its_partners(recordings: Path, stored: Path, tmp_path: Path) -> None:
    clip = recordings / "fan" / "test" / "normal_id_00_00000000.wav"
    result = done(clip, "--augment", "--store", stored, "--out", tmp_path / "views.png")
    trained = {path.name for path in (recordings / "fan" / "train").iterdir()}
    assert {view["mixed_with"] for view in result["clips"][0]["views"]} <= trained


def test_labels_that_are_not_there_are_the_answer(tmp_path: Path) -> None:
    for name in ("train/normal_id_00_00000000.wav", "test/id_00_00000000.wav"):
        path = tmp_path / "set" / "fan" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(16000), 16000)
    error = refused("--data", tmp_path / "set", "--out", tmp_path / "out", *SHORT)
    assert "no machine has both normal and anomalous test clips (their labels: unknown)" in str(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected either recordings"),
        (["a.wav", "--data", "set"], "expected either recordings"),
        (["a.wav", "--out", "x.gif"], "ending in .png, .svg, .pdf"),
        (["a.wav", "--layout", "dcase2020"], "go with --data"),
        (["a.wav", "--store", "features"], "go with --data"),
        (["--data", "set", "--augment"], "expected recordings"),
        (["a.wav"] * 65, "found 65 clips; at most 64"),
        (["a.wav", "--augment", *["b.wav"] * 12], "found 13 clips; at most 12"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    error = refused("--out", "x.png", *arguments)
    assert isinstance(error, ConfigError)
    assert message in str(error)


def test_what_cannot_be_drawn_is_named(recordings: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "x.png"]
    assert "nowhere.wav" in str(refused(tmp_path / "nowhere.wav", *out))
    assert "this is a folder" in str(refused(tmp_path, *out))
    assert "no other clip" in str(refused(next((recordings / "fan/train").iterdir()), "--augment", *out, *SHORT))
    assert "no feature store" in str(refused("--data", recordings, "--store", tmp_path, "--out", tmp_path / "out"))
    assert not (tmp_path / "x.png").exists()


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real clips")
def test_real_recordings(tmp_path: Path) -> None:
    result = done("--data", REAL, "--machine", "slider", "--out", tmp_path)
    row = next(row for row in result["bands"] if row["machine"] == "slider")
    assert (row["n_train"], row["n_normal"], row["n_anomaly"]) == (63, 25, 12)
    assert 0.5 < row["energy_either"] < 1  # of the level
