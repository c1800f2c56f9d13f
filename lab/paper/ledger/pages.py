"""A table of the paper as a page: its cells in its own layout, what was measured here, what to know, and verdicts.

All formats show the same page; nothing is decided in them. What the tracked runs say of a cell is one of five words.

`not attempted`: no tracked run stands for the cell.

`other scale`: runs stand for it, but at no rung `paper`. A small rung's number is never the paper's, however near it
is. What its own claim says (holds, does not hold, undecided) is given beside it, and stays the small rung's.

At rung `paper`, and there alone:

`reproduced`: the value itself, by an evaluation of a checkpoint (`lab evaluate --as`), which alone is measured on the
test set of the cell: it is within `TOLERANCE` of the value, or half of its last printed digit where that is more.

`direction only`: not the value, which is of another test set; but the claim that the row takes part in (the first of
the ablation's `contrasts` that names it) holds at this rung.

`not reproduced`: neither. The claim does not hold, is undecided, or there is none.

A dash in the paper's table is nothing to be reproduced and has no verdict.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from lab.paper.ledger.cells import DASH, PaperCell, Table, source
from lab.paper.ledger.ours import Ours, filling, tracked
from lab.study.ablation import load_ablation

Reproduction = Literal["reproduced", "direction only", "not reproduced", "other scale", "not attempted"]
_RANK = get_args(Reproduction)

PAPER = "paper"
TOLERANCE = 0.01
"""Of the reported value."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A cell with what was measured for it, by rung."""

    cell: PaperCell
    ours: Sequence[Ours]

    @property
    def verdict(self) -> Reproduction | None:
        """Of all that stands for it the best at rung `paper`, which no small one hides; None for a dash."""
        verdicts: list[Reproduction] = ["not attempted", *(judge_one(self.cell, one) for one in self.ours)]
        return None if self.cell.printed == DASH else min(verdicts, key=_RANK.index)


def judge_one(cell: PaperCell, ours: Ours) -> Reproduction:
    """The verdict that one row at one rung gives."""
    if ours.rung != PAPER:
        return "other scale"
    if ours.told and cell.value is not None:
        last_digit = 10.0 ** int(cell.value.as_tuple().exponent)
        if abs(ours.value - float(cell.value)) <= max(TOLERANCE * float(cell.value), last_digit / 2):
            return "reproduced"
    return "direction only" if ours.claim and ours.claim.outcome == "holds" else "not reproduced"


MEASURED = ["Cell", "Reported", "Ours (95% interval)", "Study", "Rung", "Run", "Verdict"]
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
        return [_ours(judged.cell, ours) for judged in self.judged for ours in judged.ours]

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
        notes += dict.fromkeys(map(_study, every))
        claims = ((ours.claim, f"{ours.ablation} at rung {ours.rung}") for ours in every)
        notes += dict.fromkeys(f"{claim.title} ({where}): {claim.sentence}" for claim, where in claims if claim)
        return notes


def pages(chosen: Sequence[Table]) -> list[Page]:
    """These tables with what tracked runs say of each of their cells."""
    keys = [cell.key for table in chosen for cell in table.cells]
    found, evaluated = tracked(keys), filling(keys)

    def judged(cell: PaperCell) -> Judged:
        return Judged(cell=cell, ours=[*found.get(cell.key, ()), *evaluated.get(cell.key, ())])

    return [Page(table=table, judged=tuple(map(judged, table.cells))) for table in chosen]


def summary(judged: Sequence[Judged]) -> str:
    """How many cells have which verdict, and what stands in brackets where a run is of another scale."""
    counts = Counter(one.verdict for one in judged)
    dashes = counts.pop(None, 0)
    said = [f"{count} {verdict}" for verdict, count in counts.items()]
    said += [f"{dashes} with a dash in the paper"] if dashes else []
    claims = any(ours.claim and ours.rung != PAPER for one in judged for ours in one.ours)
    brackets = " In brackets: what the small rung's runs say of the claim, at their scale." if claims else ""
    return f"{len(judged)} cells: {', '.join(said)}.{brackets}"


def place(cells: Sequence[PaperCell]) -> str:
    """What stands at one place: metrics apart by a slash, those who measured by a bar, dashes alone as one."""
    if all(cell.printed == DASH for cell in cells):
        return DASH
    metrics = dict.fromkeys(cell.metric for cell in cells)
    return " / ".join(" | ".join(cell.marked for cell in cells if cell.metric == metric) for metric in metrics)


def _ours(cell: PaperCell, ours: Ours) -> list[str]:
    interval = "" if ours.low is None or ours.high is None else f" ({ours.low:.1f} to {ours.high:.1f})"
    more = f" +{len(ours.run_ids) - 1}" if len(ours.run_ids) > 1 else ""
    verdict: str = judge_one(cell, ours)
    if ours.claim and verdict == "other scale":
        verdict += f" ({ours.claim.outcome or 'not judged'})"
    run = f"{ours.run_ids[0][:_RUN_LETTERS]}{more}"
    place = f"{cell.row}, {cell.column}"
    return [place, cell.marked, f"{ours.value:.1f}{interval}", ours.ablation, ours.rung, run, verdict]


def _study(ours: Ours) -> str:
    if ours.told:
        return ours.told
    rung = load_ablation(ours.ablation).rung(ours.rung)
    return f"Ours, {ours.ablation} at rung {ours.rung}: {ours.measure}, means over seeds; {rung.description}."
