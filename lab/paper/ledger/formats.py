"""Pages of the ledger as a terminal table, as Markdown, as LaTeX (booktabs) and as JSON."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.paper.comparisons import markdown as markdown_table
from lab.paper.ledger.cells import source
from lab.paper.ledger.evaluated import HEAD, NOTE, TITLE
from lab.paper.ledger.ours import Ours
from lab.paper.ledger.pages import MEASURED, Judged, Page, judge_one, summary

_TEXT_COLUMNS = ("Cell", "Study", "Rung", "Run", "Verdict")
EVALUATED_TEXT = tuple(name for name in HEAD if name not in ("Score (95% interval)", "Items"))
Lines = Sequence[Sequence[str]]
Grid = tuple[str, Sequence[str], Lines, Sequence[str]]
"""Its title, its head, its lines, and the columns that hold words."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A page as every format for people shows it: grids under their titles, and notes."""

    title: str
    caption: str
    label: str
    grids: Sequence[Grid]
    """The first one's title is the sheet's."""
    notes: Sequence[str]


def sheets(pages: Sequence[Page], evaluated: Lines = ()) -> list[Sheet]:
    """The pages, and after them what `lab.paper.ledger.evaluated.grid` gives, where it gives anything."""
    made = []
    for page in pages:
        head, *lines = page.grid
        grids: list[Grid] = [(page.title, head, lines, (head[0], *page.table.settings))]
        if page.measured:
            grids.append((page.measured_title, MEASURED, page.measured, _TEXT_COLUMNS))
        made.append(
            Sheet(
                title=page.title,
                # LaTeX numbers its own tables: "Table 9: Table 8. ..." would be read as a mistake.
                caption=f"{page.table.label} of the report: {page.table.title}",
                label=f"reported-{page.table.name.replace('_', '-')}",
                grids=grids,
                notes=(page.summary, *page.notes),
            )
        )
    if evaluated:
        grids = [(TITLE, HEAD, evaluated, EVALUATED_TEXT)]
        made.append(Sheet(title=TITLE, caption=TITLE, label="evaluated-here", grids=grids, notes=[NOTE]))
    return made


def terminal_table(head: Sequence[str], lines: Lines, left: Sequence[str]) -> Table:
    """A table whose columns are aligned to the right but for those of `left`."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in head:  # folded where they are too wide: a number cut short would be another number
        made.add_column(name, justify="left" if name in left else "right", overflow="fold")
    for line in lines:
        made.add_row(*(Text(cell) for cell in line))  # not markup: a row may hold brackets
    return made


def put(console: Console, made: Table) -> None:
    """Print a table as wide as the terminal, or where there is none as wide as it is."""
    if not console.is_terminal:
        console.width = max(80, console.measure(made, options=console.options.update(width=10_000)).maximum)
    console.print(made, highlight=False)


def print_terminal(pages: Sequence[Page], evaluated: Lines = ()) -> None:
    """Print them; as wide as the terminal, or where there is none as wide as the tables are."""
    console = Console()
    for sheet in sheets(pages, evaluated):
        for title, head, lines, left in sheet.grids:
            console.print(Text(title, style="bold"))
            put(console, terminal_table(head, lines, left))
        for line in sheet.notes:
            console.print(Text(line), highlight=False, soft_wrap=not console.is_terminal)
        console.print()
    if len(pages) > 1:
        every = [judged for page in pages for judged in page.judged]
        console.print(Text(f"All {len(pages)} tables: {summary(every)}"), soft_wrap=not console.is_terminal)


def markdown(pages: Sequence[Page], evaluated: Lines = ()) -> str:
    """A heading, the tables and a list of notes each."""
    parts = []
    for sheet in sheets(pages, evaluated):
        for title, head, lines, left in sheet.grids:
            parts += [f"### {title}" if title == sheet.title else f"**{title}**", markdown_table([head, *lines], left)]
        parts.append("\n".join(f"- {note.replace('*', chr(92) + '*')}" for note in sheet.notes))
    return "\n\n".join(parts) + "\n"


_WIDTHS = {"Cell": r"p{0.24\linewidth}", "Study": r"p{0.14\linewidth}", "Verdict": r"p{0.14\linewidth}"}
_LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#{}"},
    "_": r"\_\allowbreak{}",  # names of studies are long
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "◇": r"$^{\diamond}$",
    "†": r"$^{\dagger}$",
    "*": "$^{*}$",
    "“": "``",
    "”": "''",
}


def escape(text: str) -> str:
    """Text for LaTeX, with the marks of who measured as superscripts."""
    quoted = re.sub('"([^"]*)"', "“\\1”", text)
    return "".join(_LATEX.get(letter, letter) for letter in quoted)


def latex(pages: Sequence[Page], evaluated: Lines = ()) -> str:
    r"""A `table` each, to be `\input` into a document that loads booktabs."""
    parts = ["% Written by `lab paper --format latex`; needs \\usepackage{booktabs}."]
    for sheet in sheets(pages, evaluated):
        lines = [r"\begin{table}[htbp]", r"\centering\footnotesize\setlength{\tabcolsep}{4pt}"]
        lines += [rf"\caption{{{escape(sheet.caption)}}}", rf"\label{{tab:{sheet.label}}}"]
        for title, head, body, left in sheet.grids:
            if title != sheet.title:
                lines.append(rf"\par\medskip {escape(title)}\par\smallskip\scriptsize")
            # Words beneath the first grid are broken into lines: they would be wider than any page.
            columns = "".join(_WIDTHS.get(name, "l" if name in left else "r") for name in head)
            top, *rows = [rf"{' & '.join(map(escape, line))} \\" for line in (head, *body)]
            lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", top, r"\midrule", *rows, r"\bottomrule"]
            lines.append(r"\end{tabular}")
        lines.append(r"\par\medskip\raggedright\scriptsize")
        parts.append("\n".join([*lines, *(rf"{escape(note)}\par" for note in sheet.notes), r"\end{table}"]))
    return "\n\n".join(parts) + "\n"


def as_json(pages: Sequence[Page], evaluated: Lines = ()) -> str:
    """A list of tables with every cell: what is reported, what is ours, and the verdict; last, what was evaluated."""
    records = [_record(page) for page in pages]
    if evaluated:
        lines = [dict(zip(HEAD, line, strict=True)) for line in evaluated]
        records.append({"table": "evaluated_here", "title": TITLE, "notes": [NOTE], "lines": lines})
    return json.dumps(records, indent=1, ensure_ascii=False) + "\n"


def _record(page: Page) -> dict[str, Any]:
    table = page.table
    return {
        "table": table.name,
        "label": table.label,
        "title": table.title,
        "settings": table.settings,
        "notes": table.notes,
        "inconsistencies": table.inconsistencies,
        "cells": [_cell(judged) for judged in page.judged],
    }


def _cell(judged: Judged) -> dict[str, Any]:
    cell = judged.cell
    own = {name: value for name, value in vars(cell).items() if name != "table"}
    return {
        **own,
        "value": None if cell.value is None else float(cell.value),
        "source": source(cell),
        "verdict": judged.verdict,
        "ours": [{**_ours(ours), "verdict": judge_one(cell, ours)} for ours in judged.ours],
    }


def _ours(ours: Ours) -> dict[str, Any]:
    interval = None if ours.low is None else [ours.low, ours.high]
    own = {name: value for name, value in vars(ours).items() if name not in ("low", "high", "claim")}
    return {**own, "interval": interval, "claim": vars(ours.claim) if ours.claim else None}


FORMATS: Mapping[str, Callable[[Sequence[Page], Lines], str]] = {"markdown": markdown, "latex": latex, "json": as_json}
"""Those that are text; the terminal's is printed."""
