"""What every Python process of a Ray that we start imports first, its own helpers included.

It calms Python's collector, because such a process imports more than it ever does. A process for trials imports all
that a trial wants, too: it may have been started ahead of its trial (:mod:`asd_ray.study.spares`).
"""

import os

from asd_ray.memory import collect_rarely

THREADS = "ASD_RAY_THREADS"
"""The variable that says how many threads the libraries of a trial's process may use."""
FOR_TRIALS = "PL_DISABLE_FORK"
"""A variable that Ray Tune sets in the environment of its trials' processes, and in no other's."""


collect_rarely()
if FOR_TRIALS in os.environ and THREADS in os.environ:
    # What Ray does later, when it knows the actor: the libraries look at it when they are imported.
    os.environ.setdefault("OMP_NUM_THREADS", os.environ[THREADS])
    import timm  # noqa: F401
    import torch._dynamo  # noqa: F401  # of torch's optimisers

    import asd_ray.study.trial  # noqa: F401
