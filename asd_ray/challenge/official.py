"""Evaluate score files: join them with a data set's labels and compute the challenge's official metrics.

Intended differences from the official evaluators (y-kawagu/dcase2020_task2_evaluator, Kota-Dohi/dcase2022_evaluator):

* they pair scores and labels by order and compare only counts; here file names are matched;
* the 2022 evaluator mixes up the harmonic means of a machine's source and target domain; they are left out here;
* its ``ci95`` is a jack-knife of scores pooled over all machines; here intervals are a stratified bootstrap over clips;
* data of 2021 follow the rule of 2022 (anomalies of both domains against the normal clips of one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from asd_ray import metrics
from asd_ray.challenge.submission import read_decisions, read_scores
from asd_ray.data.clips import Clip
from asd_ray.data.layouts import dcase2022
from asd_ray.errors import AsdRayError
from asd_ray.metrics.intervals import ROW, estimate, mean_of

_BOUNDS = ["auc_low", "auc_high", "pauc_low", "pauc_high"]
_DECIDED = ["precision", "recall", "f1"]
_KEY = ["split", "machine", "id", "domain"]


def label_scores(folder: Path, clips: Sequence[Clip], machines: Sequence[str] | None = None) -> pd.DataFrame:
    """Join a folder's scores (and decisions) with the labels of a data set's test clips by file name.

    A name with folders is tried with and without them, an evaluation clip of 2022 by both of its names. A part of the
    data set (``dev``, ``eval``) without scores is left out.

    Args:
        folder: with score files.
        clips: of the data set.
        machines: whose files are read; all by default.

    Returns:
        ``path, machine, id, domain, part, label, score`` and, with decision files, ``decision``; ordered by path.

    Raises:
        AsdRayError: a score without a clip, a clip without a score or a label, two scores for a clip, a scored clip
            without a decision in decision files. Names the first and their number.
    """
    test = [clip for clip in clips if clip.split == "test"]
    found = _values_by_path(_of_machines(read_scores(folder), machines), "score", test)
    parts = {clip.part for clip in test if clip.path in found}
    labelled = [clip for clip in test if clip.part in parts and clip.label != "unknown"]
    if unlabelled := [clip.path for clip in test if clip.path in found and clip.label == "unknown"]:
        raise AsdRayError(
            f"{unlabelled[0]}{_more(unlabelled, 'scored clips')}: the data set has no label for it, so its score "
            "cannot be evaluated; expected one in its name, in test_labels.csv or in clips.csv."
        )
    _require_all(folder, "score", labelled, found)
    columns = ["path", "machine", "id", "domain", "part", "label"]
    table = pd.DataFrame([[getattr(clip, column) for column in columns] for clip in labelled], columns=columns)
    table["score"] = [found[path] for path in table["path"]]
    decisions = _of_machines(read_decisions(folder), machines)
    if len(decisions):
        decided = _values_by_path(decisions, "decision", test)
        _require_all(folder, "decision", labelled, decided)
        table["decision"] = [int(decided[path]) for path in table["path"]]
    return table


def _of_machines(rows: pd.DataFrame, machines: Sequence[str] | None) -> pd.DataFrame:
    return rows if machines is None else rows[rows["machine"].isin(machines)]


def _values_by_path(rows: pd.DataFrame, column: str, test: Sequence[Clip]) -> dict[str, float]:
    """Map the paths of test clips named by the rows to their values."""
    by_class: dict[tuple[str, str], list[Clip]] = {}
    for clip in test:
        by_class.setdefault((clip.machine, clip.id), []).append(clip)
    values: dict[str, float] = {}
    for (machine, machine_id), members in rows.groupby(["machine", "id"], sort=False):
        clips = by_class.get((str(machine), str(machine_id)))
        if clips is None:
            raise AsdRayError(
                f"{members['place'].iloc[0]}: the data set has no test clips of {machine} {machine_id}; it has some of "
                f"{', '.join(' '.join(key) for key in sorted(by_class)) or 'nothing'}."
            )
        names = _names(clips)
        surplus = []
        for file, value, place in members[["file", column, "place"]].itertuples(index=False, name=None):
            path = names.get(file) or names.get(_key(file))
            if path is None:
                surplus.append(f"{place}: {file}")
            elif path in values:
                raise AsdRayError(f"{place}: found a second {column} for {path}; expected one.")
            else:
                values[path] = value
        if surplus:
            raise AsdRayError(
                f"{surplus[0]}{_more(surplus, 'names')} is no test clip of {machine} {machine_id} in the data set; "
                f"expected names like {PurePosixPath(clips[0].path).name}."
            )
    return values


def _names(clips: Sequence[Clip]) -> dict[str, str]:
    """Map a clip's names to its path: the path itself, and the file name if it is unique."""
    names: dict[str, str] = {}
    for clip in clips:
        key = _key(clip.path)
        names[key] = "" if key in names else clip.path
    return {name: path for name, path in names.items() if path} | {clip.path: clip.path for clip in clips}


def _key(file: str) -> str:
    path = PurePosixPath(file)
    return dcase2022.key(path.stem) + path.suffix


def _require_all(folder: Path, column: str, clips: Sequence[Clip], found: dict[str, float]) -> None:
    if lacking := [clip for clip in clips if clip.path not in found]:
        clip = lacking[0]
        raise AsdRayError(
            f"{folder}: there is no {column} for {clip.path} of {clip.machine} {clip.id}{_more(lacking, 'clips')}; "
            "expected one for every labelled test clip."
        )


def _more(items: Sequence[object], what: str) -> str:
    return f" (the first of {len(items)} such {what})" if len(items) > 1 else ""


@dataclass(frozen=True)
class OfficialMetrics:
    """Official metrics of scores, as fractions of 1; NaN where undefined.

    Attributes:
        ids: ``metrics.ROW_COLUMNS`` of every part (as ``split``), machine and ID (and domain), with
            ``auc_low, auc_high, pauc_low, pauc_high`` of the bootstrap's 95 % intervals, and ``precision, recall, f1``
            if there are decisions; those of a domain use its own clips alone.
        machines: ``metrics.per_machine``, and ``pooled_auc, pooled_pauc`` over the clips of all IDs.
        averages: ``metrics.averages`` with intervals of ``auc`` and ``pauc``, and the machines' mean of the pooled
            values.

    ``precision, recall, f1`` are averaged over IDs, then machines; with domains, by the harmonic mean over sections and
    domains of values floored at float epsilon, as in the official evaluators.
    """

    ids: pd.DataFrame
    machines: pd.DataFrame
    averages: pd.DataFrame


def official_metrics(labelled: pd.DataFrame, max_fpr: float = 0.1, resamples: int = 1000) -> OfficialMetrics:
    """Compute the official metrics of each part of a data set; its domains decide the rule.

    Args:
        labelled: from ``label_scores``.
        max_fpr: p of pAUC.
        resamples: bootstrap draws; 0 leaves out the intervals.
    """
    clips = labelled.rename(columns={"part": "split"})
    parts = [_of_part(members, max_fpr, resamples) for _, members in clips.groupby("split")]
    return OfficialMetrics(*(pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True)))


def _of_part(clips: pd.DataFrame, max_fpr: float, resamples: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    ids = metrics.per_id(clips, max_fpr)
    pooled = metrics.pooled(clips, max_fpr)[["split", "machine", "pooled_auc", "pooled_pauc"]]
    machines = metrics.per_machine(ids).merge(pooled, on=["split", "machine"])
    averages = metrics.averages(ids).assign(**pooled[["pooled_auc", "pooled_pauc"]].mean())
    if resamples:
        intervals = estimate([clips], max_fpr, resamples).table[_BOUNDS]
        ids, averages = ids.join(intervals, on=ROW), averages.assign(**mean_of(intervals))
    if "decision" in clips:
        decided = metrics.decisions_per_id(clips)[[*_KEY, *_DECIDED]]
        ids = ids.merge(decided, on=_KEY)
        machines = machines.merge(_decision_means(decided, ["split", "machine"]), on=["split", "machine"])
        averages = averages.merge(_decision_means(decided, ["split"]), on="split")
    return ids, machines, averages


def _decision_means(decided: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    if not metrics.has_domains(decided):
        means = decided.groupby(["split", "machine"])[_DECIDED].mean()
        return means.groupby(by).mean().reset_index()
    floored = decided[~decided["domain"].isin(metrics.SECTION)].copy()
    floored[_DECIDED] = 1 / floored[_DECIDED].clip(lower=np.finfo(np.float64).eps)
    return (1 / floored.groupby(by)[_DECIDED].mean()).reset_index()
