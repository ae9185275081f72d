"""Read recordings: headers without decoding, samples at a study's rate, channel and length.

Legend: N samples, C channels.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from asd_ray.data.problems import bad_clip

SUFFIXES = (".wav", ".flac", ".ogg")
"""Endings of recordings, in upper or lower case."""

# Extra input for the resampling filter, so that the last samples are right.
_MARGIN_SECONDS = 0.1
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# Sizes from here on mean "unknown": ffmpeg and sox write 4 or 2 GiB into the header of a pipe.
_UNKNOWN_SIZE = 0x7FFF0000
_HEADER = 512  # read buffer in bytes: holds most headers and few samples


class Header(NamedTuple):
    """A file's header: rate in Hz, length in samples per channel, number of channels."""

    sample_rate: int
    frames: int
    channels: int


class _Format(NamedTuple):
    """A header, and whether the file is a plain wav of 16-bit integers."""

    header: Header
    int16: bool


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read a recording's header.

    Plain wav files (RIFF; PCM or float) are read here, about three times as fast as by libsndfile, and a truncated
    file is noticed. soundfile reads all others.

    Raises:
        BadClip: the file is missing, unreadable, empty or (wav) truncated.
    """
    with _open(path) as file:
        return _read_format(path, file).header


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    try:
        with open(path, "rb", buffering=_HEADER) as file:
            yield file
    except OSError as error:
        raise bad_clip("unreadable", path, error.strerror or str(error), "a recording") from None


def _read_format(path: str | os.PathLike[str], file: BinaryIO) -> _Format:
    """Read an open file's header. A plain wav is left at its first sample."""
    found = _read_wav_format(path, file)
    if found is None:
        try:
            info = soundfile.info(os.fspath(path))
        except soundfile.LibsndfileError as error:
            raise _undecodable(path, error) from None
        found = _Format(Header(info.samplerate, info.frames, info.channels), int16=False)
    if found.header.frames <= 0:
        raise bad_clip("empty", path, "no samples", "a recording with at least one sample")
    return found


def _read_wav_format(path: str | os.PathLike[str], file: BinaryIO) -> _Format | None:
    """Read a plain wav file up to its first sample; None if libsndfile must read it."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise bad_clip("empty", path, "a file of 0 bytes", "a recording")
    riff = file.read(12)
    if riff[:4] != b"RIFF" or riff[8:] != b"WAVE":
        return None
    sample_rate = channels = block = bits = tag = 0
    while len(chunk := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", chunk)
        if name == b"fmt ":
            content = file.read(length + length % 2)
            if len(content) < 16:
                return None
            tag, channels, sample_rate, _, block, bits = struct.unpack_from("<HHIIHH", content)
            if tag == _EXTENSIBLE and length >= 26:
                (tag,) = struct.unpack_from("<H", content, 24)
            if tag not in (_PCM, _FLOAT) or not (channels and sample_rate and block):
                return None
        elif name == b"data":
            present = size - file.tell()
            if not block or length >= _UNKNOWN_SIZE:
                return None
            if length > present:
                raise bad_clip(
                    "truncated",
                    path,
                    f"{present // block:,} of {length // block:,} samples are there",
                    "a whole file; copy or download it again",
                )
            header = Header(sample_rate, length // block, channels)
            return _Format(header, int16=tag == _PCM and bits == 16 and block == 2 * channels)
        else:
            file.seek(length + length % 2, os.SEEK_CUR)
    raise bad_clip("truncated", path, "the file ends before its samples begin", "a whole file; copy it again")


def decode(path: str | os.PathLike[str], frames: int = -1) -> tuple[NDArray[np.float32], int]:
    """Read the first ``frames`` samples (all by default) of every channel, at the file's own rate.

    Integer samples are scaled to [-1, 1); float samples are kept. Plain 16-bit wav files are read without libsndfile:
    the same values in a fifth of its time.

    Returns:
        Samples (N, C) in fp32, and the sample rate in Hz.

    Raises:
        BadClip: the file cannot be decoded, or holds fewer samples than its header says.
    """
    samples, sample_rate, _ = _decode(path, lambda header: frames)
    return samples, sample_rate


def _decode(path: str | os.PathLike[str], frames_of: Callable[[Header], int]) -> tuple[NDArray[np.float32], int, bool]:
    """Like ``decode``, with the length computed from the header; also whether the samples are known to be finite."""
    with _open(path) as file:
        header, int16 = _read_format(path, file)
        wanted = frames_of(header)
        wanted = header.frames if wanted < 0 else min(wanted, header.frames)
        sample_rate = header.sample_rate
        if int16:
            samples = _int16_samples(file, wanted, header.channels)
    if not int16:
        try:
            samples, sample_rate = soundfile.read(os.fspath(path), frames=wanted, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise _undecodable(path, error) from None
    if len(samples) < wanted:
        raise bad_clip(
            "truncated",
            path,
            f"{len(samples):,} of {wanted:,} samples could be decoded",
            "a whole file; copy or download it again",
        )
    return samples, sample_rate, int16


def _int16_samples(file: BinaryIO, frames: int, channels: int) -> NDArray[np.float32]:
    """Read samples (N, C) of a plain 16-bit wav from the file's position."""
    integers = np.empty((frames, channels), "<i2")
    read = file.readinto(integers)  # type: ignore[attr-defined]
    samples = integers[: read // (2 * channels)].astype(np.float32)
    samples *= np.float32(1 / 32768)
    return samples


def read(
    path: str | os.PathLike[str],
    sample_rate: int,
    seconds: float | None = None,
    channel: int | Literal["mean"] = 0,
) -> NDArray[np.float32]:
    """Read one channel of a recording at the given rate and length.

    Args:
        path: wav, flac or ogg file, integer or float samples.
        sample_rate: in Hz; soxr (HQ) resamples other rates.
        seconds: longer recordings are cut, shorter ones repeated from their start; None keeps the length.
        channel: channel number from 0, or ``"mean"`` of all channels.

    Returns:
        Samples (N,) in fp32; with ``seconds``, N is ``round(seconds * sample_rate)``.

    Raises:
        BadClip: the file is unreadable, empty or truncated, lacks the channel, or has NaN or infinite samples in the
            part that is used.
    """

    def frames_of(header: Header) -> int:
        if channel != "mean" and not 0 <= channel < header.channels:
            raise bad_clip(
                "channels",
                path,
                f"no channel {channel} among its {header.channels}",
                f"data.channel to be {'0' if header.channels == 1 else f'0 to {header.channels - 1}'} or mean",
            )
        if seconds is None:
            return -1
        margin = 0.0 if header.sample_rate == sample_rate else _MARGIN_SECONDS
        return math.ceil(round((seconds + margin) * header.sample_rate, 6))

    samples, rate, finite = _decode(path, frames_of)
    mono = samples.mean(axis=1) if channel == "mean" else samples[:, channel]
    if not finite and not np.isfinite(mono).all():
        raise bad_clip("not finite", path, "NaN or infinite samples", "finite numbers; export the recording again")
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate, quality="HQ")
    if not len(mono):
        raise bad_clip("empty", path, f"no samples at {sample_rate:,} Hz", "a longer recording")
    if seconds is None:
        return np.ascontiguousarray(mono)
    length = round(seconds * sample_rate)
    return np.ascontiguousarray(mono[:length]) if len(mono) >= length else np.resize(mono, length)  # repeats


def is_audio(name: str | Path) -> bool:
    """True for a recording's file name; hidden files (``._normal.wav`` from a Mac) do not count."""
    base = os.path.basename(name)
    return base.lower().endswith(SUFFIXES) and not base.startswith(".")


def _undecodable(path: str | os.PathLike[str], error: Exception) -> Exception:
    reason = getattr(error, "error_string", str(error)).rstrip(".")
    return bad_clip("unreadable", path, reason, "a wav, flac or ogg file; copy or convert it again")
