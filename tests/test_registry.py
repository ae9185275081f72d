from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest

from asd_ray import registry
from asd_ray.config.method import method_config
from asd_ray.config.study_file import load_study, parse_study
from asd_ray.errors import ConfigError
from asd_ray.registry import ENCODERS, LAYOUTS, METHODS, SCORES, Part, Plugins, Registry

ALL = (METHODS, ENCODERS, SCORES, LAYOUTS)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Undo what a test registers."""
    before = {kind: set(kind.foreign()) for kind in ALL}
    yield
    for kind in ALL:
        for name in set(kind.foreign()) - before[kind]:
            del kind.parts[name]


def one() -> int:
    return 1


def two() -> int:
    return 2


def test_the_packages_own_parts_are_found_by_their_files() -> None:
    assert METHODS.names() == ["autoencoder", "os_scl", "sia_moco"]
    assert SCORES.names() == ["classification", "ensemble", "gmm", "knn", "local_density", "mahalanobis", "own"]
    assert LAYOUTS.names() == ["dcase2020", "dcase2022", "folder", "synthetic"]
    for kind in ALL:
        for name in kind.names():
            assert kind.get(name).target.__module__ == kind.module.format(name)
    for name in METHODS.names():
        assert METHODS.get(name).facts["config"] is method_config(name)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.kind)
def test_a_name_that_is_taken_is_refused(kind: Registry) -> None:
    kind.register("mine")(one)
    kind.register("mine")(one)  # a notebook's cell that runs again
    with pytest.raises(ConfigError, match=rf"{kind.kind} 'mine': .*two cannot have this name, which is that of .*one"):
        kind.register("mine")(two)
    for name in kind.own_names:
        with pytest.raises(ConfigError, match=f"cannot have this name, which is that of {kind.module.format(name)}"):
            kind.register(name)(one)


def test_an_unknown_name_is_one_sentence_with_the_known_ones() -> None:
    SCORES.register("mine")(one)
    with pytest.raises(ConfigError) as error:
        SCORES.get("yours")
    assert str(error.value) == (
        "evaluation.scores: there is no score 'yours'; choose one of classification, ensemble, gmm, knn, "
        "local_density, mahalanobis, own, mine, or import the module that registers it."
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"method": {"name": "magic"}}, "f: method: there is no method 'magic'; choose one of autoencoder, os_scl"),
        ({"method": {"name": 3}}, "f: method: there is no method 3; choose"),
        ({"data": {"layout": "tape"}}, "f: data.layout: there is no layout 'tape'; choose one of dcase2020"),
        ({"evaluation": {"scores": ["knn", "luck"]}}, "f: evaluation.scores.1: there is no score 'luck'; choose one"),
        ({"method": {"name": "os_scl", "inputz": 1}}, "f: method.inputz: unknown key. Did you mean inputs?"),
    ],
)
def test_a_study_that_names_what_is_not_registered(document: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_study({"name": "x", **document}, "f")
    assert message in str(error.value)


def test_a_plugins_module_is_imported_before_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name, value = "mine", "mine.parts"

        def load(self) -> None:
            LAYOUTS.register("tape", attributes=False)(one)

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Entry()] if group == "asd_ray" else [])
    registry.import_plugins.cache_clear()
    try:
        assert load_study({"name": "x", "data": {"layout": "tape", "root": "x"}}).data.layout == "tape"
        monkeypatch.setattr(Entry, "load", lambda self: {}["missing"])
        registry.import_plugins.cache_clear()
        with pytest.raises(ConfigError, match=r"entry point mine = mine\.parts: cannot be imported \('missing'\)"):
            LAYOUTS.get("reel")
    finally:
        registry.import_plugins.cache_clear()


SCRIPT = """
from typing import Literal
import sys, cloudpickle
from asd_ray.config import MethodConfig, OptimiserConfig, StudyConfig
from asd_ray.registry import *

class MyConfig(MethodConfig):
    name: Literal["mine"] = "mine"
    rate: float = 0.5
    train: OptimiserConfig = OptimiserConfig(epochs=3)

@register_method("mine", config=MyConfig)
class Mine: ...

@register_layout("tape", attributes=False)
def tape(root, machines): return [], []

study = StudyConfig.model_validate({"name": "x", "method": {"name": "mine", "rate": 0.25}})
cloudpickle.dump({"plugins": Plugins(), "study": study}, open(sys.argv[1], "wb"))
"""


def test_parts_of_a_script_travel_whole_to_another_process(tmp_path: Path) -> None:
    """What a trial does with them in Ray's process, which has never seen the script."""
    subprocess.run([sys.executable, "-c", SCRIPT, tmp_path / "inputs"], check=True)
    inputs = cloudpickle.loads((tmp_path / "inputs").read_bytes())
    study = inputs["study"]
    assert (study.method.rate, study.method.epochs) == (0.25, 3)
    again = load_study(study.model_dump(mode="json"), {"method.rate": 0.75, "data.layout": "tape", "data.root": "x"})
    assert again.method == study.method.model_copy(update={"rate": 0.75})
    assert set(Plugins().parts["method"]) == {"mine"}
    with pytest.raises(ConfigError, match=r"method\.rte: unknown key. Did you mean rate"):
        load_study({"name": "x", "method": {"name": "mine", "rte": 1}})


def test_what_is_the_packages_own_does_not_travel() -> None:
    METHODS.get("sia_moco")
    SCORES.get("knn")
    SCORES.add("mine", Part(one))
    assert Plugins().parts == {"method": {}, "encoder": {}, "score": {"mine": Part(one)}, "layout": {}}


def test_study_files_are_read_without_torch() -> None:
    code = "import sys; from asd_ray.config import StudyConfig; StudyConfig(name='x'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
