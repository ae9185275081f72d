from __future__ import annotations

import errno
import os
import shutil
import stat
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.data.public.unpack import CorruptedFile, unpack
from asd_ray.errors import AsdRayError
from tests.data.public.range_server import tree, zipped

CLIPS = {f"fan/{split}/normal_id_00_{i:08d}.wav": os.urandom(3000) for split in ("train", "test") for i in range(3)}


def pack(path: Path, members: dict[str, bytes] | list[tuple[zipfile.ZipInfo | str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zipped(members))
    return path


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_unpacks_and_reports(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"fan/": b"", **CLIPS})
    reports: list[tuple[int, int]] = []
    members = unpack(archive, tmp_path / "data", "fan", lambda done, total: reports.append((done, total)))
    assert tree(tmp_path / "data") == CLIPS
    assert members == dict.fromkeys(CLIPS, 3000)
    assert reports == [(3000 * n, 18000) for n in range(1, 7)]


def test_a_second_time_writes_only_what_is_missing_or_another(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", CLIPS)
    unpack(archive, tmp_path, "fan")
    paths = [tmp_path / name for name in CLIPS]
    paths[0].unlink()
    paths[0].with_name(f".{paths[0].name}.part").write_bytes(b"what a killed process left")
    paths[1].write_bytes(b"cut")
    paths[2].write_bytes(bytes(3000))
    for path in paths[3:]:
        os.utime(path, ns=(1, 1))
    unpack(archive, tmp_path, "fan")
    assert tree(tmp_path / "fan") == {name.removeprefix("fan/"): content for name, content in CLIPS.items()}
    assert all(path.stat().st_mtime_ns == 1 for path in paths[3:])


def link(name: str, kind: int = stat.S_IFLNK) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("../outside.wav", "leaves the target"),
        ("fan/../../outside.wav", "leaves the target"),
        ("fan/test/..", "leaves the target"),
        ("/tmp/outside.wav", "absolute path"),
        ("C:/outside.wav", "absolute path"),
        ("C:outside.wav", "absolute path"),
        ("fan\\..\\..\\outside.wav", "backslash"),
        (link("fan/test/link.wav"), "link or a device"),
        (link("fan/test/pipe.wav", stat.S_IFIFO), "link or a device"),
        ("fan/train/normal_id_00_00000000.wav/x.wav", "is a file and a folder"),
        ("fan//train/normal_id_00_00000000.wav", "is there twice"),
        ("./fan/train/normal_id_00_00000000.wav", "is there twice"),
    ],
)
def test_a_malicious_member_refuses_the_whole_archive(
    tmp_path: Path, member: str | zipfile.ZipInfo, message: str
) -> None:
    archive = pack(tmp_path / "in" / "evil.zip", [*CLIPS.items(), (member, b"/etc/passwd")])
    target = tmp_path / "in" / "data"
    target.mkdir()
    before = everything(tmp_path)
    with pytest.raises(AsdRayError, match=message) as caught:
        unpack(archive, target, "fan")
    assert "evil.zip" in str(caught.value)
    assert not isinstance(caught.value, CorruptedFile)
    assert everything(tmp_path) == before
    assert not Path("/tmp/outside.wav").exists()


def test_a_name_with_a_null_byte_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"fan/test/a.wavX": b"x"}).replace(b"a.wavX", b"a.wav\0"))
    with pytest.raises(AsdRayError, match="null byte"):
        unpack(tmp_path / "a.zip", tmp_path, "fan")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.lists(st.sampled_from(["fan", "..", ".", "", "a", "C:", "\\", "..\\b", "test", "é"]), max_size=5).map(
            "/".join
        ),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_nothing_is_ever_written_outside_the_target(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    """Whatever the names: an archive is refused as a whole, or its files lie exactly where their names say."""
    outside = tmp_path_factory.mktemp("outside")
    members = [(name, name.encode()) for name in names if name]
    archive = pack(outside / "x.zip", members)
    target = outside / "deep" / "target"
    target.mkdir(parents=True)
    try:
        unpack(archive, target, "fan")
    except AsdRayError:
        assert everything(target) == []
    else:
        written = tree(target)
        assert written
        assert all(name.startswith("fan/") and content.decode() for name, content in written.items())
        assert {os.path.normpath(content.decode()) for content in written.values()} == set(written)
    assert {path.name for path in outside.iterdir()} == {"x.zip", "deep"}
    assert [path.name for path in (outside / "deep").iterdir()] == ["target"]


def test_a_link_in_the_target_is_not_followed(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", CLIPS)
    (tmp_path / "data" / "fan").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "fan" / "train").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AsdRayError, match="symbolic link"):
        unpack(archive, tmp_path / "data", "fan")
    assert everything(tmp_path / "elsewhere") == []
    assert not (tmp_path / "data" / "fan" / "test").exists()


def test_a_link_in_place_of_a_recording_is_replaced_not_followed(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", CLIPS)
    name, content = next(iter(CLIPS.items()))
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / "precious").write_bytes(bytes(len(content)))
    (tmp_path / name).symlink_to(tmp_path / "precious")
    unpack(archive, tmp_path, "fan")
    assert not (tmp_path / name).is_symlink()
    assert (tmp_path / name).read_bytes() == content
    assert (tmp_path / "precious").read_bytes() == bytes(len(content))


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "bomb.zip", {f"fan/test/{i}.wav": bytes(20 << 20) for i in range(3)})
    assert archive.stat().st_size < 1 << 18
    with pytest.raises(AsdRayError, match=r"claim to unpack to 62914560.*refused"):
        unpack(archive, tmp_path / "data", "fan")
    assert not (tmp_path / "data").exists()


def test_a_member_that_holds_more_than_it_says_is_not_written(tmp_path: Path) -> None:
    """The declared size bounds what is read; the bytes up to it do not have the whole's checksum."""
    archive = pack(tmp_path / "a.zip", {"fan/test/a.wav": bytes(1 << 20)})
    size, lie = (1 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(size, lie))
    with pytest.raises(CorruptedFile, match=r"a\.zip: the archive is damaged"):
        unpack(archive, tmp_path / "data", "fan")
    assert tree(tmp_path / "data") == {}


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asd_ray.data.public.unpack.MAX_MEMBERS", 5)
    with pytest.raises(AsdRayError, match="found 6 members; expected at most 5"):
        unpack(pack(tmp_path / "a.zip", CLIPS), tmp_path, "fan")


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"fan/test/a.wav": b"x"})
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # the local header's flags
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the directory's
    archive.write_bytes(data)
    with pytest.raises(AsdRayError, match="is encrypted"):
        unpack(archive, tmp_path, "fan")


def test_other_folders_are_left_out_and_an_archive_without_the_machine_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive = pack(tmp_path / "a.zip", {**CLIPS, "__MACOSX/x": b"x", "pump/test/a.wav": b"y", "README": b"z"})
    unpack(archive, tmp_path / "data", "fan")
    assert tree(tmp_path / "data") == CLIPS
    assert "3 members outside fan/ are left out" in caplog.text
    with pytest.raises(AsdRayError, match=r"found 'fan/train/.*expected recordings under slider/"):
        unpack(archive, tmp_path / "data", "slider")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text"])
def test_a_damaged_archive_leaves_no_damaged_recording(tmp_path: Path, damage: str) -> None:
    archive = pack(tmp_path / "a.zip", CLIPS)
    data = bytearray(archive.read_bytes())
    if damage == "truncated":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    else:
        data = bytearray(b"<html>Sign in to this network</html>")
    archive.write_bytes(data)
    with pytest.raises(CorruptedFile, match=r"a\.zip: the archive is damaged"):
        unpack(archive, tmp_path / "data", "fan")
    written = tree(tmp_path / "data")
    assert len(written) < len(CLIPS)
    assert all(CLIPS[name] == content for name, content in written.items())


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 30))
def test_whatever_bytes_change_no_wrong_recording_is_written(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], cut: int
) -> None:
    """Bytes are changed in the last 700 of the archive, its directory, and some are cut off its end."""
    folder = tmp_path_factory.mktemp("changed")
    good = {f"fan/test/é{number}.wav": bytes(range(number, 200)) for number in range(4)}
    data = bytearray(zipped(good))
    for position, value in changes:
        data[-1 - position] = value
    (folder / "a.zip").write_bytes(data[: len(data) - cut // 10])
    with suppress(AsdRayError):
        unpack(folder / "a.zip", folder / "data", "fan")
    assert tree(folder / "data").items() <= good.items()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", CLIPS)
    (tmp_path / "fan").touch()
    with pytest.raises(AsdRayError, match=r"a\.zip: cannot be unpacked to .*fan"):
        unpack(archive, tmp_path, "fan")


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(tmp_path / "a.zip", CLIPS)
    usage = type("Usage", (), {"free": 17_999})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(AsdRayError, match=r"unpacking a\.zip needs"):
        unpack(archive, tmp_path / "data", "fan")
    assert not (tmp_path / "data").exists()
    usage.free = 18_000
    unpack(archive, tmp_path / "data", "fan")


def test_a_full_disk_leaves_whole_recordings_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, copy, calls = pack(tmp_path / "a.zip", CLIPS), shutil.copyfileobj, iter(range(100))

    def copy_until_full(source, out, length):
        if next(calls) == 2:
            out.write(source.read(100))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        copy(source, out, length)

    monkeypatch.setattr(shutil, "copyfileobj", copy_until_full)
    with pytest.raises(AsdRayError, match=r"00000002\.wav: the disk is full; free some space"):
        unpack(archive, tmp_path / "data", "fan")
    written = tree(tmp_path / "data")
    assert written == dict(list(CLIPS.items())[:2])
    assert everything(tmp_path / "data" / "fan" / "train") == [Path(name).name for name in written]
    unpack(archive, tmp_path / "data", "fan")
    assert tree(tmp_path / "data") == CLIPS
