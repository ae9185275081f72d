"""The Log-Mel transform: waveforms to the one input that every method of this project sees.

Legend: B batch, S samples, F mel bands, T frames, K frequencies.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from asd_ray.config import FeatureConfig

FULL_SCALE = 32768
"""What a sample of 1.0 is in the store's int16 waveforms."""
BANDS_AT_ONCE = 12
"""Mel bands that are made by one product of matrices. With fewer, calls weigh; with more, zeros of the filter bank."""

_buffers = threading.local()


class LogMel(nn.Module):
    """Waveforms (B, S) in [-1, 1] to Log-Mel spectrograms (B, F, T), fp32, T = 1 + floor(S / hop_length).

    The settings, and what is mirrored or clamped when, are in :class:`asd_ray.config.FeatureConfig`. The filter bank is
    torchaudio's. On a CPU, in fp32 and where no gradient is asked for, one clip after the other goes through the same
    memory, and its power through a few bands at a time, without the frequencies that are in none of them: with decoding
    two and a half times as fast as torchaudio's transform, and equal to the other way up to rounding.
    """

    window: Tensor
    whole_window: Tensor
    filters: Tensor

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        filters = melscale_fbanks(
            n_freqs=config.n_fft // 2 + 1,
            f_min=config.f_min,
            f_max=config.f_max or config.sample_rate / 2,
            n_mels=config.n_mels,
            sample_rate=config.sample_rate,
            norm=config.norm,
            mel_scale=config.mel_scale,
        )
        self.register_buffer("filters", filters.T.contiguous(), persistent=False)
        window, more = torch.hann_window(config.win_length), config.n_fft - config.win_length
        whole = nn.functional.pad(window, (more // 2, more - more // 2))
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("whole_window", whole, persistent=False)
        self.blocks = _blocks(self.filters.numpy())

    def forward(self, waveforms: Tensor) -> Tensor:
        config, mel = self.config, self.mel(waveforms)
        mel = mel.add_(config.floor) if config.floor_rule == "add" else mel.clamp_min_(config.floor)
        if mel.device.type == "cpu" and not mel.requires_grad:
            np.log(mel.numpy(), out=mel.numpy())  # in a third of the time that torch's takes
        else:
            mel = mel.log()
        return mel if config.log == "natural" else mel.mul_(20 / config.power / math.log(10))

    def mel(self, waveforms: Tensor) -> Tensor:
        """Mel spectrograms (B, F, T) of waveforms (B, S) before the logarithm; or (F, T) of one (S,)."""
        config = self.config
        plain = waveforms.dtype == self.window.dtype == torch.float32 and not waveforms.requires_grad
        if waveforms.device.type == "cpu" and plain:
            clips = [self._mel_of_one(waveform) for waveform in waveforms.reshape(-1, waveforms.shape[-1])]
            mel = torch.stack(clips) if len(clips) > 1 else clips[0]
            return mel.reshape(*waveforms.shape[:-1], *mel.shape[-2:])
        spectrum = torch.stft(
            waveforms,
            config.n_fft,
            config.hop_length,
            config.win_length,
            self.window,
            center=True,
            pad_mode=config.pad_mode,
            return_complex=True,
        )
        if config.power == 2:
            magnitude = spectrum.real.square().add_(spectrum.imag.square())
        else:
            magnitude = spectrum.abs().pow(config.power)
        return self.filters @ magnitude

    def _mel_of_one(self, waveform: Tensor) -> Tensor:
        """(S,) to (F, T), as :meth:`mel`."""
        frames = self._frames(waveform.contiguous().numpy())
        spectrum = torch.fft.rfft(frames).numpy()  # (T, K), K = n_fft / 2 + 1
        # Where the frames were: what stays in a core's cache need not be fetched.
        magnitude = frames.numpy().reshape(-1)[: spectrum.size].reshape(spectrum.shape)
        np.abs(spectrum, out=magnitude)
        if self.config.power == 2:
            np.multiply(magnitude, magnitude, out=magnitude)
        elif self.config.power != 1:
            np.power(magnitude, self.config.power, out=magnitude)
        mel = np.empty((self.config.n_mels, len(magnitude)), np.float32)
        for bands, frequencies, weights in self.blocks:
            np.matmul(weights, magnitude[:, frequencies].T, out=mel[bands])
        return torch.from_numpy(mel)

    def _frames(self, waveform: NDArray[np.float32]) -> Tensor:
        """(S,) to (T, n_fft), under the window. Only the frames at both ends are taken from a padded copy."""
        config, samples = self.config, len(waveform)
        size, hop, half = config.n_fft, config.hop_length, config.n_fft // 2
        if config.pad_mode == "reflect":
            left, right = waveform[half:0:-1], waveform[-2 : -half - 2 : -1]
        else:
            left = right = np.zeros(half, np.float32)
        total = 1 + (samples + 2 * half - size) // hop
        first, end = -(-half // hop), (samples + half - size) // hop + 1  # frames that lie inside
        if first < end:
            parts = [
                (0, first, np.concatenate([left, waveform[: (first - 1) * hop + size - half]])),
                (first, end, waveform[first * hop - half :]),
                (end, total, np.concatenate([waveform[end * hop - half :], right])),
            ]
        else:
            parts = [(0, total, np.concatenate([left, waveform, right]))]
        frames = _buffer(total, size)
        for start, stop, part in parts:
            if start < stop:
                overlapping = np.ndarray((stop - start, size), np.float32, part, strides=(4 * hop, 4))
                torch.mul(torch.from_numpy(overlapping), self.whole_window, out=frames[start:stop])
        return frames


def _blocks(filters: NDArray[np.float32]) -> list[tuple[slice, slice, NDArray[np.float32]]]:
    """A filter bank (F, K) as a few dense blocks: their bands, their frequencies, and the weights between these."""
    blocks = []
    for start in range(0, len(filters), BANDS_AT_ONCE):
        bands = slice(start, start + BANDS_AT_ONCE)
        taken = np.flatnonzero(filters[bands].any(axis=0))
        frequencies = slice(taken[0], taken[-1] + 1) if len(taken) else slice(0)
        blocks.append((bands, frequencies, np.ascontiguousarray(filters[bands, frequencies])))
    return blocks


def _buffer(*shape: int) -> Tensor:
    """Room of this thread's that stays allocated: new pages at every call cost more than the transform."""
    if getattr(_buffers, "shape", None) != shape:
        _buffers.shape, _buffers.frames = shape, np.empty(shape, np.float32)
    return torch.from_numpy(_buffers.frames)  # a tensor of this call: inference mode marks those that are made in it


def level_db(waveforms: Tensor) -> Tensor:
    """Root-mean-square level (B,) of waveforms (B, S) in dB relative to full scale: the loudness-only baseline."""
    return 10 * waveforms.square().mean(-1).clamp_min(1e-12).log10()


def to_int16(waveforms: NDArray[np.float32]) -> NDArray[np.int16]:
    """Waveforms in [-1, 1] as int16: times 32768, rounded, clipped. 16-bit recordings come back as they were."""
    return np.clip(np.rint(waveforms * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
