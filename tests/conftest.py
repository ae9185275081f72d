"""Settings of all tests."""

from __future__ import annotations

import os

# Tests compute little at a time, and two run at once: threads of torch and numpy would mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
