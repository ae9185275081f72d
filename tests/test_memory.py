from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys

import pytest

from asd_ray import memory as allocator

PROGRAM = """
import json, resource, threading, torch
from asd_ray.methods.blocks.mobilefacenet import MobileFaceNet
from asd_ray.memory import keep_freed_memory

torch.set_num_threads(1)
network = MobileFaceNet(1, 128, 313).to(memory_format=torch.channels_last)

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        network.zero_grad()
        network(torch.randn(2, 1, 128, 313)).sum().backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / steps

def train():
    found = [faults(2), keep_freed_memory(), keep_freed_memory()]
    faults(6)
    print(json.dumps([*found, faults(4)]))

thread = threading.Thread(target=train)
thread.start()
thread.join()
"""


@pytest.mark.integration
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_steps_in_a_thread_soon_take_few_new_pages() -> None:
    """In a thread, as trials and Ray Train's workers: one arena gives both kinds of thread their blocks."""
    environment = {**os.environ, **allocator.ONE_ARENA}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment)
    default, first, again, kept = json.loads(done.stdout)
    assert first
    assert again
    assert kept < 0.1 * default


GIVES_BACK = """
import json, os, torch
from asd_ray.memory import give_back_memory, keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

assert keep_freed_memory()
blocks = [torch.zeros(2**18) for _ in range(200)]  # 200 MiB
held = resident()
del blocks
kept = resident()
give_back_memory()
print(json.dumps([held, kept, resident()]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_was_kept_can_be_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", GIVES_BACK], capture_output=True, text=True, check=True)
    held, kept, given_back = json.loads(done.stdout)
    assert kept > held - 20
    assert given_back < kept - 150


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_freed_memory()
