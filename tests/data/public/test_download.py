from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from asd_ray.data import layouts
from asd_ray.data.public import transfer
from asd_ray.data.public.download import BASE_URL_VARIABLE, PARTS, Progress, download
from asd_ray.data.public.registry import DCASE2020, DCASE2022, Registry
from asd_ray.errors import AsdRayError, ConfigError
from tests.data.public.published_sets import CLIPS_2020, RECORDINGS_2020, files_2020, published
from tests.data.public.range_server import BLOCK, RangeServer, noise, serve, tree, zipped

Fan = Callable[..., list[Path]]
CHUNK = 4 * BLOCK
DEV_FAN = "3678171/dev_data_fan.zip"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(BASE_URL_VARIABLE, raising=False)
    monkeypatch.setattr(transfer, "CHUNK", CHUNK)
    monkeypatch.setattr(transfer, "BLOCK", BLOCK)
    monkeypatch.setattr(transfer, "BACKOFF", 0.0)
    monkeypatch.setattr("asd_ray.data.public.download.INTERVAL", 0.0)


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with serve(files_2020()) as running:
        yield running


@pytest.fixture
def registry(server: RangeServer) -> Registry:
    return published(DCASE2020, server.files)


@pytest.fixture
def fan(server: RangeServer, registry: Registry, tmp_path: Path) -> Fan:
    """Downloads the development set of the fan to ``tmp_path/data``."""

    def run(**options: object) -> list[Path]:
        arguments = {"machines": ["fan"], "parts": ["dev"], "base_url": server.url, "registry": registry} | options
        return download("dcase2020", tmp_path / "data", **arguments)

    return run


FAN_DEV = {f"fan/{name}": RECORDINGS_2020[f"fan/{name}"] for name in CLIPS_2020["fan"]["dev"]}


def test_two_machines_from_end_to_end(server: RangeServer, registry: Registry, tmp_path: Path) -> None:
    root, machines = tmp_path / "data", ["fan", "ToyCar"]
    seen: list[Progress] = []
    folders = download("dcase2020", root, machines, base_url=server.url + "/", registry=registry, progress=seen.append)
    assert folders == [root / "fan", root / "ToyCar"]
    labels = {f"{machine}/test_labels.csv" for machine in machines}
    there = tree(root)
    assert {name: content for name, content in there.items() if name not in labels} == RECORDINGS_2020
    assert there["ToyCar/test_labels.csv"].decode().splitlines() == [
        "file,label",
        "id_05_00000000.wav,anomaly",
        "id_05_00000001.wav,normal",
        "id_05_00000002.wav,normal",
        "id_05_00000003.wav,anomaly",
    ]
    clips = layouts.scan(root, "dcase2020")
    assert {c.label for c in clips} == {"normal", "anomaly"}
    assert [c.path for c in clips if c.label == "anomaly" and c.part == "eval"] == [
        f"{machine}/test/id_{late}_{n:08d}.wav" for machine, late in (("ToyCar", "05"), ("fan", "01")) for n in (0, 3)
    ]
    # Neither archives nor lists are kept, and each step was told of to its end.
    kept = [path.name for path in (root / ".downloads").rglob("*") if path.is_file() and path.name != "lock"]
    assert sorted(kept) == sorted(f"{file.name}.unpacked.json" for file in registry.select(machines, PARTS)[1])
    ends = {(p.file, p.step, p.number) for p in seen if p.done == p.total}
    assert ("eval_data_test_ToyCar.zip", "unpack", 6) in ends
    assert ("eval_data_list.csv", "download", 7) in ends
    assert all(p.count == 7 for p in seen)

    requests = len(server.requests)
    assert download("dcase2020", root, machines, base_url=server.url, registry=registry) == folders
    assert len(server.requests) == requests


def test_2022_gets_labels_and_domains_of_the_official_lists(tmp_path: Path) -> None:
    names = {
        "dev": [
            "train/section_00_source_train_normal_0000_car_A1.wav",
            "test/section_00_target_test_anomaly_0000_x.wav",
        ],
        "additional": ["train/section_03_target_train_normal_0000_car_B1.wav"],
        "eval": [f"test/section_0{section}_test_{n:04d}.wav" for section in (3, 4, 5) for n in range(4)],
    }
    recordings = {f"ToyCar/{name}": noise() for part in names.values() for name in part}
    # The trap: this file's names say the opposite of the official labels.
    misleading = "file_name,d1p,d1v,file_name_with_attributes\n" + "".join(
        f"section_03_{n:04d}.wav,car,B1,section_03_{'target' if n < 2 else 'source'}_test_normal_{n:04d}_car_B1.wav\n"
        for n in range(4)
    )
    extra = {"additional": {"ToyCar/attributes_03.csv": misleading.encode()}}
    files = {
        f"{file.record}/{file.name}": zipped(
            {f"ToyCar/{name}": recordings[f"ToyCar/{name}"] for name in names[file.part]} | extra.get(file.part, {})
        )
        for file in DCASE2022.archives
        if file.machine == "ToyCar"
    }
    for section in ("03", "04", "05"):
        for kind, numbers in (("data", "1010"), ("domain", "0011")):
            rows = "".join(f"section_{section}_{n:04d}.wav,{value}\n" for n, value in enumerate(numbers))
            name = f"ground_truth_{kind}/ground_truth_ToyCar_section_{section}_test.csv"
            files[f"dcase2022_evaluator/{name}"] = rows.encode()
    with serve(files) as server:
        download("dcase2022", tmp_path, ["ToyCar"], base_url=server.url)  # the real registry: it has no sizes or MD5s
        there = tree(tmp_path)
        assert {name: there[name] for name in recordings} == recordings
        clips = {Path(c.path).stem: c for c in layouts.scan(tmp_path, "dcase2022")}
        for section in ("03", "04", "05"):
            found = [clips[f"section_{section}_test_{n:04d}"] for n in range(4)]
            assert [c.label for c in found] == ["anomaly", "normal", "anomaly", "normal"]
            assert [c.domain for c in found] == ["source", "source", "target", "target"]
            assert {c.part for c in found} == {"eval"}
        requests = len(server.requests)
        download("dcase2022", tmp_path, ["ToyCar"], base_url=server.url)
        assert len(server.requests) == requests


def test_a_truncated_file_on_the_server_is_named(server: RangeServer, fan: Fan, tmp_path: Path) -> None:
    size = len(server.files[DEV_FAN])
    server.files[DEV_FAN] = server.files[DEV_FAN][:-100]
    with pytest.raises(AsdRayError, match=f"{DEV_FAN}: the server has {size - 100} bytes; expected {size}"):
        fan()
    assert tree(tmp_path / "data") == {}


def corrupt(server: RangeServer) -> bytes:
    """Flips a bit of the fan's archive; returns it as it was."""
    good = server.files[DEV_FAN]
    server.files[DEV_FAN] = good[:2000] + bytes([good[2000] ^ 1]) + good[2001:]
    return good


def test_a_corrupted_download_is_fetched_once_more(
    server: RangeServer, fan: Fan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = corrupt(server)

    def repair(path: str, span: str) -> None:
        if server.served[path] > len(good):
            server.files[DEV_FAN] = good

    server.answer = repair
    fan()
    assert server.served[DEV_FAN] == 2 * len(good) + 1
    assert "dev_data_fan.zip: the file is corrupted" in caplog.text
    assert tree(tmp_path / "data") == FAN_DEV


def test_a_file_that_is_corrupted_twice_is_an_error(server: RangeServer, fan: Fan, tmp_path: Path) -> None:
    good = corrupt(server)
    wanted, found = (hashlib.md5(content).hexdigest() for content in (good, server.files[DEV_FAN]))
    with pytest.raises(AsdRayError, match=rf"dev_data_fan\.zip: .*corrupted: found MD5 {found}; expected {wanted}"):
        fan()
    assert server.served[DEV_FAN] == 2 * len(good) + 1
    assert tree(tmp_path / "data") == {}
    server.files[DEV_FAN] = good
    fan()
    assert tree(tmp_path / "data") == FAN_DEV


def test_without_md5_the_members_checksums_find_the_corruption(
    server: RangeServer, registry: Registry, fan: Fan, tmp_path: Path
) -> None:
    good = corrupt(server)
    unknown = replace(registry, archives=tuple(replace(f, size=None, md5=None) for f in registry.archives))
    with pytest.raises(AsdRayError, match=r"dev_data_fan\.zip: the archive is damaged"):
        fan(registry=unknown)
    assert server.served[DEV_FAN] == 2 * len(good) + 1
    assert all(FAN_DEV[name] == content for name, content in tree(tmp_path / "data").items())
    server.files[DEV_FAN] = good
    fan(registry=unknown)
    assert tree(tmp_path / "data") == FAN_DEV


def test_404_names_the_address_before_anything_is_fetched(server: RangeServer, fan: Fan, tmp_path: Path) -> None:
    del server.files["3841772/eval_data_test_fan.zip"]
    with pytest.raises(AsdRayError, match=f"{server.url}/3841772/eval_data_test_fan.zip: the server answered 404"):
        fan(parts=["dev", "eval"])
    assert server.served[DEV_FAN] == 1
    assert len([path for path, _ in server.requests if path.startswith("3841772")]) == 1


def test_too_little_space_is_said_before_anything_is_fetched(
    server: RangeServer, fan: Fan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [len(server.files[name]) for name in (DEV_FAN, "3841772/eval_data_test_fan.zip")]
    usage = type("Usage", (), {"free": math.ceil(1.35 * sum(sizes) + max(sizes)) - 1})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(AsdRayError, match=r"data: the download needs 0\.1 MB of disk space, but 0\.1 MB are free"):
        fan(parts=["dev", "eval"])
    assert server.spans() == []
    usage.free += 1 - 1000
    monkeypatch.setattr(transfer, "partial_bytes", lambda target: 500)  # of each of the two
    fan(parts=["dev", "eval"])


def test_a_lost_recording_is_restored(server: RangeServer, fan: Fan, tmp_path: Path) -> None:
    fan()
    first, *others = [tmp_path / "data" / name for name in FAN_DEV]
    for path in others:
        os.utime(path, ns=(1, 1))
    first.unlink()
    fan()
    assert tree(tmp_path / "data") == FAN_DEV
    assert all(path.stat().st_mtime_ns == 1 for path in others)


def test_an_archive_that_is_published_anew_replaces_the_old(server: RangeServer, fan: Fan, tmp_path: Path) -> None:
    fan()
    name = next(iter(FAN_DEV))
    changed = FAN_DEV | {name: noise()}
    server.files[DEV_FAN] = zipped(changed)
    fan(registry=published(DCASE2020, server.files))
    assert tree(tmp_path / "data") == changed


def test_a_recording_and_its_label_that_are_lost_are_restored(fan: Fan, tmp_path: Path) -> None:
    fan(parts=["eval"])
    before = tree(tmp_path / "data")
    labels = tmp_path / "data" / "fan" / "test_labels.csv"
    labels.write_text(labels.read_text().replace("id_01_00000000.wav,anomaly\n", ""))
    (tmp_path / "data" / "fan" / "test" / "id_01_00000000.wav").unlink()
    fan(parts=["eval"])
    assert tree(tmp_path / "data") == before


def test_lost_labels_are_attached_again_without_the_archives(server: RangeServer, fan: Fan, tmp_path: Path) -> None:
    fan(parts=["eval"])
    labels = tmp_path / "data" / "fan" / "test_labels.csv"
    before = labels.read_text()
    labels.unlink()
    server.requests.clear()
    fan(parts=["eval"])
    assert labels.read_text() == before
    assert {path for path, _ in server.requests} == {"3951620/eval_data_list.csv"}


def test_a_list_of_labels_that_is_none_is_fetched_once_more(
    server: RangeServer, registry: Registry, fan: Fan, tmp_path: Path
) -> None:
    server.files["3951620/eval_data_list.csv"] = b"<html>\nSign in;please\n"
    unknown = tuple(replace(file, size=None, md5=None) for file in registry.ground_truth)
    with pytest.raises(AsdRayError, match=r"eval_data_list\.csv, line 1: found '<html>'"):
        fan(parts=["eval"], registry=replace(registry, ground_truth=unknown))
    assert server.served["3951620/eval_data_list.csv"] == 2 * 22 + 1
    assert not list((tmp_path / "data").rglob("*.csv"))


def test_two_downloads_to_one_folder_are_kept_apart(server: RangeServer, fan: Fan) -> None:
    def again(progress: Progress) -> None:
        with pytest.raises(AsdRayError, match="another download to this folder is running"):
            fan()
        server.files["seen"] = b""

    fan(progress=again)
    assert "seen" in server.files


def test_the_base_url_comes_from_the_environment_too(
    server: RangeServer, fan: Fan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASD_RAY_BASE_URL", server.url)
    fan(base_url=None)
    assert tree(tmp_path / "data") == FAN_DEV


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "ftp://mirror"}, "base URL 'ftp://mirror': expected an address that starts with http"),
        ({"machines": ["gearbox"]}, "dcase2020 has no machine gearbox; choose from fan, pump"),
        ({"parts": ["test"]}, "no part test; choose from dev, additional, eval"),
        ({"connections": 0}, "found 0 connections"),
    ],
)
def test_wrong_usage_is_said_before_anything_happens(
    fan: Fan, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        fan(**options)
    assert not (tmp_path / "data").exists()


def test_a_root_that_is_a_file_is_named(fan: Fan, tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(AsdRayError, match=r"data/\.downloads: cannot be written \(Not a directory\); choose another"):
        fan()


def test_credentials_in_an_address_are_not_shown(server: RangeServer, fan: Fan) -> None:
    server.files.clear()
    with pytest.raises(AsdRayError) as caught:
        fan(base_url=server.url.replace("//", "//me:secret@"))
    assert "secret" not in str(caught.value)
    assert f"{server.url}/{DEV_FAN}" in str(caught.value)


def test_a_malicious_archive_is_refused(server: RangeServer, fan: Fan, tmp_path: Path) -> None:
    server.files[DEV_FAN] = zipped({"fan/test/a.wav": b"a", "fan/../../outside.wav": b"b"})
    with pytest.raises(AsdRayError, match=r"'fan/../../outside.wav' leaves the target folder"):
        fan(registry=published(DCASE2020, server.files))
    assert tree(tmp_path / "data") == {}
    assert not (tmp_path / "outside.wav").exists()
