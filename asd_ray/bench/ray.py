"""Benchmark: training through Ray Train with one worker against a plain process, with equal seeds and results."""

from __future__ import annotations

import itertools
import os
import pickle
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from asd_ray.bench.processes import in_new_process, local_ray
from asd_ray.bench.recordings import link_clips, make_recordings
from asd_ray.bench.table import Benchmark, Comparison, Measured, joined, say
from asd_ray.config import FeatureConfig, FinetuneConfig, PretrainConfig, SiaMocoConfig
from asd_ray.data.clips import Clip, class_names
from asd_ray.features.batches import Batches, CachedBatches
from asd_ray.features.store import Manifest, read_tables
from asd_ray.memory import collect_rarely, keep_freed_memory
from asd_ray.methods.base import DataInfo
from asd_ray.methods.registry import build as build_method
from asd_ray.training.checkpoints import FileCheckpoints
from asd_ray.training.loop import Checkpoints, train
from asd_ray.training.stage_run import seed_everything

LIMIT = 0.97
CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Job:
    """Pre-training of ``encoder`` on the store's clips. The first epoch is not counted."""

    encoder: str
    epochs: int
    batch: int
    threads: int
    store: Path
    manifest: Manifest
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Trained:
    """Samples/s of whole epochs, their losses, and the peak resident memory of the training process."""

    rate: Measured
    losses: tuple[float, ...]
    memory: Measured


def run(quick: bool) -> Benchmark:
    """Measure plain, through Ray Train, and plain again; with one thread (a trial's default) and with all threads."""
    count, epochs, batch = (128, 2, 32) if quick else (1_000, 3, 64)
    encoder = "resnet10t" if quick else "resnet18"
    result = Benchmark("ray")
    with tempfile.TemporaryDirectory(prefix="asd_ray-bench-") as path:
        folder = Path(path)
        say(f"ray: features of {count:,} clips")
        clips = link_clips(make_recordings(folder / "recordings", 24), folder / "clips", count)
        manifest = in_new_process(_build, clips, folder / "clips", folder / "store")
        for threads in sorted({1, CORES}):
            job = Job(encoder, epochs, batch, threads, folder / "store", manifest, tuple(class_names(clips)))
            say(f"ray: {epochs} epochs of {encoder}, threads: {threads}, plain, through Ray and plain; 3 to 5 min")
            before, ours, after = (
                in_new_process(function, job, folder / f"{name}-{threads}", threads=threads)
                for name, function in (("before", plain), ("train", through_ray), ("after", plain))
            )
            result.lines += _lines(job, ours, (before, after), count)
    return result


def _lines(job: Job, ours: Trained, without: tuple[Trained, Trained], count: int) -> list[Comparison]:
    same = ours.losses == without[0].losses == without[1].losses
    of = f"{'one thread' if job.threads == 1 else f'{job.threads} threads'} of {CORES} cores"
    note = (
        f"{job.encoder}, batches of {job.batch}, epochs from end to end with their checkpoints, the first not counted; "
        f"the losses of all epochs are {'equal bit for bit' if same else 'NOT equal'}"
    )
    return [
        Comparison(
            f"epoch of {count:,} clips through Ray Train, one worker, {of}",
            ours.rate,
            joined([found.rate for found in without]),
            "the same loop in a process without Ray",
            LIMIT,
            note=note,
        ),
        Comparison(
            f"largest resident memory of the training process, {of}",
            ours.memory,
            joined([found.memory for found in without]),
            "without Ray",
            note="with Ray, clips in the object store count as far as the worker has read them; Ray's own processes do "
            "not"
            if job.threads == 1
            else "",
        ),
    ]


def _build(clips: list[Clip], root: Path, store: Path) -> Manifest:
    from asd_ray.features.build import build

    with local_ray():
        return build(clips, root, store, FeatureConfig()).manifest


def plain(job: Job, folder: Path) -> Trained:
    """Train in this process, on the store's clips as one tensor."""
    tables = list(read_tables(job.store, job.manifest, "train"))
    log_mel = torch.cat([torch.from_numpy(table.log_mel) for table in tables])
    batches = CachedBatches([clip for table in tables for clip in table.clips], {"log_mel": log_mel}, job.classes)
    return _trained(job, batches, FileCheckpoints(folder))


def through_ray(job: Job, folder: Path) -> Trained:
    """Train in a Ray Train worker, as a trial with several workers, on clips in Ray's object store."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    from asd_ray.features.read import open_features

    with local_ray():
        features, result = open_features(job.store, job.manifest, reading="cached"), folder / "trained.pickle"
        TorchTrainer(
            _worker,
            train_loop_config={"job": job, "features": features, "result": result},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": job.threads}),
            run_config=ray.train.RunConfig(
                name="bench",
                storage_path=str(folder),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            ),
        ).fit()
    return pickle.loads(result.read_bytes())


def _worker(config: dict[str, Any]) -> None:
    from asd_ray.training.ray_worker import TrainCheckpoints

    job: Job = config["job"]
    torch.set_num_threads(job.threads)
    trained = _trained(job, config["features"].batches("train", job.classes), TrainCheckpoints(0))
    config["result"].write_bytes(pickle.dumps(trained))


def _trained(job: Job, batches: Batches, checkpoints: Checkpoints) -> Trained:
    collect_rarely()  # as a trial does
    keep_freed_memory()
    config = SiaMocoConfig(
        pretrain=PretrainConfig(encoder=job.encoder, epochs=job.epochs, batch_size=job.batch, probe_every=0),
        finetune=FinetuneConfig(epochs=0),
    )
    n_mels, frames = job.manifest.shape
    info = DataInfo(n_mels, frames, job.classes, job.manifest.mean, job.manifest.std, len(batches.clips))
    seed_everything(0, "build")
    method = build_method(config, info)
    ends: list[float] = []
    history = train(method, lambda splits: batches, 0, checkpoints, lambda epoch: ends.append(time.perf_counter()))
    done = len(batches.clips) // job.batch * job.batch
    rates = tuple(done / (end - start) for start, end in itertools.pairwise(ends))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    losses = tuple(float(epoch["loss"]) for epoch in history)
    return Trained(Measured(rates, "samples/s"), losses, Measured((peak,), "GiB"))
