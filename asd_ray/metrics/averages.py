"""The challenge's averages over IDs and machines.

Rows without domains follow DCASE 2020 Task 2: arithmetic means over IDs, then machines. Rows with domains follow DCASE
2022 Task 2: harmonic means over the domain AUCs and section pAUCs, each floored at float epsilon.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from asd_ray.metrics.rows import SECTION, domain_rows, has_domains


def per_machine(rows: pd.DataFrame, by: Sequence[str] = ("split",)) -> pd.DataFrame:
    """Each machine's means over its IDs.

    Args:
        rows: from :func:`asd_ray.metrics.per_id`, of one or more trials.
        by: columns to group by, for example ``("trial", "seed", "split")``.

    Returns:
        The columns ``by``, ``machine``, ``auc``, ``pauc``, ``mauc`` (the smallest AUC of an ID), ``n_ids`` and
        ``n_defined`` (IDs with every AUC defined).
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
    """The averages over all machines.

    Args:
        rows: from :func:`asd_ray.metrics.per_id`, of one or more trials.
        by: columns to group by.

    Returns:
        The columns ``by``, ``auc``, ``pauc``, ``auc_pauc`` (the mean of both; with domains the official score of 2022:
        the harmonic mean over domain AUCs and section pAUCs together), ``mauc`` (arithmetic mean over machines),
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


def _harmonic(rows: pd.DataFrame, by: list[str], column: str) -> pd.Series:
    floored = rows[column].clip(lower=np.finfo(np.float64).eps)
    return 1 / (1 / floored).groupby([rows[name] for name in by]).mean()
