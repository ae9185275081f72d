from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from asd_ray.errors import AsdRayError
from asd_ray.features.storage import DEAD_SECONDS, Storage


def test_files_are_written_listed_read_replaced_and_deleted(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "not" / "there")
    assert storage.names() == set()
    storage.write("a", b"1")
    storage.write("a", b"22")
    storage.write("b", b"")
    assert storage.names() == {"a", "b"}
    assert storage.read("a").to_pybytes() == b"22"
    with storage.open("a") as file:
        assert file.read() == b"22"
    storage.delete("a")
    storage.delete("a")
    assert storage.names() == {"b"}
    with pytest.raises(FileNotFoundError):
        storage.read("a")


def test_a_store_is_the_same_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    expected = os.fspath(tmp_path / "store")
    for name in ("store", "~/store", tmp_path / "store", f"file://{tmp_path}/store"):
        assert Storage(name).where == expected
    assert Storage("store").url("x") == f"{expected}/x"
    assert pickle.loads(pickle.dumps(Storage("store"))).where == expected


def test_files_of_a_uri_keep_its_options() -> None:
    assert Storage("s3://bucket/a/").url("x") == "s3://bucket/a/x"
    assert Storage("s3://bucket/a?region=eu").url("x") == "s3://bucket/a/x?region=eu"


@pytest.mark.parametrize("where", ["s3:/bucket/store", Path("s3://bucket/store"), "foo://bucket/store"])
def test_what_is_no_folder_and_no_known_uri_is_refused(where: str | Path) -> None:
    with pytest.raises(AsdRayError, match=r"(two slashes|foo://bucket/store: cannot be opened)"):
        Storage(where).names()


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """The file beside is a device that is always full, so the error is the operating system's own."""
    (tmp_path / f".x.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(AsdRayError, match=r"x: the disk is full"):
        Storage(tmp_path).write("x", b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AsdRayError, match=r"file/x: cannot be written"):
        Storage(tmp_path / "file").write("x", b"")
    with pytest.raises(AsdRayError, match=r"cannot be (listed|read)"):
        Storage(tmp_path / "file").names()


def test_what_killed_writers_left_is_deleted_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    for name, age in ((".dead.1.part", DEAD_SECONDS + 10), (".new.2.part", 0), ("whole", DEAD_SECONDS + 10)):
        (tmp_path / name).write_text("")
        seconds = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (seconds, seconds))
    Storage(tmp_path).delete_dead_parts()
    assert {path.name for path in tmp_path.iterdir()} == {".new.2.part", "whole"}
