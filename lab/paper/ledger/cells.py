"""The cells of the paper's tables, read from `cells.csv` and `tables.toml` beside this file (sections 4 and 4.5).

A cell is one number, or its absence: a place of a printed table that holds two of them (WER and CER, or what a model's
owners report and what the paper's authors ran) is two cells. An ablation names their rows here (`reported`).
"""

import csv
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Literal

from lab.errors import LabError, choose
from lab.study.ablation import Reported

CELLS = Path(__file__).with_name("cells.csv")
TABLES = Path(__file__).with_name("tables.toml")

DASH = "–"
NOT_FOUND = "not found"
MARKS = {"owner": "*", "leaderboard": "◇", "authors": "", "derived": "†", "": ""}
"""What is printed behind a value, by who measured it."""


@dataclass(frozen=True, kw_only=True)
class PaperCell:
    """One number of the paper, in the unit that it is printed in, or its absence."""

    table: str
    row: str
    column: str
    split: str
    """Of the benchmark, where the source names one."""
    metric: str
    unit: str
    better: Literal["lower", "higher"]
    printed: str
    """As it is printed, "–" where the paper prints a dash, "not found" where no source at hand has it."""
    measured_by: str
    """A key of `MARKS`; empty where there is no value."""
    trust: str
    """A key of `trust` in `tables.toml`; empty where nothing is found."""

    @property
    def key(self) -> str:
        """What the cell is called, in one line."""
        by = f" ({self.measured_by})" if self.measured_by in ("owner", "leaderboard") else ""
        return f"{self.table} / {self.row} / {self.column} / {self.metric}{by}"

    @property
    def value(self) -> Decimal | None:
        """The number with its printed decimals; None for a dash and for what is not found."""
        return None if self.printed in (DASH, NOT_FOUND) else Decimal(self.printed)

    @property
    def marked(self) -> str:
        """As it is printed, with the mark of who measured it."""
        return f"{self.printed}{MARKS[self.measured_by]}"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table or figure of the paper."""

    name: str
    label: str
    title: str
    cells: tuple[PaperCell, ...]
    corner: str = "Model"
    """The heading of its rows."""
    models: Literal["rows", "columns"] = "rows"
    """Where it has its models, or what an ablation compares; the benchmarks are on the other side."""
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Further columns that hold words, by row: the frames of a video model."""
    notes: Sequence[str] = ()
    inconsistencies: Sequence[str] = ()
    """Where the paper contradicts itself."""

    @property
    def rows(self) -> list[str]:
        """In the paper's order."""
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def columns(self) -> list[str]:
        """In the paper's order."""
        return list(dict.fromkeys(cell.column for cell in self.cells))

    def at(self, row: str, column: str) -> list[PaperCell]:
        """The cells of one place: more than one where two metrics, or two who measured, share it."""
        choose(dict.fromkeys(self.rows), row, f"row in {self.label}:")
        choose(dict.fromkeys(self.columns), column, f"column in {self.label}:")
        return [cell for cell in self.cells if (cell.row, cell.column) == (row, column)]

    def cell(self, row: str, column: str, *, metric: str = "", measured_by: str = "") -> PaperCell:
        """The one cell of a place; `metric` and `measured_by` choose where it has several."""
        there = self.at(row, column)
        found = [cell for cell in there if metric in ("", cell.metric) and measured_by in ("", cell.measured_by)]
        if len(found) != 1:
            listed = "; ".join(f"{cell.metric} {cell.marked}" for cell in there)
            raise LabError(
                f"{self.label} has {len(found)} cells at {row!r}, {column!r} with metric {metric or 'any'!r}, measured "
                f"by {measured_by or 'anyone'!r}, and one is wanted; there stand: {listed}"
            )
        return found[0]


@cache
def tables() -> Mapping[str, Table]:
    """Every table by name, in the paper's order."""
    cells: dict[str, list[PaperCell]] = {}
    with CELLS.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            printed = line.pop("value")
            cells.setdefault(line["table"], []).append(PaperCell(**line, printed=printed))  # type: ignore[arg-type]
    return {
        name: Table(name=name, cells=tuple(cells[name]), **head) for name, head in _heads().items() if name != "trust"
    }


@cache
def _heads() -> Mapping[str, dict[str, Any]]:
    heads: dict[str, dict[str, Any]] = tomllib.loads(TABLES.read_text(encoding="utf-8"))
    return heads


def table(name: str) -> Table:
    """The table of that name."""
    return choose(tables(), name, "table of the paper")


def chosen(names: Sequence[str]) -> list[Table]:
    """The tables of these names, each once; all where none is named."""
    return [table(name) for name in dict.fromkeys(names)] or list(tables().values())


def source(cell: PaperCell) -> str:
    """How far a cell can be trusted, in words; "not found" where nothing was."""
    return f"{cell.trust}: {_heads()['trust'][cell.trust]}" if cell.trust else NOT_FOUND


def reported(
    name: str,
    rows: Mapping[str, str],
    *,
    columns: str | Sequence[str],
    metric: str = "test_accuracy",
    note: str = "",
) -> tuple[Reported, ...]:
    """What the ledger has in `columns` of table `name`, for an ablation's rows.

    `rows` has the key of a row of the ablation -> the row of the table that it stands for. A value of `metric` is given
    as a fraction where it is printed in percent. `note` says what the values are of; of several columns it is theirs.
    """
    asked = [columns] if isinstance(columns, str) else list(columns)
    found = []
    for key, cell in ((key, table(name).cell(row, column)) for key, row in rows.items() for column in asked):
        scale = 100 if cell.unit == "%" else 1  # rates are fractions in every file
        told = note if len(asked) == 1 else cell.column
        found.append(
            Reported(
                row=key,
                metric=metric,
                value=None if cell.value is None else float(cell.value / scale),
                source=source(cell),
                note="" if cell.value is None else told,
                cell=cell.key,
            )
        )
    return tuple(found)


def printed(name: str, row: str, column: str) -> str:
    """A value as it is printed, for a note; a LabError where it is not found."""
    cell = table(name).cell(row, column)
    if cell.value is None:
        raise LabError(f"{cell.key} is {cell.printed!r}; a note that wants its number has to say so itself")
    return cell.printed
