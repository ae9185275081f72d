"""Read the scored test clips of a study's trials and baselines.

A trial's ``scores.parquet`` has one row per labelled test clip: ``path, machine, id, domain, label, split``, a column
for each kind of score, ``score`` (the kind that judges the trial) and ``decision``. Repeats with other seeds have their
own file. ``baseline_scores.parquet`` has the same identities and a column for each baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from asd_ray.errors import AsdRayError
from asd_ray.parquet import read_table
from asd_ray.report.tables import BASELINES
from asd_ray.study.folder import StudyFolder

IDENTITY = ("path", "machine", "id", "domain", "label", "split")
Runs = list[pd.DataFrame]
"""Scored clips of one system: a table per seed, the seed of the search first."""


def trial_runs(study_dir: Path, trial: int) -> Runs:
    """The scored clips of a trial and of its complete repeats; none if the trial left no scores.

    Raises:
        AsdRayError: a file is damaged.
    """
    folder = StudyFolder(study_dir)
    repeats = [path.name for path in sorted(folder.trial(trial).glob("repeat-*"))]
    runs = []
    for number in (0, *(int(name.removeprefix("repeat-")) for name in repeats)):
        path = folder.trial(trial, number) / "scores.parquet"
        record = folder.record(trial, number)
        if path.exists() and record is not None and record.status == "complete":
            runs.append(read_table(path, (*IDENTITY, "score")))
        elif number == 0:
            return []
    return runs


def baseline_runs(study_dir: Path) -> dict[str, Runs]:
    """Baseline -> its scored clips, for the baselines in the study folder."""
    scores = read_table(study_dir / "baseline_scores.parquet", IDENTITY, missing_ok=True)
    known = [name for name in BASELINES if name in scores]
    return {name: [scores[list(IDENTITY)].assign(score=scores[name])] for name in known}


def kinds(runs: Sequence[pd.DataFrame]) -> list[str]:
    """The kinds of score in all runs."""
    own = {*IDENTITY, "score", "decision"}
    names = [str(name) for name in runs[0].select_dtypes("number") if name not in own] if runs else []
    return [name for name in names if all(name in run for run in runs)]


def on_split(systems: Mapping[str, Runs], split: str) -> dict[str, Runs]:
    """The clips of one split, in the same order for every system and seed.

    Raises:
        AsdRayError: two runs scored different clips, or disagree on the machine, ID, domain or label of a clip.
    """
    chosen: dict[str, Runs] = {
        name: [run[run["split"] == split].sort_values("path", ignore_index=True) for run in runs]
        for name, runs in systems.items()
    }
    everyone = [(name, run) for name, runs in chosen.items() for run in runs]
    for name, run in everyone[1:]:
        _require_same(split, everyone[0], (name, run))
    return chosen


def _require_same(split: str, first: tuple[str, pd.DataFrame], other: tuple[str, pd.DataFrame]) -> None:
    (name, ours), (other_name, theirs) = first, other
    for here, there, who, whom in ((ours, theirs, name, other_name), (theirs, ours, other_name, name)):
        missing = sorted(set(here["path"]) - set(there["path"]))
        if missing:
            raise AsdRayError(
                f"{who} and {whom} did not score the same clips of the {split} split: {missing[0]} "
                f"({len(missing)} in all) is in {who} alone; only systems with the same clips can be compared."
            )
    repeated = [run["path"][run["path"].duplicated()] for run in (ours, theirs)]
    for who, paths in zip((name, other_name), repeated, strict=True):
        if len(paths):
            raise AsdRayError(f"{who}: scored {paths.iloc[0]} twice in the {split} split; expected one score per clip.")
    for column in IDENTITY[1:5]:
        differing = ours[column].astype(str).to_numpy() != theirs[column].astype(str).to_numpy()
        if differing.any():
            clip, theirs_clip = ours[differing].iloc[0], theirs[differing].iloc[0]
            raise AsdRayError(
                f"{clip['path']}: its {column} is {clip[column]} in {name} and {theirs_clip[column]} in {other_name}; "
                "only systems that agree on their clips can be compared."
            )
