"""Figures of a search, drawn by Optuna: history, importances, slices, contours, parallel coordinates, Pareto front."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from typing import Any

import numpy as np
import optuna
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup
from optuna import visualization
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from asd_ray.report.figures.interactive import ACCENT, BAD, CARD, DEFAULT_COLOUR, INK, MUTED, SHADES, embed
from asd_ray.report.findings import DEFAULT, Findings
from asd_ray.report.optuna_study import Goal, optuna_study
from asd_ray.report.result_tables import UNITS
from asd_ray.report.tables import UNDEFINED, percent, plain, ranked
from asd_ray.study.objectives import MINIMISED, objective_columns

OBJECTIVE, PERCENT = "objective (%)", Goal("objective", factor=100)
CELLS = 25
"""Cells of a contour along an axis: a search of many trials has more values than a figure can show."""
FEWEST_IN_CONTOUR = 4


class SearchFigures:
    """Figures of a study's search. Points are complete trials and show their values on hover.

    Args:
        findings: of a study with a complete trial.
    """

    def __init__(self, findings: Findings) -> None:
        self.trials, self.best = findings.trials, findings.best
        self.complete = ranked(self.trials).sort_values("trial")
        self.space = findings.space
        self.names = {key: escape(name) for key, name in findings.keys.items() if self.complete[key].notna().any()}
        self.study = optuna_study(self.trials, self.names, self.space, [PERCENT])
        self.finished = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        self.size = 8 if len(self.finished) < 100 else 5
        self.axes = {name: axis for trial in self.finished for name, axis in trial.distributions.items()}

    @cached_property
    def texts(self) -> dict[int, str]:
        """Trial -> what the figures say of it on hover."""
        texts = {}
        for row in self.complete.to_dict("records"):
            values = [f"{name} {escape(plain(row[key]))}" for key, name in self.names.items()]
            lines = [f"trial {row['trial']}", f"objective {percent(row['objective'])}", *values]
            texts[int(row["trial"])] = "<br>".join(lines)
        return texts

    def history(self) -> Markup:
        """The objective of every trial, the best so far, and where trials were pruned or failed."""
        figure = visualization.plot_optimization_history(self.study, target_name=OBJECTIVE)
        points, line = figure.data[:2]
        figure.data = (points, line)
        points.update(name="trial", marker={"color": MUTED, "size": self.size})
        line.update(name="best so far", line={"color": ACCENT, "width": 1.5, "shape": "hv"}, hoverinfo="skip")
        figure.update_xaxes(title="trial", dtick=1 if len(self.trials) <= 10 else None)
        self._mark(figure, points, points.x)
        for status, symbol, colour in (("pruned", "triangle-down", MUTED), ("failed", "x", BAD)):
            rows = self.trials[self.trials["status"] == status]
            if len(rows):
                height = 100 * rows["objective"].astype(float).fillna(min(points.y) / 100)
                text = [f"trial {trial}: {status}" for trial in rows["trial"]]
                marker = {"symbol": symbol, "color": colour, "size": 8}
                figure.add_scatter(
                    x=list(rows["trial"]), y=list(height), mode="markers", name=status, marker=marker, hovertext=text
                )
                figure.data[-1].update(hoverinfo="text")
        return embed(figure, "objective of every trial", 320)

    def importance(self, shares: Mapping[str, float]) -> Markup:
        """Bars of the searched keys' importances."""
        known = _Known({self.names[key]: share for key, share in shares.items()})
        names = list(known.shares)
        figure = visualization.plot_param_importances(self.study, known, names, target_name="importance")
        [bars] = figure.data
        bars.update(marker={"color": ACCENT}, text=[f"{share:.0%}" for share in bars.x])
        bars.update(hovertemplate="%{y}: %{x:.1%}<extra></extra>")
        figure.update_xaxes(title="share of the importance", tickformat=".0%", range=[0, 1.08])
        figure.update_yaxes(title=None)
        return embed(figure, "importance of the searched keys", 80 + 34 * len(names))

    def slices(self) -> list[Markup]:
        """The objective over each searched key."""
        figures = []
        for key, name in self.names.items():
            figure = visualization.plot_slice(self.study, [name], target_name=OBJECTIVE)
            points = figure.data[0]
            numbers = points.marker.color
            points.update(
                marker={"colorscale": SHADES, "showscale": False, "size": self.size, "line": {"color": MUTED}}
            )
            self._mark(figure, points, numbers)
            axis = self.axes[name]
            if isinstance(axis, CategoricalDistribution):  # Optuna writes choices with quotes
                figure.update_xaxes(labelalias={repr(choice): choice for choice in axis.choices})
            figures.append(embed(figure, f"objective over {key}", 290))
        return figures

    def contours(self, keys: Sequence[tuple[str, str]]) -> list[Markup]:
        """The objective over pairs of searched keys; pairs with too few trials are left out."""
        return [figure for pair in keys if (figure := self._contour(pair))]

    def parallel(self) -> Markup:
        """A line per complete trial through its objective and all its values."""
        figure = visualization.plot_parallel_coordinate(self.study, target_name=OBJECTIVE)
        drawn = figure.to_plotly_json()
        lines = dict(zip(self.complete["trial"], drawn["data"], strict=False))  # the last trace is the colour bar
        strength = self.complete.set_index("trial")["objective"].rank(pct=True) ** (2 if len(lines) < 50 else 6)
        for number, line in lines.items():
            look = {"line": {"color": MUTED, "width": 1.3}, "opacity": 0.06 + 0.7 * strength[number]}
            line.update(look, hovertemplate=f"{self.texts[number]}<extra></extra>", customdata=None)
        for number, (name, _, colour) in self._marks().items():
            line = lines.pop(number)
            line.update(line={"color": colour, "width": 3}, opacity=1, name=name, showlegend=True)
            lines[number] = line  # in front
        for note in drawn["layout"]["annotations"]:
            note.update(text=_tick(note["text"]), font={"color": MUTED, "size": 11}, bgcolor=CARD)
        return embed({"data": list(lines.values()), "layout": drawn["layout"]}, "parallel coordinates", 350)

    def pareto(self) -> Markup:
        """All trials by the first two of several objectives; those on the front of all objectives stand out."""
        columns = objective_columns(self.trials)
        goals = [
            Goal(column, "minimize" if kind in MINIMISED else "maximize", UNITS[kind][1])
            for column, kind in columns.items()
        ]
        study = optuna_study(self.trials, self.names, self.space, goals)
        units = [UNITS[kind][0] for kind in columns.values()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            figure = visualization.plot_pareto_front(
                study, target_names=units[:2], targets=lambda trial: trial.values[:2]
            )
        others, front = figure.data
        for points, name, colour, size in ((others, "trial", MUTED, 7), (front, "on the front", ACCENT, 10)):
            numbers = points.marker.color
            points.update(name=name, showlegend=True, marker={"color": colour, "size": size, "showscale": False})
            self._mark(figure, points, numbers)
        return embed(figure, "Pareto front", 360)

    def _contour(self, keys: Sequence[str]) -> Markup | None:
        pair = sorted(keys, key=self.names.__getitem__)  # in Optuna's order
        rows = self.complete.dropna(subset=pair)
        if len(rows) < FEWEST_IN_CONTOUR or min(rows[key].nunique() for key in pair) < 2:
            return None
        names = [self.names[key] for key in pair]
        coarse = rows.assign(**{key: _coarse(rows[key], self.axes[self.names[key]]) for key in pair})
        cells = coarse.groupby(pair, as_index=False)["objective"].mean()
        cells = cells.assign(trial=range(len(cells)), status="complete")
        study = optuna_study(cells, dict(zip(pair, names, strict=True)), self.space, [PERCENT])
        figure = visualization.plot_contour(study, names, target_name=OBJECTIVE)
        surface = figure.data[0]
        surface.update(colorscale=SHADES, colorbar={"thickness": 12, "outlinewidth": 0}, line={"width": 0.5})
        of_numbers = all(isinstance(self.axes[name], FloatDistribution) for name in names)
        figure.data = (surface,) if of_numbers else ()
        at = [trial for trial in self.finished if all(name in trial.params for name in names)]
        marker = {"color": [trial.value for trial in at], "colorscale": SHADES, "size": self.size}
        marker["line"] = {"color": INK, "width": 0.7}
        x, y = ([trial.params[name] for trial in at] for name in names)
        figure.add_scatter(x=x, y=y, mode="markers", marker=marker, showlegend=False)
        self._mark(figure, figure.data[-1], [trial.number for trial in at])
        return embed(figure, f"objective over {' and '.join(pair)}", 340)

    def _marks(self) -> dict[int, tuple[str, str, str]]:
        """The default and the best trial, where they are complete -> name, symbol, colour."""
        marks = {DEFAULT: (f"default (trial {DEFAULT})", "diamond", DEFAULT_COLOUR)}
        if self.best is not None:
            marks[self.best] = (f"best (trial {self.best}{', the default' * (self.best == DEFAULT)})", "star", ACCENT)
        return {number: mark for number, mark in marks.items() if number in self.texts}

    def _mark(self, figure: go.Figure, points: Any, numbers: Sequence[int]) -> None:
        """Give points their trials' texts, and draw the default and the best trial over them."""
        numbers = [int(number) for number in numbers]
        points.update(hovertext=[self.texts[number] for number in numbers], hovertemplate="%{hovertext}<extra></extra>")
        for number, (name, symbol, colour) in self._marks().items():
            if number in numbers:
                place = numbers.index(number)
                x, y = [points.x[place]], [points.y[place]]
                marker = {"symbol": symbol, "size": 13, "color": colour, "line": {"color": CARD, "width": 1}}
                figure.add_scatter(x=x, y=y, mode="markers", name=name, marker=marker)
                figure.data[-1].update(hovertext=[self.texts[number]], hovertemplate="%{hovertext}<extra></extra>")


class _Known(optuna.importance.BaseImportanceEvaluator):
    """Importances that are computed already."""

    def __init__(self, shares: dict[str, float]) -> None:
        self.shares = shares

    def evaluate(self, study: optuna.Study, params: list[str] | None = None, *, target: Any = None) -> dict[str, float]:
        return dict(sorted(self.shares.items(), key=lambda item: -item[1]))


def _coarse(values: pd.Series, axis: FloatDistribution | CategoricalDistribution) -> Any:
    """Values moved to the nearest of some steps of their axis, where they are many."""
    if isinstance(axis, CategoricalDistribution) or values.nunique() <= CELLS:
        return values
    steps = (np.geomspace if axis.log else np.linspace)(values.min(), values.max(), CELLS)
    return steps[np.abs(values.to_numpy(np.float64)[:, None] - steps).argmin(axis=1)]


def _tick(text: str) -> str:
    """A tick of Optuna's parallel coordinates, in our words: ``16200`` for ``1.62e+04``, a dash for no value."""
    if text == "None":
        return UNDEFINED
    return plain(float(text)) if re.fullmatch(r"-?[0-9.]+(e[+-][0-9]+)?", text) else text
