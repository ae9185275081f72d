"""Tables as text, for a terminal, in Markdown and in LaTeX (booktabs); durations as text."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "α": r"$\alpha$",
    "η": r"$\eta$",
}


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: a sentence for its caption.
        header: names of the columns.
        lines: cells.
        text: number of text columns at the left; the others are aligned right.
        bold: (line, column) of bold cells.
        rules: lines with a rule above.
        notes: (line, column) -> small text below a cell, on pages only.
        chosen: a highlighted line, on pages only.
    """

    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[Any]]
    text: int = 0
    bold: Collection[tuple[int, int]] = field(default_factory=frozenset)
    rules: Collection[int] = field(default_factory=frozenset)
    notes: Mapping[tuple[int, int], str] = field(default_factory=dict)
    chosen: int | None = None

    def plain(self) -> str:
        return tabulate(self.lines, self.header, disable_numparse=True, colalign=self._alignment())

    def markdown(self) -> str:
        cells = [
            [f"**{cell(value)}**" if (row, column) in self.bold else cell(value) for column, value in enumerate(line)]
            for row, line in enumerate(self.lines)
        ]
        header = [cell(name) for name in self.header]
        return tabulate(cells, header, "pipe", disable_numparse=True, colalign=self._alignment())

    def latex(self, label: str) -> str:
        r"""A ``table`` environment; needs ``\usepackage{booktabs}``."""
        columns = "l" * self.text + "r" * (len(self.header) - self.text)
        body = []
        for row, line in enumerate(self.lines):
            if row in self.rules:
                body.append(r"\midrule")
            cells = [
                rf"\textbf{{{escape(value)}}}" if (row, column) in self.bold else escape(value)
                for column, value in enumerate(line)
            ]
            body.append(" & ".join(cells) + r" \\")
        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{escape(self.title)}}}",
                rf"\label{{tab:{re.sub(r'[^A-Za-z0-9:-]+', '-', label)}}}",
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                " & ".join(escape(name) for name in self.header) + r" \\",
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )

    def _alignment(self) -> list[str]:
        return ["left"] * self.text + ["right"] * (len(self.header) - self.text)


def cell(value: Any) -> str:
    """Text that is safe in a cell of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def escape(value: Any) -> str:
    """Text with the special characters of LaTeX escaped."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(str(value).split()))


def format_seconds(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 05 min``."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"
