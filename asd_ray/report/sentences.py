"""Sentences of a report: the choice of the trial, warnings, and how the numbers were made."""

from __future__ import annotations

from asd_ray.report.findings import DEFAULT, LABELS, Findings
from asd_ray.report.result_tables import UNITS
from asd_ray.report.tables import BASELINES, SYSTEMS, UNDEFINED, percent
from asd_ray.study.objectives import objective_columns

OBJECTIVES = {
    "auc": "AUC",
    "pauc": "pAUC",
    "auc_pauc": "the mean of AUC and pAUC",
    "mauc": "mAUC (the mean over machines of the lowest AUC of an ID)",
}


def choice(findings: Findings) -> str:
    """The split that chose the trial, and the split that is reported."""
    by = OBJECTIVES.get(findings.objective, findings.objective)
    if findings.domains and findings.objective == "auc_pauc":
        by = "the official score (the harmonic mean of domain AUCs and pAUCs)"
    if findings.best is None:
        return f"No trial completed, so none was chosen. It would be chosen by {by} on the select split."
    value = percent(findings.trials.set_index("trial")["objective"][findings.best])
    return (
        f"Trial {findings.best} was chosen by {by} on the select split ({value}). "
        "What is reported is the holdout split, which had no part in the choice"
        + ("; it holds other IDs than the select split." if findings.disjoint else ".")
    )


def warnings(findings: Findings) -> list[str]:
    """Warnings to read before quoting a number."""
    found: list[str] = []
    if findings.synthetic:
        found.append("Synthetic data: these numbers say nothing about real machines.")
    for split in ("holdout", "select"):
        found += _undefined(findings, split)
    found += _single(findings)
    auc = {system: findings.overall(system, "auc") for system in SYSTEMS}
    rivals = [LABELS[name] for name in BASELINES if auc[name] >= auc["best"]]
    if rivals:
        found.append(
            f"On the holdout split the best trial does not beat {' and '.join(rivals)}: this study is no evidence "
            "that its method detects more than that."
        )
    if findings.best != DEFAULT and auc["default"] >= auc["best"]:
        found.append(
            f"On the holdout split the best trial is not better than the default ({percent(auc['best'])} against "
            f"{percent(auc['default'])} AUC): the search gained nothing there."
        )
    if len(findings.seeds) and findings.best is not None:
        means = findings.seeds.set_index("trial")["objective_mean"]
        if findings.best in means.index and means.idxmax() != findings.best:
            found.append(
                f"On the select split the mean over seeds of trial {means.idxmax()} ({percent(means.max())}) is above "
                f"that of trial {findings.best} ({percent(means[findings.best])}): the choice rests on one seed."
            )
    status = dict(zip(findings.trials["trial"], findings.trials["status"], strict=True))
    if status.get(DEFAULT) != "complete":
        found.append(
            f"The default (trial {DEFAULT}) is {status.get(DEFAULT, 'missing')}: there is nothing to compare with."
        )
    return found


def _undefined(findings: Findings, split: str) -> list[str]:
    ids = findings.ids[findings.ids.index.get_level_values("split") == split]
    if findings.disjoint:
        ids = ids[ids["clips"] > 0]
    undefined = ids[~ids["defined"].astype(bool)]
    if undefined.empty:
        return []
    empty = int((undefined["clips"] == 0).sum())
    causes = [f"{empty} without clips there"] if empty else []
    if len(undefined) > empty:
        causes.append(f"{len(undefined) - empty} without normal or without anomalous clips")
    return [
        f"On the {split} split {len(ids) - len(undefined)} of {len(ids)} IDs have a defined AUC "
        f"({', '.join(causes)}). Means are over the defined ones."
    ]


def _single(findings: Findings) -> list[str]:
    """A warning if some IDs have a single clip of a label, which makes intervals too narrow.

    In simulations an interval of a mean difference holds it in nine of ten cases from two clips of each label on, and
    in two to four with one.
    """
    ids = findings.ids[findings.ids.index.get_level_values("split") == "holdout"]
    ids = ids[ids["defined"].astype(bool)]
    single = int((ids["fewest"] == 1).sum())
    if not single or not findings.evidence.estimates:
        return []
    return [
        f"On the holdout split {single} of {len(ids)} IDs with a defined AUC have a single normal or a single "
        "anomalous clip. No draw of clips shows what another one would change: the intervals are too narrow."
    ]


def footnotes(findings: Findings) -> list[str]:
    """Explanations of the numbers."""
    p = findings.max_fpr
    rule = (
        "means are harmonic over sections and domains, as in DCASE 2022 (a domain's AUC: its normal clips against "
        "the anomalous clips of both domains)"
        if findings.domains
        else "means are over IDs, then over machines, as in DCASE 2020"
    )
    notes = [
        f"All values in percent; AUC and pAUC (p = {p:g}, McClish-standardised: chance is 50) per ID; {rule}. "
        f"{UNDEFINED} is undefined.",
        "Baselines without training: level only scores a clip by its loudness (an AUC far above or below 50 means that "
        "loudness gives the anomalies away); k-NN Log-Mel by the distance to the nearest mean spectrum of a training "
        "clip.",
    ]
    counted = findings.results[findings.results["auc"].notna()]
    normal, anomaly = counted["n_normal"].min(), counted["n_anomaly"].min()
    if normal * p < 2:
        notes.append(
            f"Few clips: an ID here has {normal} normal and an ID {anomaly} anomalous clips. Single clips move its "
            f"AUC by points and its pAUC, which looks at the {p:.0%} of normal clips that score highest, by more."
        )
    if len(findings.seeds):
        trials = ", ".join(str(trial) for trial in dict.fromkeys(findings.seeds["trial"]))
        notes.append(
            f"Values of trials {trials} are means over {findings.seeds['n_seeds'].max()} seeds; others ran with one."
        )
    elif len(findings.results):
        notes.append("Every trial ran with one seed, so a small difference between two trials may be chance.")
    if findings.evidence.estimates:
        notes.append(
            "Intervals are 95 % percentile bootstraps over the clips of the holdout split (1,000 draws, stratified by "
            "ID and label). They show the effect of other clips of these machines, not of other machines. The effect "
            "of other seeds is the standard deviation, if there are several."
        )
        notes.append(
            "mAUC is the mean over machines of the lowest AUC of an ID. Pooled AUC and pAUC put the clips of all IDs "
            "of a machine into one ROC curve, as some papers report: not the official metric."
        )
    return notes


def economy(findings: Findings) -> str:
    """Epochs saved by early stopping; empty if no trial was stopped or no trial is complete."""
    trials = findings.trials
    stopped, complete = trials[trials["status"] == "pruned"], trials[trials["status"] == "complete"]
    if stopped.empty or complete.empty:
        return ""
    trained = int(trials["epochs"].sum())
    all_of_them = trained - stopped["epochs"].sum() + len(stopped) * complete["epochs"].mean()
    return (
        f"{len(stopped)} of {len(trials)} trials were stopped early: {trained:,} epochs were trained, "
        f"{trained / all_of_them:.0%} of the {all_of_them:,.0f} had all trained as long as the complete ones."
    )


def score_choice(findings: Findings) -> str:
    """The kind of score that judges the best trial, and the reason for it."""
    asked = findings.study.get("evaluation", {}).get("score", "")
    runs = findings.evidence.estimates["best"].n_seeds if findings.evidence.estimates else 1
    means = f" Values are means over {runs} seeds." if runs > 1 else ""
    if asked == "best":
        return (
            f"Trial {findings.best} is judged by {findings.score}: evaluation.score is best, so every run takes the "
            f"kind of score with the highest objective on the select split.{means}"
        )
    return (
        f"Trial {findings.best} is judged by {findings.score}, as evaluation.score says. The holdout columns are for "
        f"comparison: to choose another kind by them would be a choice on the test set.{means}"
    )


def pareto(findings: Findings) -> str:
    """Explanation of the Pareto front; empty with a single objective."""
    columns = objective_columns(findings.trials)
    if not columns:
        return ""
    names = [UNITS[kind][0].split(" (")[0] for kind in columns.values()]
    text = (
        f"No other trial is at least as good in {', '.join(names[:-1])} and {names[-1]} and better in one of them. "
        f"Quality is of the select split; {names[0]}, the first objective, ranks the trials and chose the best."
    )
    if "latency" in columns.values():
        text += " A latency is the time of one CPU thread for one clip, and holds for the machine that ran the trial."
    return text
