"""What `lab tables` wrote of a rung (`ablations/results/NAME.RUNG.md`), for a machine that its answers are not on.

Intervals and verdicts need every single answer, and those lie in the store of the machine that ran the cells; the table
is in the repository. It lends nothing unless its means and numbers of seeds are those of the results file.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from lab.evaluation.verdict import Outcome
from lab.paper.claims import capital
from lab.paper.tables import table_path
from lab.study.ablation import Ablation, Column

_VALUE = re.compile(r"(?P<mean>-?[\d.]+) \((?P<low>-?[\d.]+) to (?P<high>-?[\d.]+)\)(?P<single>¹?)")
_SAID = re.compile(r"^\*\*(?P<title>.+?)\.\*\* (?P<said>.+)$", re.MULTILINE)
_OUTCOMES: Mapping[str, Outcome] = {capital(outcome): outcome for outcome in get_args(Outcome)}


@dataclass(frozen=True, kw_only=True)
class Written:
    """The rows of a written table by key and heading, and what it says of each claim by title."""

    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)

    def interval(self, row: str, column: Column) -> tuple[float, float, bool] | None:
        """Its ends in the table's unit, and whether it is over seeds; None where none is written."""
        found = _VALUE.match(self.rows.get(row, {}).get(_heading(column), ""))
        return (float(found["low"]), float(found["high"]), not found["single"]) if found else None

    def claim(self, title: str) -> tuple[Outcome | None, str]:
        """Its outcome and its sentence; None and nothing where the table says nothing of it."""
        sentence = self.said.get(title, "")
        return _OUTCOMES.get(sentence.partition(":")[0]), sentence


def read_written(ablation: Ablation, rung: str, lines: Sequence[Mapping[str, str]]) -> Written:
    """What stands in the table of a rung; of nothing where none was written, or of other results than `lines`."""
    path = table_path(ablation, rung)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    grid = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    head = next((line for line in grid if line[0] == "Row"), [])
    by_label = {line[0]: dict(zip(head, line, strict=True)) for line in grid if len(line) == len(head)}
    rows = {row.key: by_label[row.label] for row in ablation.rows if row.label in by_label}
    counted = [column for column in ablation.columns if column.interval]
    if not all(_fits(rows.get(row, {}), lines, row, counted) for row in {line["row"] for line in lines}):
        return Written()
    return Written(rows=rows, said={found["title"]: found["said"] for found in _SAID.finditer(text)})


def _fits(cells: Mapping[str, str], lines: Iterable[Mapping[str, str]], row: str, counted: Iterable[Column]) -> bool:
    mine = [line for line in lines if line["row"] == row]
    if cells.get("Seeds", "").partition(" ")[0] != str(len(mine)):
        return False
    for column in counted:
        mean = sum(float(line[column.metric]) for line in mine) / len(mine) * column.scale
        if cells.get(_heading(column), "").partition(" ")[0] != f"{mean:.1f}":
            return False
    return True


def _heading(column: Column) -> str:
    return f"{capital(column.label)} ({column.unit})"
