"""The names that ``import asd_ray`` hands out, without Ray; tests/integration/test_api.py runs a study."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import asd_ray
from asd_ray.bench.stub_study import write_study
from asd_ray.features.build import build
from asd_ray.features.extract import serial
from asd_ray.report.write import write_results
from tests.detector.tiny_detector import save_tiny_detector, tiny_study, write_recordings


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = {"torch", "ray", "pandas", "pydantic", "numpy"}
    code = f"import sys, asd_ray; assert not {heavy} & set(sys.modules); dir(asd_ray)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_are_the_same_for_editors_and_at_run_time() -> None:
    tree = ast.parse(Path(asd_ray.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert sorted(typed) == asd_ray.__all__ == sorted(asd_ray.__all__)
    for name, module in typed.items():
        assert getattr(asd_ray, name) is getattr(sys.modules[str(module)], name)
    assert not hasattr(asd_ray, "run_studies")


@pytest.mark.parametrize("name", asd_ray.__all__)
def test_every_name_has_a_docstring_and_types(name: str) -> None:
    public = getattr(asd_ray, name)
    assert len(public.__doc__.splitlines()[0]) > 20
    if inspect.isfunction(public):
        assert "return" in public.__annotations__
        if not name.startswith("register_"):  # these share an example, in their module
            assert all(part in public.__doc__ for part in ("Args:", "Returns:", "Raises:", "Example"))


def test_a_study_is_loaded_from_a_file_or_a_mapping() -> None:
    file = Path(__file__).parents[1] / "studies" / "quickstart.yaml"
    assert asd_ray.load_study(file, {"search.num_trials": 2}).search.num_trials == 2
    assert asd_ray.load_study({"name": "mine", "seed": 3}).seed == 3
    with pytest.raises(asd_ray.AsdRayError, match="sed: unknown key"):
        asd_ray.load_study({"name": "mine", "sed": 3})


def test_a_synthetic_set_is_made_listed_and_read(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    sizes = {"machines": 1, "ids": 1, "train": 2, "test_normal": 1, "test_anomaly": 1}
    recordings = asd_ray.synthesise(tmp_path / "set", **sizes, progress=lambda *step: done.append(step))
    assert len(recordings) == 4
    assert done[-1] == (4, 4)
    clips = asd_ray.scan(tmp_path / "set")
    assert [(clip.split, clip.label) for clip in clips] == [
        ("test", "anomaly"),
        ("test", "normal"),
        ("train", "normal"),
        ("train", "normal"),
    ]
    assert asd_ray.scan(tmp_path / "set", "dcase2020", ["fan"]) == clips
    study = asd_ray.load_study({"name": "mine"})
    build(clips, tmp_path / "set", tmp_path / "features", study.features, tasks=serial)
    features = asd_ray.read_features(tmp_path / "features", "test")
    assert sorted(features.clips, key=lambda clip: clip.path) == clips[:2]
    assert (len(features.log_mel), features.log_mel.dtype) == (2, np.float16)
    with pytest.raises(asd_ray.AsdRayError, match="less than or equal to 6, but got 7"):
        asd_ray.synthesise(tmp_path / "more", machines=7)
    with pytest.raises(asd_ray.AsdRayError, match="no known layout"):
        asd_ray.scan(tmp_path / "features")
    with pytest.raises(asd_ray.AsdRayError, match="holds no features"):
        asd_ray.read_features(tmp_path / "set")


def test_a_public_set_of_another_name_is_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(asd_ray.AsdRayError, match="dcase2020, dcase2022"):
        asd_ray.download("dcase1999", tmp_path)


def test_a_study_folder_is_read_as_data_frames(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", 12)
    repeat = folder.record(0)
    assert repeat is not None
    repeat.repeat = 1
    folder.finish_trial(repeat)
    folder.write_history(0, 1, folder.history(0)[:2])
    write_results(folder, folder.study())
    outcome = asd_ray.read_study(tmp_path / "study")
    pd.testing.assert_frame_equal(outcome.trials, pd.read_parquet(folder.path / "trials.parquet"))
    pd.testing.assert_frame_equal(outcome.results, pd.read_parquet(folder.path / "results.parquet"))
    pd.testing.assert_frame_equal(outcome.baselines, pd.read_parquet(folder.path / "baselines.parquet"))
    history = outcome.history
    assert list(history.columns[:4]) == ["trial", "repeat", "stage", "epoch"]
    assert not history.duplicated(["trial", "repeat", "epoch"]).any()
    assert history.groupby(["trial", "repeat"]).size()[0].to_dict() == {0: 20, 1: 2}
    complete = outcome.trials[outcome.trials["status"] == "complete"]
    assert outcome.best is not None
    assert outcome.best["objective"] == complete["objective"].max()
    assert outcome.counts() == {"complete": 10, "pruned": 2, "failed": 0}
    assert outcome.study.name == "simulation"
    assert outcome.report.exists()
    assert f"10 complete, 2 pruned trials; best trial {outcome.best['trial']} with objective" in repr(outcome)
    with pytest.raises(asd_ray.AsdRayError, match="holds no detector"):
        outcome.detector()
    with pytest.raises(asd_ray.AsdRayError, match="holds no study"):
        asd_ray.read_study(tmp_path)


def test_a_detector_scores_recordings(tmp_path: Path) -> None:
    files = write_recordings(tmp_path / "set")
    save_tiny_detector(tmp_path / "detector", tiny_study(), files)
    detector = asd_ray.Detector.load(tmp_path / "detector")
    table = detector.score([str(path) for path in files])
    assert list(table.columns) == ["path", "machine", "id", "score", "decision", "threshold"]
    assert list(table["path"]) == [str(path) for path in files]
    nameless = tmp_path / "recording.wav"
    nameless.write_bytes(next(iter(files)).read_bytes())
    assert detector.score([nameless], machine="fan", id="00")["score"][0] == table["score"][0]
