from __future__ import annotations

import re

import pytest

from asd_ray.data.public.registry import DCASE2020, DCASE2022, PARTS, REGISTRIES, find_registry
from asd_ray.errors import ConfigError

MACHINES = {
    "dcase2020": ["fan", "pump", "slider", "valve", "ToyCar", "ToyConveyor"],
    "dcase2022": ["bearing", "fan", "gearbox", "slider", "valve", "ToyCar", "ToyTrain"],
}


@pytest.mark.parametrize("name", REGISTRIES)
def test_a_set_has_one_archive_per_machine_and_part(name: str) -> None:
    registry = find_registry(name)
    assert list(registry.machines) == MACHINES[name]
    assert [(f.machine, f.part) for f in registry.archives] == [(m, p) for m in MACHINES[name] for p in PARTS]
    assert len({(file.record, file.name) for file in registry.archives + registry.ground_truth}) == len(
        registry.archives + registry.ground_truth
    )


def test_checksums_are_whole_and_no_two_are_alike() -> None:
    files = [*DCASE2020.archives, *DCASE2020.ground_truth]
    assert all(re.fullmatch("[0-9a-f]{32}", file.md5 or "") for file in files)
    assert len({file.md5 for file in files}) == 19
    # Sums over the published table: a digit that slips changes them.
    assert sum(file.size or 0 for file in files if file.part == "dev") == 8_087_985_681
    assert sum(file.size or 0 for file in files if file.part == "additional") == 4_229_586_767
    assert [file.size for file in files if file.part == "eval"] == [None] * 6 + [338_426]


def test_addresses_2020() -> None:
    by_name = {file.name: file for file in (*DCASE2020.archives, *DCASE2020.ground_truth)}
    assert by_name["dev_data_fan.zip"].url() == ("https://zenodo.org/records/3678171/files/dev_data_fan.zip?download=1")
    assert by_name["eval_data_train_ToyCar.zip"].record == "3727685"
    assert by_name["eval_data_test_ToyConveyor.zip"].record == "3841772"
    assert by_name["eval_data_list.csv"].url("http://mirror/dcase/") == "http://mirror/dcase/3951620/eval_data_list.csv"


def test_addresses_2022() -> None:
    names = {file.record: file.name for file in DCASE2022.archives if file.machine == "bearing"}
    assert names == {  # without the _data that the baseline's README writes
        "6355122": "dev_bearing.zip",
        "6462969": "eval_data_bearing_train.zip",
        "6586456": "eval_data_bearing_test.zip",
    }
    assert len(DCASE2022.ground_truth) == 7 * 3 * 2
    first = DCASE2022.ground_truth[0]
    assert re.fullmatch(
        r"https://raw\.githubusercontent\.com/Kota-Dohi/dcase2022_evaluator/[0-9a-f]{40}/"
        r"ground_truth_data/ground_truth_bearing_section_03_test\.csv",
        first.url(),
    )
    assert first.url("http://mirror") == f"http://mirror/dcase2022_evaluator/{first.name}"


def test_the_list_that_contradicts_the_official_score_is_not_used() -> None:
    assert {file.name.split("/")[0] for file in DCASE2022.ground_truth} == {"ground_truth_data", "ground_truth_domain"}


def test_select() -> None:
    machines, archives = DCASE2020.select(["valve", "fan", "valve"], ["eval", "dev"])
    assert machines == ["valve", "fan"]
    assert [file.name for file in archives] == [
        "dev_data_valve.zip",
        "eval_data_test_valve.zip",
        "dev_data_fan.zip",
        "eval_data_test_fan.zip",
    ]
    assert len(DCASE2022.select(None, PARTS)[1]) == 21


@pytest.mark.parametrize(
    ("machines", "parts", "message"),
    [
        (["fan", "gearbox"], PARTS, "no machine gearbox; choose from fan, pump"),
        (None, ["test"], "no part test; choose from dev, additional, eval"),
        ([], PARTS, "no machine of dcase2020 is asked for"),
        (None, [], "no part of dcase2020 is asked for"),
    ],
)
def test_select_names_what_there_is(machines: list[str] | None, parts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DCASE2020.select(machines, parts)


def test_find_names_the_sets() -> None:
    with pytest.raises(ConfigError, match="'dcase2019' to download; choose from dcase2020, dcase2022"):
        find_registry("dcase2019")
