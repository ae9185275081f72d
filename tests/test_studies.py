from __future__ import annotations

import re
from pathlib import Path

import pytest

from asd_ray.config import StudyConfig
from asd_ray.config.study_file import budget, get_key, load_study, with_values
from asd_ray.methods.registry import check

STUDIES = Path(__file__).parent.parent / "studies"
FILES = sorted(STUDIES.rglob("*.yaml"))
SEARCHES = [path for path in FILES if path.parent.name == "searches"]
PRESETS = [path for path in FILES if path.stem.startswith("sia_moco") or path.parent.name == "ablations"]
ON_A_GPU = [path for path in PRESETS if path.stem != "sia_moco_laptop"]
ABLATIONS = [path for path in PRESETS if path.parent.name == "ablations"]
CLIPS = {("dcase2020", None): 36_283, ("dcase2020", ("slider",)): 2_804 + 2_370, ("dcase2022", None): 42_000}
CORPUS = {"own": 1, "extra": 1, "both": 2}  # times as many clips as the set's own


def name(path: Path) -> str:
    return path.relative_to(STUDIES).with_suffix("").as_posix()


def header(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line[1:].strip() for line in lines[:first])


def clips(study: StudyConfig) -> int:
    """Training clips of the data set that a study is about."""
    return CLIPS[study.data.layout, tuple(study.data.machines) if study.data.machines else None]


def points(study: StudyConfig) -> list[StudyConfig]:
    """The trials that are known before the search: the file's own values and the warm start's."""
    return [study, *(with_values(study, point) for point in study.search.warm_start)]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_study_loads_and_asks_a_question(path: Path) -> None:
    study = load_study(path)
    check(study)
    assert "?" in header(path) or path.parent.name == "comparators"  # these reproduce
    assert study.name in (path.stem, f"sia_moco_{path.stem}")
    for key in study.search.space:
        get_key(study, key)
    assert study.search.num_trials >= len(points(study))


@pytest.mark.parametrize("path", [*PRESETS, *(path for path in SEARCHES if path not in PRESETS)], ids=name)
def test_a_preset_says_what_it_asks_costs_reports_and_needs(path: Path) -> None:
    text, study = header(path), load_study(path)
    for heading in ("Question: ", "Cost: ", "Literature: ", "Needs: "):
        assert text.count(heading) == 1, heading
    found = re.search(r"Cost: (\d+) trials? x (\d+) epochs of ([\d,]+) clips", text)
    assert found
    cost = budget(study)
    assert (int(found[1]), int(found[2])) == (cost["trials"], cost["epochs per trial"])
    assert int(found[3].replace(",", "")) == clips(study)


@pytest.mark.parametrize("path", ON_A_GPU, ids=name)
def test_gpu_hours_follow_from_the_header_of_the_papers_setting(path: Path) -> None:
    study = load_study(path)
    trials = points(study)
    assert all(trial.method.pretrain.encoder == "resnet50" for trial in trials)
    trials += [study] * (study.search.num_trials - len(trials))
    pretrain = sum(trial.method.pretrain.epochs * CORPUS[trial.method.pretrain.corpus] for trial in trials)
    finetune = sum(trial.method.finetune.epochs for trial in trials)
    gflop = clips(study) * (26 * pretrain + 20 * finetune)
    hours = gflop / (26 * 3_000) / 3_600
    found = re.search(r"about ([\d.]+) GPU-hours", header(path))
    assert found
    assert float(found[1]) == pytest.approx(hours, rel=0.05)


@pytest.mark.parametrize("path", ABLATIONS, ids=name)
def test_an_ablation_is_the_papers_setting_but_for_what_it_varies(path: Path) -> None:
    paper, study = load_study(STUDIES / "sia_moco.yaml"), load_study(path)
    trials = points(study)
    assert trials[0].method == paper.method
    assert (study.evaluation, study.features, study.resources) == (paper.evaluation, paper.features, paper.resources)
    assert len({trial.method.model_dump_json() for trial in trials}) == len(trials) == study.search.num_trials
    for key, distribution in study.search.space.items():  # every value is run for sure
        assert {get_key(trial, key) for trial in trials} >= set(distribution.examples()), key


def test_the_papers_setting_is_what_is_known_of_it() -> None:
    pretrain = load_study(STUDIES / "sia_moco.yaml").method.pretrain
    known = (pretrain.encoder, pretrain.momentum, pretrain.lr, pretrain.epochs, pretrain.weight_decay)
    assert known == ("resnet50", 0.99, 9e-4, 150, 0.0)


@pytest.mark.parametrize("path", SEARCHES, ids=name)
def test_every_method_is_searched_on_both_data_sets(path: Path) -> None:
    study = load_study(path)
    assert path.stem == f"{study.method.name}_{study.data.layout}"
    assert len({other.stem for other in SEARCHES}) == 3 * 2
    assert study.search.space


def test_the_comparison_gives_every_method_the_same_training() -> None:
    studies = [load_study(path) for path in FILES if path.parent.name == "comparison"]
    assert {study.method.name for study in studies} == {"sia_moco", "os_scl", "autoencoder"}
    assert len(studies) == 6
    shared = {
        (study.data.model_dump_json(), study.evaluation.score, study.method.epochs, study.features.seconds)
        for study in studies
    }
    assert len(shared) == 1
    assert all((study.search.seeds, study.search.num_trials, study.seed) == (3, 1, 0) for study in studies)


def test_the_searched_keys_are_those_that_the_paper_leaves_open() -> None:
    space = load_study(STUDIES / "searches" / "sia_moco_dcase2020.yaml").search.space
    assert {key.removeprefix("method.pretrain.") for key in space} == {
        "alpha",
        "momentum",
        "queue_size",
        "temperature",
    }
