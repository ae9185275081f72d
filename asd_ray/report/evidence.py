"""Evidence from the scored clips: intervals of the best trial, the default and the baselines, and their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from asd_ray import metrics
from asd_ray.metrics.intervals import Estimate, difference, estimate, mean_of
from asd_ray.report.scored_clips import Runs, baseline_runs, kinds, on_split, trial_runs
from asd_ray.report.tables import signed

REAL = "is more than other clips would explain"
UNKNOWN = "is the same in all draws of clips, so there are too few clips to say what others would change"


@dataclass(frozen=True)
class Evidence:
    """Scored clips with their intervals. Everything is empty if the study folder has no scores of its best trial.

    Attributes:
        systems: ``best``, ``default`` and the baselines with scores -> their clips of the holdout split.
        estimates: system -> :class:`asd_ray.metrics.intervals.Estimate` on the holdout split.
        gain: ``difference`` of best and default; None if one is missing or both are the same trial.
        kinds: :func:`kind_table` of the best trial.
    """

    systems: dict[str, Runs]
    estimates: dict[str, Estimate]
    gain: pd.DataFrame | None
    kinds: pd.DataFrame

    def gain_in_words(self) -> str:
        """The difference of best and default in sentences; empty if there is nothing to compare."""
        if self.gain is None:
            return ""
        return in_words(self.gain, "the best trial", "the default", self.estimates["best"].n_seeds)


def gather(study_dir: Path, best: int | None, default: int, max_fpr: float) -> Evidence:
    """Read the scores in a study folder.

    Raises:
        AsdRayError: a file of scores is damaged, or two files have different clips.
    """
    runs = trial_runs(study_dir, best) if best is not None else []
    if not runs:
        return Evidence({}, {}, None, pd.DataFrame())
    systems = {"best": runs, "default": runs if best == default else trial_runs(study_dir, default)}
    systems = on_split({name: runs for name, runs in (systems | baseline_runs(study_dir)).items() if runs}, "holdout")
    judged = {name: runs for name, runs in systems.items() if len(runs[0])}
    estimates = {
        name: estimate(runs, max_fpr) for name, runs in judged.items() if not (name == "default" and best == default)
    }
    if best == default and "best" in estimates:
        estimates["default"] = estimates["best"]
    both = best != default and {"best", "default"} <= estimates.keys()
    gain = difference(estimates["best"], estimates["default"]) if both else None
    return Evidence(systems, estimates, gain, kind_table(runs, max_fpr))


def kind_table(runs: Sequence[pd.DataFrame], max_fpr: float) -> pd.DataFrame:
    """Kind of score -> ``select_auc, select_pauc, holdout_auc, holdout_pauc`` of a trial.

    Official averages of the data, mean over the runs (seeds).
    """
    rows = {}
    for kind in kinds(runs):
        of_runs = [
            metrics.averages(metrics.per_id(run.assign(score=run[kind]), max_fpr)).set_index("split") for run in runs
        ]
        mean = pd.concat(of_runs)[["auc", "pauc"]].groupby(level="split").mean().reindex(list(metrics.SPLITS))
        rows[kind] = {f"{split}_{metric}": mean[metric][split] for split in metrics.SPLITS for metric in mean}
    return pd.DataFrame.from_dict(rows, orient="index")


def in_words(gain: pd.DataFrame, first: str, second: str, seeds: int) -> str:
    """A paired difference on the holdout split in one or two sentences, with the verdict of its interval.

    Args:
        gain: :func:`asd_ray.metrics.intervals.difference` of the two.
        first, second: their names in a sentence.
        seeds: number of seeds of each, if equal.
    """
    row = mean_of(gain)
    if pd.isna(row["auc_low"]):
        return ""
    parts = []
    for metric, name in (("auc", "AUC"), ("pauc", "pAUC")):
        interval = f"{signed(row[f'{metric}_low'])} to {signed(row[f'{metric}_high'])}"
        parts.append(f"{signed(row[metric])} points of {name} (95 % interval over clips {interval})")
    sentence = f"On the holdout split {first} against {second}: {' and '.join(parts)}"
    auc, pauc = _verdict(row, "auc"), _verdict(row, "pauc")
    verdict = f"the difference {auc}" if auc == pauc else f"the difference in AUC {auc}; that in pAUC {pauc}"
    if pd.isna(row["auc_wins"]):
        no_pairs = " Another training seed may change it by more: there is no pair of seeds to tell."
        spread = no_pairs if REAL in (auc, pauc) else ""
    else:
        spread = (
            f" Over {seeds} pairs of seeds the difference in AUC has a standard deviation of {100 * row['auc_sd']:.2f} "
            f"points; {first} is higher in {int(row['auc_wins'])} of them."
        )
    return f"{sentence}: {verdict}.{spread}"


def within_chance(row: Mapping[str, float], metric: str) -> bool:
    """True if the interval of a difference, rounded to a hundredth of a point, holds 0."""
    return round(row[f"{metric}_low"], 4) <= 0 <= round(row[f"{metric}_high"], 4)


def _verdict(row: Mapping[str, float], metric: str) -> str:
    """Verdict on a difference in one metric from its interval."""
    if within_chance(row, metric):
        return "is within chance"
    # An ID has a single clip of a label, or all of its clips rank alike.
    every_draw_the_same = round(row[f"{metric}_low"], 4) == round(row[f"{metric}_high"], 4)
    return UNKNOWN if every_draw_the_same else REAL
