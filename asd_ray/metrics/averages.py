"""Averages of rows by the challenge's rules, and their spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from asd_ray.errors import AsdRayError
from asd_ray.metrics.rows import SECTION, domain_rows, has_domains


def per_machine(rows: pd.DataFrame, by: Sequence[str] = ("split",)) -> pd.DataFrame:
    """Means over the IDs of each machine, by the rule that the rows' domains ask for.

    Args:
        rows: from :func:`per_id`, perhaps of several trials.
        by: columns that tell apart what must not be averaged together, for example ``("trial", "seed", "split")``.

    Returns:
        The columns ``by``, ``machine``, ``auc``, ``pauc``, ``mauc`` (the smallest AUC of an ID), ``n_ids``,
        ``n_defined`` (IDs without an undefined AUC).
    """
    by = [*by, "machine"]
    sections = rows[rows["domain"].isin(SECTION)]
    if has_domains(rows):
        means = pd.concat([_harmonic(domain_rows(rows), by, "auc"), _harmonic(sections, by, "pauc")], axis=1)
    else:
        means = sections.groupby(by)[["auc", "pauc"]].mean()
    means["mauc"] = sections.groupby(by)["auc"].min()
    defined = rows.assign(defined=rows["auc"].notna()).groupby([*by, "id"])["defined"].all().groupby(by)
    means["n_ids"], means["n_defined"] = defined.size(), defined.sum()
    return means.reset_index()


def averages(rows: pd.DataFrame, by: Sequence[str] = ("split",)) -> pd.DataFrame:
    """The over-all averages: :func:`average_2022`'s rule where rows have domains, else :func:`average_2020`'s.

    Returns:
        The columns ``by``, ``auc``, ``pauc``, ``auc_pauc`` (the mean of both; 2022: the official score), ``mauc``,
        ``n_ids``, ``n_defined``, and with domains ``auc_<domain>``.
    """
    by = list(by)
    machines = per_machine(rows, by).groupby(by)
    means = machines[["auc", "pauc", "mauc"]].mean()
    means[["n_ids", "n_defined"]] = machines[["n_ids", "n_defined"]].sum()
    means.insert(2, "auc_pauc", means[["auc", "pauc"]].mean(axis=1, skipna=False))
    if has_domains(rows):
        domains = domain_rows(rows)
        sections = rows[rows["domain"] == "all"].drop(columns="auc").rename(columns={"pauc": "auc"})
        means["auc"] = _harmonic(domains, by, "auc")
        means["pauc"] = _harmonic(sections, by, "auc")
        means["auc_pauc"] = _harmonic(pd.concat([domains, sections]), by, "auc")
        for domain, members in domains.groupby("domain"):
            means[f"auc_{domain}"] = _harmonic(members, by, "auc")
    return means.reset_index()


def average_2020(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """DCASE 2020: the mean over IDs, then over machines, of AUC and pAUC.

    Returns:
        ``split -> {auc, pauc, auc_pauc, mauc, n_ids, n_defined}``, ``mauc`` being the mean over machines of the
        smallest AUC of an ID. Rows of single domains are not looked at.
    """
    sections = rows[rows["domain"].isin(SECTION)].assign(domain="none")
    return _by_split(averages(sections))


def average_2022(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """DCASE 2022: the harmonic mean over sections, domain AUCs and section pAUCs together, floored at float epsilon.

    Returns:
        ``split -> {auc, pauc, auc_pauc, mauc, n_ids, n_defined, auc_source, auc_target}``: harmonic means of the
        domain AUCs, of the pAUCs, and of both together (the official score); ``mauc`` is arithmetic over machines.

    Raises:
        AsdRayError: the rows have no domains.
    """
    if not has_domains(rows):
        raise AsdRayError("The average of DCASE 2022 needs rows per domain; these rows have domain 'none' only.")
    return _by_split(averages(rows))


def over_seeds(rows: pd.DataFrame, by: Sequence[str] = ("split",)) -> pd.DataFrame:
    """Mean and spread over seeds of every machine's averages and of the over-all ones.

    Averages are taken within each seed, by the rule of the rows, and then described over seeds.

    Args:
        rows: from :func:`per_id`, with a column ``seed``.
        by: columns that tell apart what must not be compared, for example ``("trial", "split")``.

    Returns:
        The columns ``by``, ``machine`` (``mean`` for the over-all average, after the machines), ``n_seeds`` (those with
        a defined AUC), and ``auc_mean``, ``auc_sd``, the same of ``pauc`` and ``mauc``. The standard deviation is the
        sample's (n - 1) and undefined, NaN, for one seed.
    """
    within = [*by, "seed"]
    both = pd.concat([per_machine(rows, within), averages(rows, within).assign(machine="mean")])
    groups = both.groupby([*by, "machine"], sort=False)
    spread = pd.DataFrame({"n_seeds": groups["auc"].count()})
    for metric in ("auc", "pauc", "mauc"):
        spread[f"{metric}_mean"], spread[f"{metric}_sd"] = groups[metric].mean(), groups[metric].std()
    return spread.reset_index()


def _harmonic(rows: pd.DataFrame, by: list[str], column: str) -> pd.Series:
    floored = rows[column].clip(lower=np.finfo(np.float64).eps)
    return 1 / (1 / floored).groupby([rows[name] for name in by]).mean()


def _by_split(means: pd.DataFrame) -> dict[str, dict[str, float]]:
    records = [{str(name): value for name, value in row.items()} for row in means.to_dict("records")]
    return {row.pop("split"): {name: float(value) for name, value in row.items()} for row in records}
