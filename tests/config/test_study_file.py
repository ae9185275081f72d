from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.config import Distribution, StudyConfig
from asd_ray.config.study_file import (
    budget,
    get_key,
    leaf_keys,
    load_study,
    parse_study,
    set_key,
    to_yaml,
    with_values,
    without_search,
)
from asd_ray.errors import ConfigError

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.mark.parametrize("path", sorted(STUDIES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_study_validates_and_survives_a_round_trip(path: Path) -> None:
    study = load_study(path)
    assert parse_study(yaml.safe_load(to_yaml(study)), "again") == study


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"name": "x", "metod": 1}, "f: metod: unknown key. Did you mean method?"),
        (
            {"name": "x", "method": {"pretrain": {"momentun": 0.9}}},
            "f: method.pretrain.momentun: unknown key. Did you mean momentum?",
        ),
        (
            {"name": "x", "method": {"pretrain": {"alpha": 3}}},
            "method.pretrain.alpha: should be less than 1, but got 3",
        ),
        ({}, "f: name: this key is missing."),
        ({"name": "x", "features": {"win_length": 4096}}, "win_length <= n_fft must hold, but got 4096 and 1024"),
        ({"name": "x", "features": {"f_min": 9000}}, "f_min < f_max"),
        ({"name": "x", "data": {"layout": "dcase2020"}}, "data.root must name the data set's folder"),
        ({"name": "../x"}, "f: name:"),
        ({"name": "x", "search": {"seeds": 0}}, "search.seeds: "),
        ({"name": "x", "method": {"pretrain": {"corpus": "extra"}}}, "data.extra_pretraining must name folders"),
    ],
)
def test_an_error_names_the_key_the_rule_and_the_value(document: dict, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_study(document, "f")
    assert expected in str(error.value)
    assert error.value.exit_code == 2


def test_all_errors_of_a_file_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        parse_study({"name": "x", "one": 1, "seed": -1}, "f")
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"method.pretrain.alfa": {"uniform": [0.1, 0.5]}}, "Did you mean method.pretrain.alpha?"),
        ({"method.pretrain.alpha": {"uniform": [0.1, 2]}}, "its range includes a value that the study refuses"),
        ({"method.pretrain.alpha": {"uniform": [0.5, 0.6]}}, "the first trial runs the study file's own value, 0.4"),
        ({"method.pretrain": {"choice": [1]}}, "is not a single value"),
        ({"data.channel": {"choice": [0, 1]}}, "only keys of method, evaluation, features can be searched"),
        ({"search.num_trials": {"int": [1, 2]}}, "only keys of method, evaluation"),
        ({"features.store": {"choice": ["a", "b"]}}, "it says where features are kept, not what they are"),
        ({"features.gpus_per_task": {"uniform": [0, 1]}}, "it says how features are computed"),
        ({"features.preset": {"choice": ["sia_moco", "os_scl"]}}, "defaults of the other keys"),
        ({"evaluation.objective": {"choice": ["auc", "pauc"]}}, "trials that were judged differently"),
        ({"evaluation.max_fpr": {"uniform": [0.1, 0.5]}}, "changes what the objective measures"),
        ({"method.pretrain.alpha": {"unifrm": [0, 1]}}, "expected one of {uniform: [...]}"),
        ({"method.pretrain.alpha": {"uniform": [0.5, 0.1]}}, "low <= high must hold, but got [0.5, 0.1]"),
        ({"method.pretrain.lr": {"loguniform": [0, 0.1]}}, "low > 0 must hold"),
        ({"method.pretrain.queue_size": {"int": [1, 2.5]}}, "takes two integers"),
    ],
)
def test_a_search_space_that_cannot_work_is_refused(space: dict, expected: str) -> None:
    with pytest.raises(ConfigError, match=r"f: search\.space") as error:
        parse_study({"name": "x", "search": {"space": space}}, "f")
    assert expected in str(error.value)


def test_warm_start_points_are_complete_and_inside_the_space() -> None:
    space = {"method.pretrain.alpha": {"uniform": [0.1, 0.5]}, "method.pretrain.momentum": {"uniform": [0.9, 1]}}
    for point, expected in [
        ({"method.pretrain.alpha": 0.2}, "method.pretrain.momentum has no value"),
        ({"method.pretrain.alpha": 0.7, "method.pretrain.momentum": 0.9}, "0.7 is not in 0.1 to 0.5"),
        ({"method.pretrain.alpha": 0.2, "method.pretrain.lr": 0.9}, "not a key of search.space"),
    ]:
        with pytest.raises(ConfigError, match="warm_start") as error:
            parse_study({"name": "x", "search": {"space": space, "warm_start": [point]}}, "f")
        assert expected in str(error.value)


CONDITIONAL = {
    "method.pretrain.projection": {"choice": ["linear", "mlp"]},
    "method.pretrain.temperature": {"loguniform": [0.05, 0.5], "when": {"method.pretrain.projection": "mlp"}},
}


def conditional(space: dict | None = None, own: dict | None = None, **search: object) -> StudyConfig:
    document = {"name": "x", "method": {"pretrain": own or {}}, "search": {"space": space or CONDITIONAL, **search}}
    return parse_study(document, "f")


def test_the_own_value_of_a_key_counts_where_its_condition_holds() -> None:
    outside = {"projection": "linear", "temperature": 0.9}
    study = conditional(own=outside)
    assert parse_study(yaml.safe_load(to_yaml(study)), "again") == study
    with pytest.raises(ConfigError, match=r"runs the study file's own value, 0\.9, which is not in"):
        conditional(own={**outside, "projection": "mlp"})
    with pytest.raises(ConfigError, match=r"f: search: method\.pretrain\.alpha has a condition on seed, which is not"):
        conditional({"method.pretrain.alpha": {"uniform": [0.1, 0.5], "when": {"seed": 0}}})


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ({"method.pretrain.projection": "mlp"}, "search.warm_start[0]: method.pretrain.temperature has no value"),
        (
            {"method.pretrain.projection": "linear", "method.pretrain.temperature": 0.1},
            "search.warm_start[0]: method.pretrain.temperature is 0.05 to 0.5 (log) (when method.pretrain.projection "
            "is mlp), which does not hold at this point; leave it out",
        ),
        ({"method.pretrain.temperature": 0.1}, "method.pretrain.projection has no value"),
    ],
)
def test_a_warm_start_has_the_keys_whose_conditions_hold(point: dict, expected: str) -> None:
    assert conditional(warm_start=[{"method.pretrain.projection": "linear"}]).search.warm_start
    with pytest.raises(ConfigError) as error:
        conditional(warm_start=[point])
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ({"scheduler": "asha"}, "f: search.scheduler: asha cannot be used with several objectives"),
        ({"sampler": "cmaes"}, "f: search.sampler: cmaes cannot be used with several objectives"),
    ],
)
def test_several_objectives_need_whole_trials_and_a_sampler_that_knows_them(search: dict, expected: str) -> None:
    document = {"name": "x", "evaluation": {"objective": ["auc", "size"]}}
    assert parse_study(document, "f").evaluation.objectives == ("auc", "size")
    with pytest.raises(ConfigError) as error:
        parse_study({**document, "search": search}, "f")
    assert expected in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////shared/user@lab:1/studies.db",
        "postgresql://host/studies",
        "postgresql://me@host:5432/studies",
        "postgresql+psycopg://me:${PASSWORD}@host/studies?sslmode=require",
        "${OPTUNA_STORAGE}",
    ],
)
def test_a_storage_is_a_url_whose_variables_stay_in_the_file(url: str) -> None:
    study = parse_study({"name": "x", "search": {"storage": url}}, "f")
    assert url in to_yaml(study)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@host/studies",
        "mysql+pymysql://me:hun/ter@2@host/studies",
        "postgresql://me:${A}hunter2@host/studies",
        "postgresql://host/studies?user=me&password=hunter2",
    ],
)
def test_a_password_in_a_storage_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match=r"search\.storage: holds a password") as error:
        parse_study({"name": "x", "search": {"storage": url}}, "f")
    assert "hun" not in str(error.value)


def test_a_storage_that_is_no_url_says_so() -> None:
    with pytest.raises(ConfigError, match=r"search\.storage: expected the URL of a database"):
        parse_study({"name": "x", "search": {"storage": "studies.db"}}, "f")


def test_overrides_replace_dotted_keys(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: x\nmethod: {pretrain: {alpha: 0.2}}\n")
    overrides = {"search.num_trials": 7, "method.pretrain.momentum": 0.5, "data.machines": ["fan", "pump"]}
    study = load_study(path, overrides)
    assert (study.search.num_trials, study.method.pretrain.alpha, study.method.pretrain.momentum) == (7, 0.2, 0.5)
    assert study.data.machines == ["fan", "pump"]
    with pytest.raises(ConfigError, match="unknown key"):
        load_study(path, {"sed": 1})


def test_a_study_is_built_from_a_mapping_which_stays_as_it_was() -> None:
    document = {"name": "x", "search": {"num_trials": 8}}
    assert load_study(document, {"search.num_trials": 2}).search.num_trials == 2
    assert document == {"name": "x", "search": {"num_trials": 8}}
    with pytest.raises(ConfigError, match=r"^the study: sed: unknown key"):
        load_study({"name": "x", "sed": 1})


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"name: [", "not valid YAML"), (b"- 1", "is a mapping of keys"), (b"\xff\xfe\x00", "not a text file")],
)
def test_a_file_that_is_no_study_says_so(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        load_study(path)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot read the study file"):
        load_study(tmp_path / "nowhere.yaml")


def test_both_forms_of_a_distribution_are_the_same() -> None:
    short = Distribution.model_validate({"logint": [8, 64]})
    assert short == Distribution.model_validate({"type": "logint", "low": 8, "high": 64})
    assert short.model_dump() == {"logint": [8, 64]}
    assert str(short) == "8 to 64 (log)"


@settings(deadline=None)
@given(st.floats(0, 0.99), st.floats(0, 1), st.integers(0, 10**6))
def test_trial_values_replace_their_keys_and_nothing_else(alpha: float, momentum: float, queue_size: int) -> None:
    study = StudyConfig(name="x")
    values = {
        "method.pretrain.alpha": alpha,
        "method.pretrain.momentum": momentum,
        "method.pretrain.queue_size": queue_size,
    }
    changed = with_values(study, values)
    for key in leaf_keys(study):
        assert get_key(changed, key) == values.get(key, get_key(study, key))


def test_without_a_space_a_study_is_one_run() -> None:
    space = {"method.pretrain.alpha": {"uniform": [0, 0.5]}}
    for search, trials in (({}, 1), ({"seeds": 3}, 1), ({"space": {}}, 1), ({"space": space}, 20)):
        study = parse_study({"name": "x", "search": search}, "f")
        assert study.search.num_trials == trials
        assert parse_study(yaml.safe_load(to_yaml(study)), "again") == study
    assert StudyConfig(name="x").search.num_trials == 1
    assert load_study({"name": "x"}, {"search.num_trials": 2}).search.num_trials == 2


def test_keys() -> None:
    document: dict = {"a": 1}
    set_key(document, "b.c.d", 2)
    assert document == {"a": 1, "b": {"c": {"d": 2}}}
    with pytest.raises(KeyError):
        get_key(StudyConfig(name="x"), "method.nothing")
    assert "method.pretrain.alpha" in leaf_keys(StudyConfig(name="x"))


def test_the_budget_counts_every_epoch() -> None:
    study = parse_study(
        {
            "name": "x",
            "search": {"num_trials": 3},
            "method": {"pretrain": {"epochs": 5}, "finetune": {"epochs": 2}},
        },
        "f",
    )
    assert budget(study) == {"trials": 3, "epochs per trial": 7, "epochs": 21, "workers per trial": 1}


def test_without_a_search_a_study_is_its_own_values_over_its_seeds() -> None:
    search = {
        "num_trials": 9,
        "seeds": 3,
        "scheduler": "asha",
        "space": {"method.pretrain.alpha": {"uniform": [0, 0.5]}},
    }
    study = parse_study({"name": "x", "seed": 4, "search": search}, "f")
    alone = without_search(study)
    assert (alone.search.num_trials, alone.search.seeds, alone.search.space) == (1, 3, {})
    assert alone.search.scheduler == "none"
    assert alone.method == study.method
    assert without_search(study, 5).search.seeds == 5
