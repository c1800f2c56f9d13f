"""A table of the paper as a page: its cells in its own layout, beneath them what was measured here, and what to know.

All formats show the same page; nothing is decided in them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lab.paper.ledger.cells import DASH, Cell, Table, source
from lab.paper.ledger.evaluated import filling
from lab.paper.ledger.ours import Ours, tracked
from lab.paper.ledger.verdicts import PAPER, Judged, judge, judge_one
from lab.study.ablation import load_ablation

MEASURED = ("Cell", "Reported", "Ours (95% interval)", "Study", "Rung", "Run", "Verdict")
_MEANING = {
    "owner": "* officially reported by the model's owners",
    "leaderboard": "◇ taken from a leaderboard",
    "authors": "unmarked: run by the paper's authors",
    "derived": "† derived",
}
_RUN_LETTERS = 8


@dataclass(frozen=True, kw_only=True)
class Page:
    """What is shown of one table."""

    table: Table
    judged: tuple[Judged, ...]

    @property
    def title(self) -> str:
        """Label and title."""
        return f"{self.table.label}. {self.table.title}"

    @property
    def grid(self) -> list[list[str]]:
        """The paper's layout, its head first."""
        table = self.table
        lines = [[table.corner, *table.settings, *table.columns]]
        for row in table.rows:
            settings = [words[row] for words in table.settings.values()]
            lines.append([row, *settings, *(place(table.at(row, column)) for column in table.columns)])
        return lines

    @property
    def measured(self) -> list[list[str]]:
        """A line for every cell and rung that a tracked run stands for, without a head; none where there is no run."""
        lines = []
        for judged in (judged for judged in self.judged if judged.ours):
            cell = judged.cell
            name = cell.row if self._measured_column else f"{cell.row}, {cell.column}"
            lines += [[name, cell.marked, *_ours(cell, ours)] for ours in judged.ours]
        return lines

    @property
    def measured_title(self) -> str:
        """What stands over these lines: the column as well, where they are all of one."""
        return f"Measured here: {self._measured_column}" if self._measured_column else "Measured here"

    @property
    def _measured_column(self) -> str:
        columns = {judged.cell.column for judged in self.judged if judged.ours}
        return columns.pop() if len(columns) == 1 else ""

    @property
    def summary(self) -> str:
        """How many of its cells have which verdict."""
        return summary(self.judged)

    @property
    def notes(self) -> list[str]:
        """Who measured, how far it is to be trusted, what the paper contradicts itself in, what our runs are of."""
        cells = self.table.cells
        marks = [meaning for by, meaning in _MEANING.items() if any(cell.measured_by == by for cell in cells)]
        notes = [f"{'; '.join(marks)}."] if marks and marks != [_MEANING["authors"]] else []
        if trust := dict.fromkeys(source(cell) for cell in cells if cell.trust):
            notes.append(f"Trust: {'; '.join(trust)}.")
        notes += self.table.notes
        notes += [f"Inconsistent in the paper: {told}" for told in self.table.inconsistencies]
        every = [ours for judged in self.judged for ours in judged.ours]
        notes += dict.fromkeys(_study(ours) for ours in every)
        notes += dict.fromkeys(_claim(ours) for ours in every if ours.claim)
        return notes


def pages(chosen: Sequence[Table]) -> list[Page]:
    """These tables with what tracked runs say of each of their cells.

    Raises:
        LabError: as `lab.paper.ledger.ours.tracked` and `lab.paper.ledger.evaluated.filling`.
    """
    keys = [cell.key for table in chosen for cell in table.cells]
    found, evaluated = tracked(keys), filling(keys)

    def judged(cell: Cell) -> Judged:
        return judge(cell, (*found.get(cell.key, ()), *evaluated.get(cell.key, ())))

    return [Page(table=table, judged=tuple(judged(cell) for cell in table.cells)) for table in chosen]


def summary(judged: Sequence[Judged]) -> str:
    """How many cells have which verdict, and what stands in brackets where a run is of another scale."""
    counts = Counter(one.verdict for one in judged if one.verdict)
    said = [f"{count} {verdict}" for verdict, count in counts.items()]
    if dashes := sum(one.verdict is None for one in judged):
        said.append(f"{dashes} with a dash in the paper")
    claims = any(ours.claim and ours.rung != PAPER for one in judged for ours in one.ours)
    brackets = " In brackets: what the small rung's runs say of the claim, at their scale." if claims else ""
    return f"{len(judged)} cells: {', '.join(said)}.{brackets}"


def place(cells: Sequence[Cell]) -> str:
    """What stands at one place: metrics apart by a slash, those who measured by a bar, dashes alone as one."""
    if all(cell.printed == DASH for cell in cells):
        return DASH
    metrics = dict.fromkeys(cell.metric for cell in cells)
    return " / ".join(" | ".join(cell.marked for cell in cells if cell.metric == metric) for metric in metrics)


def _ours(cell: Cell, ours: Ours) -> list[str]:
    interval = "" if ours.low is None or ours.high is None else f" ({ours.low:.1f} to {ours.high:.1f})"
    more = f" +{len(ours.run_ids) - 1}" if len(ours.run_ids) > 1 else ""
    verdict: str = judge_one(cell, ours)
    if ours.claim and verdict == "other scale":
        verdict += f" ({ours.claim.outcome or 'not judged'})"
    run = f"{ours.run_ids[0][:_RUN_LETTERS]}{more}"
    return [f"{ours.value:.1f}{interval}", ours.ablation, ours.rung, run, verdict]


def _study(ours: Ours) -> str:
    if ours.told:
        return ours.told
    rung = load_ablation(ours.ablation).rung(ours.rung)
    return f"Ours, {ours.ablation} at rung {ours.rung}: {ours.measure}, means over seeds; {rung.description}."


def _claim(ours: Ours) -> str:
    assert ours.claim is not None
    return f"{ours.claim.title} ({ours.ablation} at rung {ours.rung}): {ours.claim.sentence}"
