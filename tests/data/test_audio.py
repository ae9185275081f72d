from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asd_ray.data import audio
from asd_ray.data.problems import BadClip

ODD = Path(__file__).parents[3] / "shared" / "data" / "real-odd" / "mimii_fan_8ch_16k_10s.wav"
PROPERTY = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def tone(hertz: float, rate: int, seconds: float) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def riff(chunks: list[tuple[bytes, bytes]], data_size: int | None = None) -> bytes:
    """A wav file of the given chunks; ``data_size`` is what the data chunk claims instead of its true size."""
    body = b"WAVE"
    for name, content in chunks:
        size = data_size if name == b"data" and data_size is not None else len(content)
        body += struct.pack("<4sI", name, size) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def pcm_format(channels: int, rate: int, bits: int) -> bytes:
    block = channels * bits // 8
    return struct.pack("<HHIIHH", 1, channels, rate, rate * block, block, bits)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "PCM_U8"])
def test_every_sample_format_of_wav_reads_the_same_sound(tmp_path: Path, subtype: str) -> None:
    wave = tone(440, 16000, 0.1)
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype=subtype)
    samples = audio.read(tmp_path / "a.wav", 16000)
    assert samples.dtype == np.float32
    assert samples.shape == (1600,)
    np.testing.assert_allclose(samples, wave, atol=1 / 64 if subtype == "PCM_U8" else 1e-4)


@pytest.mark.parametrize("container", ["WAVEX", "RF64"])
def test_wav_with_other_headers(tmp_path: Path, container: str) -> None:
    wave = tone(440, 16000, 0.1)
    soundfile.write(tmp_path / "a.wav", np.stack([wave, wave], axis=1), 16000, format=container, subtype="PCM_24")
    assert audio.read_header(tmp_path / "a.wav") == (16000, 1600, 2)
    np.testing.assert_allclose(audio.read(tmp_path / "a.wav", 16000), wave, atol=1e-6)


@pytest.mark.parametrize(("suffix", "tolerance"), [("flac", 1e-4), ("ogg", 0.1)])
def test_flac_and_ogg(tmp_path: Path, suffix: str, tolerance: float) -> None:
    wave = tone(440, 16000, 0.5)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.stack([wave, -wave], axis=1), 16000)
    assert audio.read_header(path) == (16000, 8000, 2)
    np.testing.assert_allclose(audio.read(path, 16000, channel=1), -wave, atol=tolerance)


@PROPERTY
@given(
    channels=st.integers(1, 8),
    rate=st.sampled_from([8000, 16000, 44100, 192000]),
    bits=st.sampled_from([8, 16, 24, 32]),
    frames=st.integers(1, 50),
    before=st.lists(st.tuples(st.sampled_from([b"LIST", b"bext", b"JUNK"]), st.binary(max_size=9)), max_size=3),
    after=st.binary(max_size=20),
)
def test_header_of_wav_is_libsndfiles(
    tmp_path: Path,
    channels: int,
    rate: int,
    bits: int,
    frames: int,
    before: list[tuple[bytes, bytes]],
    after: bytes,
) -> None:
    data = bytes(frames * channels * bits // 8)
    path = tmp_path / "a.wav"
    chunks = [*before, (b"fmt ", pcm_format(channels, rate, bits)), (b"data", data), (b"LIST", after)]
    path.write_bytes(riff(chunks))
    info = soundfile.info(str(path))
    assert audio.read_header(path) == (info.samplerate, info.frames, info.channels) == (rate, frames, channels)


@PROPERTY
@given(
    samples=st.lists(st.integers(-32768, 32767), min_size=1, max_size=40),
    channels=st.integers(1, 3),
    wanted=st.integers(-1, 50),
    container=st.sampled_from(["WAV", "WAVEX"]),
)
def test_sixteen_bit_samples_are_libsndfiles(
    tmp_path: Path, samples: list[int], channels: int, wanted: int, container: str
) -> None:
    values = np.repeat(np.array(samples, np.int16)[:, None], channels, axis=1) // np.arange(1, channels + 1)
    path = tmp_path / "a.wav"
    soundfile.write(path, values.astype(np.int16), 16000, format=container, subtype="PCM_16")
    found, rate = audio.decode(path, wanted)
    expected = soundfile.read(path, frames=wanted, dtype="float32", always_2d=True)[0]
    assert (rate, found.dtype, found.shape) == (16000, np.float32, expected.shape)
    np.testing.assert_array_equal(found, expected)


@PROPERTY
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_an_error(tmp_path: Path, share: float) -> None:
    whole = riff([(b"fmt ", pcm_format(1, 16000, 16)), (b"LIST", b"abcd"), (b"data", bytes(range(1, 201)))])
    path = tmp_path / "cut.wav"
    path.write_bytes(whole[: int(share * len(whole))])
    for act in (lambda: audio.read_header(path), lambda: audio.read(path, 16000)):
        with pytest.raises(BadClip, match=r"cut\.wav"):
            act()


def test_truncated_says_how_much_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440, 16000, 1), 16000, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:-20000])
    with pytest.raises(BadClip, match=r"a\.wav: 6,000 of 16,000 samples are there; expected a whole file"):
        audio.read(path, 16000, 0.1)


def test_truncated_flac(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 32000), 16000)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(BadClip, match=r"a\.flac"):
        audio.read(path, 16000)


@pytest.mark.parametrize("claimed", [0xFFFFFFFF, 0x7FFFFFFF - 36])
def test_a_wav_written_to_a_pipe_has_a_made_up_length(tmp_path: Path, claimed: int) -> None:
    data = np.arange(1, 1001, dtype="<i2").tobytes()
    (tmp_path / "a.wav").write_bytes(riff([(b"fmt ", pcm_format(1, 16000, 16)), (b"data", data)], data_size=claimed))
    assert audio.read_header(tmp_path / "a.wav") == (16000, 1000, 1)
    np.testing.assert_array_equal(audio.read(tmp_path / "a.wav", 16000) * 32768, np.arange(1, 1001))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (riff([(b"fmt ", pcm_format(1, 16000, 16)), (b"data", b"")]), "empty"),
        (riff([(b"fmt ", pcm_format(1, 16000, 16))]), "truncated"),
        (riff([(b"fmt ", pcm_format(0, 16000, 16)), (b"data", b"\0\0")]), "unreadable"),
        (b"<html>404 Not Found</html>" * 40, "unreadable"),
    ],
)
def test_what_is_no_recording(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(BadClip, match=r"a\.wav: .+; expected .+\.") as caught:
        audio.read(tmp_path / "a.wav", 16000)
    assert caught.value.problem.kind == kind


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadClip, match=r"gone\.wav: No such file"):
        audio.read_header(tmp_path / "gone.wav")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(tmp_path: Path, value: float) -> None:
    wave = tone(440, 16000, 0.1).astype(np.float32)
    wave[7] = value
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    with pytest.raises(BadClip, match=r"a\.wav: NaN or infinite"):
        audio.read(tmp_path / "a.wav", 16000)


def test_channels_are_chosen_or_averaged(tmp_path: Path) -> None:
    waves = np.random.default_rng(0).uniform(-1, 1, (100, 3)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", waves, 16000, subtype="FLOAT")
    np.testing.assert_array_equal(audio.read(tmp_path / "a.wav", 16000), waves[:, 0])
    np.testing.assert_array_equal(audio.read(tmp_path / "a.wav", 16000, channel=2), waves[:, 2])
    np.testing.assert_allclose(audio.read(tmp_path / "a.wav", 16000, channel="mean"), waves.mean(axis=1), atol=1e-7)
    for channel in (3, -1):
        with pytest.raises(BadClip, match=rf"a\.wav: no channel {channel} among its 3; expected .* 0 to 2 or mean"):
            audio.read(tmp_path / "a.wav", 16000, channel=channel)


@PROPERTY
@given(frames=st.integers(1, 400), wanted=st.integers(1, 400))
def test_length_is_cut_or_repeated_from_the_start(tmp_path: Path, frames: int, wanted: int) -> None:
    wave = np.arange(1, frames + 1, dtype=np.float32) / 512
    soundfile.write(tmp_path / "a.wav", wave, 1000, subtype="FLOAT")
    samples = audio.read(tmp_path / "a.wav", 1000, wanted / 1000)
    assert samples.shape == (wanted,)
    np.testing.assert_array_equal(samples, [wave[i % frames] for i in range(wanted)])


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_the_sound(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1000, rate, 1), rate, subtype="FLOAT")
    samples = audio.read(tmp_path / "a.wav", 16000)
    assert samples.dtype == np.float32
    assert abs(len(samples) - 16000) <= 1
    inner = slice(1000, 15000)  # the filter rings at the ends, where the tone begins and ends
    np.testing.assert_allclose(samples[inner], tone(1000, 16000, 1)[inner], atol=1e-3)


def test_resampling_removes_what_the_new_rate_cannot_hold(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(11000, 48000, 1), 48000, subtype="FLOAT")
    assert np.abs(audio.read(tmp_path / "a.wav", 16000)[1000:15000]).max() < 1e-3


def test_a_cut_recording_sounds_like_the_beginning_of_the_whole(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 44100 * 2)
    soundfile.write(tmp_path / "a.wav", noise, 44100, subtype="FLOAT")
    whole = audio.read(tmp_path / "a.wav", 16000)
    np.testing.assert_allclose(audio.read(tmp_path / "a.wav", 16000, 0.7), whole[:11200], atol=1e-5)


def test_a_recording_too_short_for_the_new_rate(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", [0.5], 48000)
    with pytest.raises(BadClip, match="no samples at 1,000 Hz"):
        audio.read(tmp_path / "a.wav", 1000, 1.0)


def test_errors_travel_between_processes(tmp_path: Path) -> None:
    with pytest.raises(BadClip) as caught:
        audio.read(tmp_path / "gone.wav", 16000)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert copy.problem == caught.value.problem
    assert str(copy) == str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.wav", True), ("A.WAV", True), ("b/a.flac", True), ("a.ogg", True), ("a.csv", False), ("._a.wav", False)],
)
def test_is_audio(name: str, expected: bool) -> None:
    assert audio.is_audio(name) is expected


@pytest.mark.skipif(not ODD.is_file(), reason="the real recordings are not here")
def test_a_real_recording_of_eight_channels() -> None:
    assert audio.read_header(ODD) == (16000, 160000, 8)
    channels = [audio.read(ODD, 16000, 10.0, channel) for channel in range(8)]
    assert all(channel.shape == (160000,) for channel in channels)
    np.testing.assert_allclose(audio.read(ODD, 16000, 10.0, "mean"), np.mean(channels, axis=0), atol=1e-6)
    assert audio.read(ODD, 8000, 12.0).shape == (96000,)
