"""Functions called in two processes that are one process group (gloo), as two workers are."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

WORKERS = 2
# Both are forked from a process that has imported what takes long: once for all calls of a test run.
METHOD = "forkserver"
mp.get_context(METHOD).set_forkserver_preload(["torch", "asd_ray.training.loop", "asd_ray.methods.registry"])


def _call(rank: int, function: Callable[[int], Any], folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=WORKERS,
        timeout=datetime.timedelta(seconds=120),
    )
    torch.save(function(rank), folder / f"{rank}.pt")
    dist.destroy_process_group()


def in_two_processes(function: Callable[[int], Any], folder: Path) -> list[Any]:
    """What a function of a module makes of each rank: tensors in lists and dictionaries."""
    mp.start_processes(_call, args=(function, folder), nprocs=WORKERS, start_method=METHOD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORKERS)]
