from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asd_ray.errors import AsdRayError, StorageError
from asd_ray.files import alone, shown, storage_error, write_atomically, write_folder_atomically, write_text


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file.txt"
    write_text(path, "old")

    def broken(beside: str) -> None:
        Path(beside).write_text("half")
        raise ValueError

    with pytest.raises(ValueError):
        write_atomically(path, broken)
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_a_path_is_shown_as_a_person_would_type_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "runs" / "x") == shown(Path("runs/x")) == "runs/x"
    assert shown(tmp_path.parent) == str(tmp_path.parent)


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    def full(beside: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(AsdRayError, match="the disk is full"):
        write_atomically(tmp_path / "x", full)


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "detector"
    write_folder_atomically(folder, lambda beside: (beside / "old.txt").write_text("old"))

    def broken(beside: Path) -> None:
        (beside / "new.txt").write_text("half")
        raise ValueError

    with pytest.raises(ValueError):
        write_folder_atomically(folder, broken)
    assert [path.name for path in folder.iterdir()] == ["old.txt"]
    write_folder_atomically(folder, lambda beside: (beside / "new.txt").write_text("new"))
    assert [path.name for path in folder.iterdir()] == ["new.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["detector"]


def test_a_full_disk_while_writing_a_folder_is_one_sentence(tmp_path: Path) -> None:
    def full(beside: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(AsdRayError, match="the disk is full"):
        write_folder_atomically(tmp_path / "detector", full)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full"),
        (OSError(errno.EROFS, "Read-only file system"), r"the storage fails \(Read-only file system\)"),
        (OSError(errno.EIO, "Input/output error"), r"the storage fails \(Input/output error\)"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),  # safetensors
        (OSError("Error writing bytes. Detail: [errno 28] No space left on device"), "the disk is full"),  # pyarrow
        (RuntimeError("(sqlite3.OperationalError) database or disk is full"), "the disk is full"),
        (RuntimeError("(sqlite3.OperationalError) attempt to write a readonly database"), "the storage fails"),
    ],
)
def test_what_storage_has_caused_is_told_as_such(error: Exception, sentence: str, tmp_path: Path) -> None:
    def fails(beside: object) -> None:
        raise error

    for write in (write_atomically, write_folder_atomically):
        with pytest.raises(StorageError, match=f"x: {sentence}"):
            write(tmp_path / "x", fails)
    assert list(tmp_path.iterdir()) == []


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    assert storage_error(tmp_path, ValueError("x")) is None
    assert storage_error(tmp_path, FileNotFoundError(errno.ENOENT, "no such file")) is None


HOLDER = """
import sys
from pathlib import Path
from asd_ray.files import alone
with alone(Path(sys.argv[1]), "a run is under way"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_are_never_in_the_same_place(tmp_path: Path) -> None:
    lock, said = tmp_path / ".lock", []
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        message = rf"^a run is under way \(process {other.pid} on .*\); wait for its end"
        with pytest.raises(AsdRayError, match=message), alone(lock, "a run is under way"):
            raise AssertionError("never here")

        def told(text: str) -> None:
            said.append(text)
            other.kill()  # a killed process holds nothing

        with alone(lock, "a run is under way", 60, told):
            assert lock.read_text().startswith(f"process {os.getpid()} on ")
    assert len(said) == 1
    assert said[0].endswith("waiting for its end for up to 60 s.")
