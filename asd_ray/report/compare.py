"""Compare studies: their best trials on the same held-out clips, with intervals and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from asd_ray import __version__
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.files import write_text
from asd_ray.metrics.intervals import Estimate, difference, estimate, machines_of, mean_of
from asd_ray.report.evidence import in_words, within_chance
from asd_ray.report.figures.detection import study_means
from asd_ray.report.findings import Findings
from asd_ray.report.page import template
from asd_ray.report.result_tables import METRICS, averages, with_interval
from asd_ray.report.scored_clips import Runs, on_split, trial_runs
from asd_ray.report.summary import latex, markdown
from asd_ray.report.tables import UNDEFINED, percent, plain, signed
from asd_ray.report.text import Table, cell

NOTE = (
    "Every study is represented by the trial that its select split chose. All of them scored the same clips, so each "
    "draw of the bootstrap (1,000, stratified by ID and label) is the same for all, and differences are paired. "
    "Intervals say what other clips of these machines would change, not what other machines or training seeds would; "
    "with many machines and studies some intervals miss 0 by chance (one in twenty where nothing differs)."
)


@dataclass(frozen=True)
class Comparison:
    """Studies with the same held-out clips.

    Attributes:
        findings: name of a study -> its findings; the others are compared with the first.
        systems: name of a study -> holdout clips, scored by its best trial, a table per seed.
    """

    findings: dict[str, Findings]
    systems: dict[str, Runs]

    @classmethod
    def read(cls, folders: Sequence[Path]) -> Comparison:
        """Read study folders.

        Raises:
            ConfigError: fewer than two folders, or a folder twice.
            AsdRayError: a study has no scored best trial, or their p of pAUC or their clips differ.
        """
        if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
            raise ConfigError(
                f"At least two different study folders are compared; found {', '.join(map(str, folders))}."
            )
        read = [Findings.read(folder) for folder in folders]
        findings = dict(zip(_names(read), read, strict=True))
        systems = {}
        for name, found in findings.items():
            runs = [] if found.best is None else trial_runs(found.folder, found.best)
            if not runs:
                raise AsdRayError(
                    f"{found.folder}: has no complete trial whose scores are there (trials/*/scores.parquet), so there "
                    "is nothing to compare; finish the study, or leave it out."
                )
            systems[name] = runs
        first = next(iter(findings.values()))
        for name, found in findings.items():
            if found.max_fpr != first.max_fpr:
                raise AsdRayError(
                    f"{name}: evaluation.max_fpr is {found.max_fpr:g} there and {first.max_fpr:g} in {first.name}; "
                    "pAUCs of different p cannot be compared."
                )
        systems = on_split(systems, "holdout")
        if not len(next(iter(systems.values()))[0]):
            raise AsdRayError(f"{first.folder}: its holdout split has no clips, so there is nothing to compare.")
        return cls(findings, systems)

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        p = next(iter(self.findings.values())).max_fpr
        return {name: estimate(runs, p) for name, runs in self.systems.items()}

    @cached_property
    def gains(self) -> dict[str, pd.DataFrame]:
        """:func:`asd_ray.metrics.intervals.difference` of every study after the first, and the first."""
        first, *others = self.estimates
        return {name: difference(self.estimates[name], self.estimates[first]) for name in others}

    @property
    def machine_names(self) -> list[str]:
        return machines_of(next(iter(self.estimates.values())).table)

    @property
    def synthetic(self) -> bool:
        return any(found.synthetic for found in self.findings.values())

    def studies(self) -> Table:
        """Method, best trial and size of the search of each study."""
        header = ["study", "method", "best trial", "score", "trials", "epochs of the best", "seeds"]
        lines = []
        for name, found in self.findings.items():
            row = found.trials.set_index("trial").loc[found.best]
            method = str((found.study.get("method") or {}).get("name", UNDEFINED))
            seeds = str(self.estimates[name].n_seeds)
            counts = [str(len(found.complete)), plain(row["epochs"]), seeds]
            lines.append([name, method, str(found.best), found.score, *counts])
        return Table("The studies that are compared.", header, lines, 2)

    def averages(self) -> Table:
        """Averages with intervals, mAUC and the pooled variant, one line per study."""
        title = (
            "Best trials on the holdout split, averages over all machines in percent, with 95 % intervals over clips."
        )
        return averages(self.estimates, {name: name for name in self.findings}, self._labelled(title))

    def machines(self, metric: str) -> Table:
        """A metric for every machine (line) and study, with intervals; the highest value of a line is bold."""
        header = ["machine", *(text for name in self.findings for text in (name, "95 %"))]
        lines, bold = [], set()
        for number, machine in enumerate(self.machine_names):
            rows = [mean_of(estimate.table, machine) for estimate in self.estimates.values()]
            lines.append([machine, *(text for row in rows for text in with_interval(row, metric))])
            printed = [percent(row[metric]) for row in rows]
            known = [float(text) for text in printed if text != UNDEFINED]
            bold |= {(number, 1 + 2 * i) for i, text in enumerate(printed) if known and text == f"{max(known):.2f}"}
        title = (
            f"{METRICS[metric]} in percent on the holdout split, best trial of each study; 95 % intervals over clips."
        )
        return Table(self._labelled(title), header, lines, 1, bold, {len(lines) - 1})

    def differences(self, metric: str) -> Table:
        """Paired differences to the first study for every machine (line) and other study, with intervals."""
        first = next(iter(self.estimates))
        header = ["machine", *(text for name in self.gains for text in (name, "95 %"))]
        lines, bold = [], set()
        for number, machine in enumerate(self.machine_names):
            line = [machine]
            for place, gain in enumerate(self.gains.values()):
                row = mean_of(gain, machine)
                low, high = row[f"{metric}_low"], row[f"{metric}_high"]
                line += [signed(row[metric]), "" if low != low else f"{signed(low)} to {signed(high)}"]
                if low == low and not within_chance(row, metric):
                    bold.add((number, 1 + 2 * place))
            lines.append(line)
        title = (
            f"Difference in {METRICS[metric]} to {first} in points, paired by clip, with 95 % intervals over clips; "
            "bold where the interval does not hold 0."
        )
        return Table(self._labelled(title), header, lines, 1, bold, {len(lines) - 1})

    def sentences(self) -> list[str]:
        """The difference of every study after the first to the first, in sentences."""
        first = next(iter(self.estimates))
        return [in_words(gain, name, first, self.estimates[name].n_seeds) for name, gain in self.gains.items()]

    def to_paste(self) -> list[tuple[str, Table]]:
        """All tables with their labels."""
        found = [("studies", self.studies()), ("averages", self.averages())]
        for metric in METRICS:
            found += [
                (f"machines-{metric}", self.machines(metric)),
                (f"differences-{metric}", self.differences(metric)),
            ]
        return found

    def _labelled(self, title: str) -> str:
        return f"{title} Synthetic data." if self.synthetic else title


def compare(folders: Sequence[Path], out: Path) -> Path:
    """Compare the best trials of studies on the same held-out clips, paired by clip.

    Args:
        folders: two or more study folders; the others are compared with the first.
        out: folder for ``compare.md``, ``compare.tex`` and ``compare.html``.

    Returns:
        The path of ``compare.html``.

    Raises:
        AsdRayError: as :meth:`Comparison.read`.
    """
    comparison = Comparison.read(folders)
    tables = comparison.to_paste()
    name = " and ".join(comparison.findings)
    of = " (synthetic data)" if comparison.synthetic else ""
    parts = [f"# {cell(name)}{of}", *map(cell, filter(None, comparison.sentences())), NOTE]
    for _, table in tables:
        parts += [f"**{cell(table.title)}**", table.markdown()]
    write_text(out / "compare.md", "\n\n".join(parts) + "\n")
    write_text(out / "compare.tex", latex("compare", tables))
    page = template("compare.html.j2").render(
        name=name,
        comparison=comparison,
        tables=tables,
        note=NOTE,
        to_paste={"Markdown": markdown(tables), "LaTeX": latex("compare", tables)},
        version=__version__,
        figures={title: study_means(comparison.estimates, metric) for metric, title in METRICS.items()},
    )
    write_text(out / "compare.html", page)
    return out / "compare.html"


def _names(studies: Sequence[Findings]) -> list[str]:
    """Names of the studies; names of their folders if those are not unique; else the paths."""
    names = [study.name for study in studies]
    for better in ([study.folder.resolve().name for study in studies], [str(study.folder) for study in studies]):
        if len(set(names)) == len(names):
            break
        names = better
    return names
