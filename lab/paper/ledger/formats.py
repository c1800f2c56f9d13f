"""Pages of the ledger as a terminal table, as Markdown, as LaTeX (booktabs) and as JSON."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.paper.ledger.cells import source
from lab.paper.ledger.ours import HEAD, NOTE, TITLE
from lab.paper.ledger.pages import MEASURED, Page, judge_one, summary
from lab.paper.tables import markdown as markdown_table

WORDS = ("Cell", "Study", "Rung", "Run", "Verdict", "Benchmark", "Model", "Metric", "As")
"""The columns that hold words, and are aligned to the left."""
Lines = Sequence[Sequence[str]]


Sheet = tuple[Sequence[tuple[str, Lines, Collection[str]]], Sequence[str]]
"""A page as every format for people shows it: grids (title, lines with the head first, columns of words), and notes."""


def sheets(pages: Sequence[Page], evaluated: Lines = ()) -> Iterator[Sheet]:
    """The pages, and after them what `lab.paper.ledger.ours.grid` gives, where it gives anything."""
    for page in pages:
        grids = [(page.title, page.grid, (page.table.corner, *page.table.settings))]
        if page.measured:
            grids.append(("Measured here", [MEASURED, *page.measured], WORDS))
        yield grids, (page.summary, *page.notes)
    if evaluated:
        yield [(TITLE, [HEAD, *evaluated], WORDS)], [NOTE]


def terminal_table(head: Sequence[str], lines: Lines, left: Collection[str]) -> Table:
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
    for grids, notes in sheets(pages, evaluated):
        for title, (head, *lines), left in grids:
            console.print(Text(title, style="bold"))
            put(console, terminal_table(head, lines, left))
        for line in notes:
            console.print(Text(line), highlight=False, soft_wrap=not console.is_terminal)
        console.print()
    if len(pages) > 1:
        every = [judged for page in pages for judged in page.judged]
        console.print(Text(f"All {len(pages)} tables: {summary(every)}"), soft_wrap=not console.is_terminal)


def markdown(pages: Sequence[Page], evaluated: Lines = ()) -> str:
    """A heading, the tables and a list of notes each."""
    parts = []
    for grids, notes in sheets(pages, evaluated):
        for at, (title, lines, left) in enumerate(grids):
            parts += [f"**{title}**" if at else f"### {title}", markdown_table(lines, left)]
        parts.append("\n".join(f"- {note.replace('*', chr(92) + '*')}" for note in notes))
    return "\n\n".join(parts) + "\n"


_WIDTHS = {"Cell": r"p{0.24\linewidth}", "Study": r"p{0.14\linewidth}", "Verdict": r"p{0.14\linewidth}"}
_FLOAT = r"\begin{table}[htbp]"
_SPECIAL = {ord(letter): f"\\{letter}" for letter in "%&_#"}  # of a caption, which pandas leaves as it is


def latex(pages: Sequence[Page], evaluated: Lines = ()) -> str:
    r"""Each grid as a `table`, its notes in one more, to be `\input` into a document that loads booktabs."""
    from pandas import DataFrame

    parts = [r"% Written by `lab paper --format latex`; needs \usepackage{booktabs} and \usepackage[T1]{fontenc}."]
    for grids, notes in sheets(pages, evaluated):
        for at, (title, (head, *lines), left) in enumerate(grids):
            # LaTeX numbers its own tables: "Table 9: Table 8. ..." would be read as a mistake.
            caption = grids[0][0].replace(". ", " of the report: ", 1) + (f" ({title})" if at else "")
            # Words beneath the first grid are broken into lines: they would be wider than any page.
            columns = "".join(_WIDTHS.get(name, "l" if name in left else "r") for name in head)
            told: Any = {"caption": caption.translate(_SPECIAL), "position": "htbp"}
            frame = DataFrame(lines, columns=list(head))
            parts.append(frame.to_latex(index=False, escape=True, column_format=columns, **told))
        below = DataFrame(notes).to_latex(index=False, header=False, escape=True, column_format=r"p{\linewidth}")
        parts.append(below.replace("\\midrule\n", ""))
    text = "\n".join(parts).replace(_FLOAT, rf"{_FLOAT}\centering\footnotesize\setlength{{\tabcolsep}}{{4pt}}")
    return text.replace("◇", r"$^{\diamond}$").replace("−", "$-$")


def as_json(pages: Sequence[Page], evaluated: Lines = ()) -> str:
    """A list of tables with every cell: what is reported, what is ours, and the verdict; last, what was evaluated."""
    records = []
    for page in pages:
        cells = [
            {
                **vars(cell),
                "value": None if cell.value is None else float(cell.value),
                "source": source(cell),
                "verdict": judged.verdict,
                "ours": [{**asdict(ours), "verdict": judge_one(cell, ours)} for ours in judged.ours],
            }
            for judged in page.judged
            for cell in (judged.cell,)
        ]
        records.append({**vars(page.table), "table": page.table.name, "cells": cells})
    if evaluated:
        lines = [dict(zip(HEAD, line, strict=True)) for line in evaluated]
        records.append({"table": "evaluated_here", "title": TITLE, "notes": [NOTE], "lines": lines})
    return json.dumps(records, indent=1, ensure_ascii=False) + "\n"


FORMATS: Mapping[str, Callable[[Sequence[Page], Lines], str]] = {"markdown": markdown, "latex": latex, "json": as_json}
"""Those that are text; the terminal's is printed."""
