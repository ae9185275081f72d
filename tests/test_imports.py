"""The pinned packages fit together: every module imports, and torch, torchaudio and torchvision are one line."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
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


WITHOUT_RAY = [
    *("augment", "bench.augment", "bench.step", "challenge", "cli_score", "decisions", "detector", "evaluation"),
    *("features.batches", "features.stream", "identify", "losses", "methods.registry", "metrics", "moco", "official"),
    *("scoring", "training.loop", "training.run"),
]


@pytest.mark.parametrize("name", WITHOUT_RAY)
def test_methods_losses_and_metrics_do_not_import_ray(name: str) -> None:
    code = f"import sys, asd_ray.{name}; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def loaded(code: str, *names: str) -> set[str]:
    """Those of the packages that a new interpreter has loaded after running the code."""
    code = f"{code}\nimport sys; print(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_reports_of_studies_need_no_torch_and_no_ray(tmp_path: Path) -> None:
    """Each costs a report of a study, or a look at how far it is, more than all else that they do."""
    heavy = ("torch", "ray", "torchaudio")
    study = write_study(tmp_path / "study", 3).path
    folder = "from pathlib import Path\nfrom asd_ray.study.folder import StudyFolder\n"
    folder += f"folder = StudyFolder(Path({str(study)!r}))\n"
    assert loaded(f"{folder}folder.status()", *heavy, "sklearn", "matplotlib") == set()
    report = f"{folder}from asd_ray.report.write import write_results\nwrite_results(folder, folder.study())"
    assert loaded(report, *heavy) == set()
    assert loaded("import asd_ray.cli.app", *heavy, "pandas", "optuna") == set()


@pytest.mark.parametrize("name", ["datasets.synthetic", "features.read_apart", "study.cluster", "study.turns"])
def test_what_rays_processes_import_for_small_work_is_light(name: str) -> None:
    assert loaded(f"import asd_ray.{name}", "torch", "scipy.stats", "sklearn", "matplotlib") == set()
