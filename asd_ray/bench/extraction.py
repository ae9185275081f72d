"""Speed and memory of feature extraction: whole builds on a new Ray, and plain loops on one core."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from asd_ray.bench import librosa_baseline
from asd_ray.bench.memory import peak_memory
from asd_ray.bench.processes import local_ray, wait_for_others
from asd_ray.bench.table import Measured, interleaved, rate
from asd_ray.config import FeatureConfig
from asd_ray.data import audio
from asd_ray.data.clips import Clip
from asd_ray.features.log_mel import LogMel
from asd_ray.memory import keep_freed_memory

Work = Callable[[], int]
OURS, TORCHAUDIO = "our Log-Mel", "torchaudio's MelSpectrogram"
BASELINE, LIBROSA = "baseline's vectors, ours", "baseline's vectors, librosa"
LIBROSA_SHARE = 10  # librosa is slow: it gets one clip in ten


def build_seconds(clips: Sequence[Clip], root: Path, store: Path) -> float:
    """Seconds of a whole build on a new Ray."""
    from asd_ray.features.build import build

    with local_ray():
        started = time.perf_counter()
        build(clips, root, store, FeatureConfig())
        return time.perf_counter() - started


def build_memory(clips: Sequence[Clip], root: Path, store: Path) -> float:
    """Peak memory of a build on a new Ray in GiB, above the memory of this process and Ray before the build."""
    from asd_ray.features.build import build

    with local_ray():
        before, peak = peak_memory(lambda: build(clips, root, store, FeatureConfig()))
        return peak - before


def one_core(recordings: Sequence[Path], repeats: int) -> dict[str, Measured]:
    """Rates of all loops, taken in turn, in a process that keeps freed memory as the workers of a build do.

    The loop of librosa is left out if librosa is not installed.
    """
    keep_freed_memory()
    loops = {
        OURS: loop(recordings, LogMel(FeatureConfig())),
        TORCHAUDIO: loop(recordings, torchaudio_log_mel()),
        BASELINE: loop(recordings, baseline_vectors()),
    }
    if importlib.util.find_spec("librosa") is not None:
        loops[LIBROSA] = _librosa_loop(recordings[::LIBROSA_SHARE])
    for work in loops.values():  # the first call compiles, plans and imports
        work()
    return dict(zip(loops, interleaved(list(loops.values()), repeats), strict=True))


def loop_beside_others(recordings: Sequence[Path], repeats: int) -> Measured:
    """Rate of our loop while other processes run it at the same time (called by ``in_processes``)."""
    work = loop(recordings, LogMel(FeatureConfig()))
    work()
    wait_for_others()
    return rate(work, repeats)


def loop(recordings: Sequence[Path], transform: Callable[[Tensor], Tensor]) -> Work:
    """A function that decodes and transforms recordings one by one to fp16, and keeps nothing."""
    config = FeatureConfig()

    @torch.inference_mode()
    def work() -> int:
        for path in recordings:
            waveform = audio.read(path, config.sample_rate, config.seconds)
            transform(torch.from_numpy(waveform)[None]).half()
        return len(recordings)

    return work


def _librosa_loop(recordings: Sequence[Path]) -> Work:
    def work() -> int:
        for path in recordings:
            librosa_baseline.vectors(path)
        return len(recordings)

    return work


def torchaudio_log_mel() -> Callable[[Tensor], Tensor]:
    """The default Log-Mel by torchaudio's own transform: (B, S) to (B, F, T)."""
    from torchaudio.transforms import MelSpectrogram

    config = FeatureConfig()
    mel = MelSpectrogram(
        config.sample_rate,
        config.n_fft,
        config.win_length,
        config.hop_length,
        config.f_min,
        config.f_max,
        n_mels=config.n_mels,
        power=config.power,
        norm=config.norm,
        mel_scale=config.mel_scale,
        pad_mode=config.pad_mode,
    )
    return lambda waveforms: mel(waveforms).clamp_min(config.floor).log()


def baseline_vectors() -> Callable[[Tensor], Tensor]:
    """The vectors of :mod:`asd_ray.bench.librosa_baseline` by our transform: (B, S) to (B, V, P F)."""
    log_mel, context = LogMel(FeatureConfig(preset="dcase2020_baseline")), librosa_baseline.CONTEXT

    def vectors(waveforms: Tensor) -> Tensor:
        frames = log_mel(waveforms).transpose(1, 2).to(torch.float16, memory_format=torch.contiguous_format)
        # (B, T, F): frames are contiguous, so every vector is a view, without a copy.
        return frames.flatten(1).unfold(1, context * frames.shape[2], frames.shape[2])

    return vectors
