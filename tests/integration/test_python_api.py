"""A study from Python: nothing on the caller's terminal, nothing of the caller's process changed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import asd_ray
from tests.integration.conftest import environment

pytestmark = pytest.mark.integration
CORE_ERROR = re.compile(r"\[[-\d: ,]+ E \d+ \d+\] \w+\.cc:\d+: ")
"""A line that Ray's C++ core writes to standard error when it meets an error, which no setting of Ray turns off."""

PROGRAM = """
import json, logging, os, signal, sys, threading
from pathlib import Path
import asd_ray

SET_BY_RAY = ("RAY_AUTH_MODE", "RAY_CLIENT_MODE")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

def caller():
    log = logging.getLogger("asd_ray")
    handlers = [signal.getsignal(signum) for signum in SIGNALS]
    names = [name for name in os.environ if name.startswith(("TUNE_", "RAY_", "MALLOC_")) and name not in SET_BY_RAY]
    return handlers, names, (log.level, log.propagate, list(log.handlers)), sys.stdout, sys.stderr

def mine(signum, frame):
    pass

signal.signal(signal.SIGTERM, mine)
before, events, during = caller(), [], set()

def follow(event):
    events.append(event)
    during.add(signal.getsignal(signal.SIGTERM))

asd_ray.synthesise("set", machines=1, ids=2, train=8, test_normal=4, test_anomaly=4)
study = asd_ray.load_study({
    "name": "from_python",
    "data": {"layout": "dcase2020", "root": "set"},
    "method": {"name": "autoencoder", "train": {"epochs": 2}},
    "search": {
        "num_trials": 2, "seeds": 2, "repeat_best": 1, "space": {"method.train.lr": {"loguniform": [1e-4, 1e-2]}}
    },
})
built = asd_ray.build_features("set", "features", study, progress=lambda done, total: None)
assert (built.decoded, built.manifest.counts["train"]) == (32, 16)
assert caller() == before
outcome = asd_ray.run_study(study, "study", progress=follow)
assert caller() == before
assert during == {mine}, during
kinds, shown = [event.kind for event in events], repr(outcome)
third = asd_ray.load_study(study.model_dump(mode="json"), {"search.num_trials": 3})
again = threading.Thread(target=lambda: asd_ray.run_study(third, "study"))
again.start()
again.join()
assert caller() == before
missing = asd_ray.load_study(study.model_dump(mode="json"), {"resources.gpus_per_worker": 99})
try:
    asd_ray.run_study(missing, "other")
except asd_ray.AsdRayError as error:
    reason = str(error)
assert caller() == before
Path("found.json").write_text(json.dumps({"kinds": kinds, "shown": shown, "reason": reason}))
"""


def test_a_study_from_python_leaves_its_caller_alone(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=400
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert [line for line in done.stderr.splitlines() if not CORE_ERROR.match(line)] == []
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["kinds"]) >= {"phase", "message", "trial_started", "epoch", "trial_ended"}
    assert found["kinds"].count("trial_ended") >= 3  # two trials, and the repeats of the best
    assert "2 complete trials; best trial" in found["shown"]
    assert "99 GPUs" in found["reason"]
    outcome = asd_ray.read_study(tmp_path / "study")
    assert list(outcome.trials["status"]) == ["complete"] * 3  # the third by a thread that went on with the study
    assert outcome.best is not None
    assert set(outcome.results["split"]) == {"select", "holdout"}
    assert set(outcome.history["repeat"]) == {0, 1}
    assert not outcome.history.duplicated(["trial", "repeat", "epoch"]).any()
    assert {"level", "knn_log_mel"} == set(outcome.baselines["baseline"])
    scores = outcome.detector().score(sorted((tmp_path / "set").glob("*/test/*.wav")))
    assert len(scores) == 16
    assert pd.api.types.is_float_dtype(scores["score"])
    assert (tmp_path / "study" / "logs" / "study.log").read_text().count(" complete: objective ") >= 3
