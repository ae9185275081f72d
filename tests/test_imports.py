"""Every module imports, what must be light imports nothing heavy, and the installed packages fit together."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import soundfile
from packaging.requirements import Requirement

import asd_ray
from asd_ray.bench.stub_study import write_study

MODULES = [
    module.name
    for module in pkgutil.walk_packages(asd_ray.__path__, "asd_ray.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name: str) -> None:
    importlib.import_module(name)


def test_what_is_installed_is_within_the_tested_ranges() -> None:
    requirements = [Requirement(line) for line in metadata.requires("asd-ray") or []]
    needed = [requirement for requirement in requirements if requirement.marker is None]
    assert len(needed) > 15
    for requirement in needed:
        assert requirement.specifier.contains(metadata.version(requirement.name)), requirement


def test_torch_audio_and_vision_are_one_release_line() -> None:
    lines = [metadata.version(name).split(".")[:2] for name in ("torch", "torchaudio", "torchvision")]
    assert lines == [["2", "11"], ["2", "11"], ["0", "26"]]


HEAVY = ("torch", "torchaudio", "ray", "pandas", "optuna", "sklearn", "scipy.stats", "matplotlib")
WITHOUT_RAY = [
    *("metrics", "metrics.intervals", "scoring", "scoring.thresholds", "challenge.submission", "challenge.official"),
    *("features.batches", "features.stream", "features.store", "features.plan", "features.extract", "features.log_mel"),
    *("methods.registry", "methods.blocks.losses", "methods.sia_moco.augment", "methods.sia_moco.moco"),
    *("training.loop", "training.train_and_score", "detector.detector", "detector.which_machine", "cli.detector"),
    *("bench.augment", "bench.step"),  # they run on GPU machines
]
SMALL_WORK = ["features.store", "data.synthetic.recordings", "study.claims", "cluster.session"]
"""Imported by processes of Ray that do little: read a shard, render recordings, answer, connect."""


def loaded_after(steps: dict[str, str]) -> dict[str, set[str]]:
    """Those of the heavy packages that one new interpreter has loaded after each of the steps, one after the other."""
    shown = f"print('loaded', *[name for name in {HEAVY!r} if name in sys.modules])"
    code = "\n".join(["import sys", *(f"{step}\n{shown}" for step in steps.values())])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("loaded")]
    return {name: set(names) for name, names in zip(steps, lines, strict=True)}


def imports(names: list[str]) -> dict[str, str]:
    return {name: f"import asd_ray.{name}" for name in names}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Steps that may load ever more: a package that one must not load, none before it may load either."""
    study = write_study(tmp_path_factory.mktemp("studies") / "study", 3).path
    folder = f"from asd_ray.study.folder import StudyFolder\nfolder = StudyFolder(Path({str(study)!r}))"
    first = {
        "asd_ray": "from pathlib import Path\nimport asd_ray",
        "cli.app": "import asd_ray.cli.app",
        "status": f"{folder}\nfolder.status()",
        "report": "from asd_ray.report.write import write_results\nwrite_results(folder, folder.study())",
    }
    data = tmp_path_factory.mktemp("set")
    for place in ("train/normal", "test/normal", "test/anomaly"):
        path = data / "fan" / f"{place}_id_00_00000000.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    arguments = ["features", "show", "--data", str(data), "--out", str(data / "out"), "--set", "features.seconds=1"]
    last = {
        "features show": (
            f"sys.argv = ['asd-ray', *{arguments!r}]\n"
            "try: asd_ray.cli.app.main()\n"
            "except SystemExit as stop: assert not stop.code, stop.code"
        ),
        "the machine of a benchmark": "from asd_ray.bench import table\ntable.machine()",
    }
    return loaded_after(first | imports(WITHOUT_RAY) | last)


def test_the_package_and_the_commands_import_nothing_heavy(loaded: dict[str, set[str]]) -> None:
    assert loaded["asd_ray"] == loaded["cli.app"] == set()


def test_reports_of_studies_need_no_torch_and_no_ray(loaded: dict[str, set[str]]) -> None:
    """Each costs a report of a study, or a look at how far it is, more than all else that they do."""
    assert loaded["status"] <= {"pandas"}
    assert loaded["report"].isdisjoint({"torch", "torchaudio", "ray"})


@pytest.mark.parametrize("name", WITHOUT_RAY)
def test_methods_losses_and_metrics_do_not_import_ray(name: str, loaded: dict[str, set[str]]) -> None:
    assert "ray" not in loaded[name]


def test_bands_and_benchmarks_of_a_gpu_machine_need_no_ray(loaded: dict[str, set[str]]) -> None:
    assert "ray" not in loaded["features show"]
    assert "ray" not in loaded["the machine of a benchmark"]


def test_what_rays_processes_import_for_small_work_is_light() -> None:
    for name, packages in loaded_after(imports(SMALL_WORK)).items():
        assert packages.isdisjoint({"torch", "scipy.stats", "sklearn", "matplotlib"}), name
