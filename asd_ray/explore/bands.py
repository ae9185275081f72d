"""Compare anomalous and normal clips in eight frequency bands: AUC of each band's level.

SIA-MoCo (arXiv 2509.15570) assumes that anomalies lie at higher frequencies than normal operation. Four scores per band
test this on a labelled set. Let d be the band's level in dB minus its mean over the ID's training clips, and g the
median of d over the clip's eight bands (a change of gain, or of most bands together).

* ``energy_more``: d. AUC above 0.5: anomalies have more energy in the band; below 0.5: less.
* ``energy_either``: |d|, for a detector that does not know the direction.
* ``shape_more``: d - g.
* ``shape_either``: |d - g|. The score to read: is the band unusual for its ID, in either direction? A louder clip does
  not change it. If most bands change together, g follows them, and the other bands look unusual.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from tabulate import tabulate

from asd_ray import metrics
from asd_ray.data.side_files import Fault
from asd_ray.explore.mel_axis import BANDS, WHOLE, Real, band_edges
from asd_ray.explore.spectra import Spectra
from asd_ray.metrics.rows import is_anomaly, row_members

MEASURES = ("energy_more", "energy_either", "shape_more", "shape_either")
TITLES = {
    "shape_either": "Unusual shape: level relative to the clip's other bands, in either direction",
    "shape_more": "Direction of the shape: above 0.50 louder, below 0.50 quieter than the clip's other bands",
    "energy_either": "Unusual energy, in either direction",
    "energy_more": "More energy",
}
_KEY = ["machine", "id", "domain", "fault", "band"]
_COUNTS = ["n_train", "n_normal", "n_anomaly"]


def analyse(spectra: Spectra, faults: Mapping[str, Fault] | None = None) -> pd.DataFrame:
    """Compute the AUC of every band's scores per ID, averaged over IDs and machines by the data's rule.

    Args:
        spectra: of training clips and labelled test clips.
        faults: path -> fault. Each kind of fault of a machine gets its own rows: normal test clips against that kind.

    Returns:
        Columns ``machine, id, domain, fault, band`` (1 to 8; 0 is the level of the whole clip), ``fault_band``,
        ``low_hz, high_hz, n_train, n_normal, n_anomaly``, ``MEASURES`` (AUC; NaN where an ID lacks clips), and
        ``chance_sd``: standard deviation of an AUC of as many clips without any difference (Mann and Whitney 1947;
        with domains an upper bound). Rows with ``id = "mean"`` average a machine, or all (``machine = "all"``).
        ``fault`` is "" for all anomalies together.
    """
    faults = faults or {}
    clips = pd.DataFrame([(c.machine, c.id, c.domain, c.label, c.split) for c in spectra.clips])
    clips.columns = pd.Index(["machine", "id", "domain", "label", "split"])
    clips["fault"] = [faults[clip.path].kind if clip.path in faults else "" for clip in spectra.clips]
    scores = _scores(clips, spectra.band_levels())
    test = clips["split"] == "test"
    parts = [_rows(clips[test], scores).assign(fault="")]
    for machine, kind in sorted(set(zip(clips["machine"], clips["fault"], strict=True))):
        if kind:
            this = test & (clips["machine"] == machine) & ((clips["label"] == "normal") | (clips["fault"] == kind))
            rows = _rows(clips[this], scores)
            parts.append(rows[rows["n_anomaly"] > 0].assign(fault=kind))
    rows = pd.concat(parts, ignore_index=True)
    n_train = clips[~test].groupby(["machine", "id"]).size().rename("n_train")
    table = _with_means(rows.join(n_train, on=["machine", "id"]).fillna({"n_train": 0}).astype({"n_train": int}))
    edges = band_edges(spectra.features)
    whole = table["band"] == 0
    table["low_hz"] = np.where(whole, edges[0], edges[table["band"] - 1])
    table["high_hz"] = np.where(whole, edges[-1], edges[table["band"]])
    bands = {(c.machine, faults[c.path].kind): faults[c.path].band for c in spectra.clips if c.path in faults}
    table["fault_band"] = [bands.get(key, "") for key in zip(table["machine"], table["fault"], strict=True)]
    return table[[*_KEY, "fault_band", "low_hz", "high_hz", *_COUNTS, *MEASURES, "chance_sd"]]


def _scores(clips: pd.DataFrame, levels: Real) -> Real:
    """Scores (N, 4, 9): measures x bands and whole; NaN for IDs without training clips and for the whole's shape."""
    ids = clips["machine"] + "/" + clips["id"]
    train = (clips["split"] == "train").to_numpy()
    usual = pd.DataFrame(levels[train]).groupby(ids[train].to_numpy()).mean().reindex(ids).to_numpy()
    away = levels - usual
    shape = away - np.median(away[:, :WHOLE], axis=1, keepdims=True)
    shape[:, WHOLE] = np.nan
    # Within an ID, levels rank clips like d and need no training clip.
    return np.stack([levels, np.abs(away), shape, np.abs(shape)], axis=1)


def _rows(clips: pd.DataFrame, scores: Real) -> pd.DataFrame:
    """The AUC of ``metrics.per_id`` for all measures and bands at once."""
    parts = []
    labels, scores = is_anomaly(clips), scores[clips.index]
    for (_, machine, machine_id, domain), members in row_members(clips, None):
        anomaly = labels[members]
        positive, negative = int(anomaly.sum()), int((~anomaly).sum())
        ranks = rankdata(scores[members], axis=0, nan_policy="propagate")
        larger = ranks[anomaly].sum(axis=0) - positive * (positive + 1) / 2  # pairs where the anomaly scores higher
        areas = larger / (positive * negative) if positive and negative else np.full(larger.shape, np.nan)
        part = pd.DataFrame(np.roll(areas, 1, axis=1).T, columns=list(MEASURES))  # the whole spectrum becomes band 0
        part = part.rename_axis("band").reset_index().melt("band", var_name="measure", value_name="auc")
        parts.append(part.assign(machine=machine, id=machine_id, domain=domain, n_normal=negative, n_anomaly=positive))
    return pd.concat(parts, ignore_index=True).assign(pauc=np.nan)


def _with_means(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per ID (and domain), machine and all machines, band and fault, with a column per measure."""
    by = ["fault", "band", "measure"]
    variance = (rows["n_normal"] + rows["n_anomaly"] + 1) / (12.0 * rows["n_normal"] * rows["n_anomaly"])
    rows = rows.assign(chance_sd=np.sqrt(variance).where(rows["auc"].notna()))
    sections = rows[rows["domain"].isin(metrics.SECTION)]
    averaged = rows[rows["domain"] != "all"].dropna(subset=["auc"])
    id_sd = averaged.groupby([*by, "machine", "id"])["chance_sd"].mean()  # the domains' values are not independent
    machine_sd = id_sd.groupby([*by, "machine"]).agg(_sd_of_mean)
    counts = sections.groupby([*by, "machine"])[_COUNTS].sum()
    machines = metrics.per_machine(rows, by).set_index([*by, "machine"]).join(counts).assign(chance_sd=machine_sd)
    overall = metrics.averages(rows[rows["fault"] == ""], by).set_index(by).join(counts.groupby(by).sum())
    overall["chance_sd"] = machine_sd.groupby(by).agg(_sd_of_mean)
    every = pd.concat(
        [
            rows.assign(rank=0),
            machines.reset_index().assign(id="mean", domain="", rank=1),
            overall.reset_index().assign(machine="all", id="mean", domain="", rank=2),
        ],
        ignore_index=True,
    )
    values = every.pivot(index=_KEY, columns="measure", values="auc")[list(MEASURES)]
    table = every[every["measure"] == "energy_either"].set_index(_KEY).drop(columns="auc").join(values).reset_index()
    table["by_fault"], table["last"] = table["fault"] != "", table["rank"] == 2
    order = ["by_fault", "last", "machine", "fault", "rank", "id", "domain", "band"]
    return table.sort_values(order, ignore_index=True)


def _sd_of_mean(deviations: pd.Series) -> float:
    """Standard deviation of a mean of independent values."""
    return float(np.sqrt(np.square(deviations).sum()) / len(deviations))


# --- Text ------------------------------------------------------------------------------------------------------------


def verdict(table: pd.DataFrame) -> str:
    """Say whether the upper four bands separate better than the lower four, and how much chance explains."""
    means = table[(table["id"] == "mean") & (table["fault"] == "") & (table["band"] > 0)]
    if means["shape_either"].isna().all():
        return "No ID has training clips and both kinds of test clips: the usual spectra are unknown."
    halves = means.groupby(["machine", means["band"] > BANDS // 2])["shape_either"].mean().unstack()
    edge = sorted(set(means["high_hz"]))[BANDS // 2 - 1]
    machines = halves.drop("all").dropna()
    lower, upper = halves.loc["all"].to_numpy(dtype=np.float64)
    values = means[means["machine"] != "all"].dropna(subset=["shape_either"])
    above = int((values["shape_either"] > 0.5 + 2 * values["chance_sd"]).sum())
    return (
        f"By unusual shape, anomalies stand out more above {edge:,.0f} Hz than below on "
        f"{int((machines[True] > machines[False]).sum())} of {len(machines)} machines: mean AUC {upper:.2f} in the "
        f"upper four bands, {lower:.2f} in the lower four. {above} of {len(values)} values are above chance; luck "
        f"alone gives about {0.025 * len(values):.1f}."
    )


def band_table(table: pd.DataFrame, measure: str, *, by_fault: bool = False) -> str:
    """Format the means of one measure as a Markdown table: machines (and kinds of fault) x bands."""
    means = table[(table["id"] == "mean") & ((table["fault"] != "") == by_fault)]
    edges = means[means["band"] > 0].drop_duplicates("band")
    head = [f"{low:,.0f}–{high:,.0f} Hz" for low, high in zip(edges["low_hz"], edges["high_hz"], strict=True)]
    columns = list(range(1, BANDS + 1))
    if measure.startswith("energy"):
        head, columns = [*head, "whole clip"], [*columns, 0]
    lines = means[means["band"] == 0].set_index(["machine", "fault"])
    values = means.pivot(index=["machine", "fault"], columns="band", values=measure).reindex(lines.index)[columns]
    text = values.map(lambda auc: "–" if np.isnan(auc) else f"{auc:.2f}").set_axis(head, axis=1)
    text.insert(0, "clips", lines[_COUNTS].astype(str).agg("/".join, axis=1))
    text["chance"] = [f"± {2 * sd:.2f}" if np.isfinite(sd) else "–" for sd in lines["chance_sd"]]
    if by_fault:
        text.insert(0, "its band", lines["fault_band"].replace("", "–"))
    text = text.reset_index() if by_fault else text.reset_index().drop(columns="fault")
    return tabulate(text.to_numpy().tolist(), headers=list(text.columns), tablefmt="github", disable_numparse=True)


def report(table: pd.DataFrame, source: str, synthetic: bool) -> str:
    """Format ``bands.md``: what was measured, the answer, and the tables of all measures."""
    parts = [
        "# Where in frequency do anomalies differ from normal clips?",
        f"{source}. AUC per ID, then averaged over IDs and machines; eight bands of equal width in mel."
        + (" Synthetic data: these numbers say nothing about real machines." if synthetic else ""),
        verdict(table),
        "`chance`: without any difference, 19 of 20 values lie within 0.50 ± this. `clips`: training / normal test / "
        "anomalous test clips; with few training clips, an ID's usual spectrum is uncertain. `whole clip`: AUC of "
        "loudness alone; if it is far from 0.50, energy says little about frequency: read the tables of shape.",
    ]
    for measure, title in TITLES.items():
        parts += [f"## {title}", band_table(table, measure)]
    if (table["fault"] != "").any():
        for measure in ("shape_either", "shape_more"):
            parts += [f"## By kind of fault. {TITLES[measure]}", band_table(table, measure, by_fault=True)]
    return "\n\n".join(parts) + "\n"
