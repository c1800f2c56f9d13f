"""What the tracked runs say of a cell of the paper's tables, in five words that are defined here.

`not attempted`: no tracked run stands for the cell.

`other scale`: runs stand for it, but at no rung `paper`. A small rung's number is never the paper's, however near it
is: its model, data and test set are others. What its own claim says (holds, does not hold, undecided) is given beside
it, and stays the small rung's.

At rung `paper`, and there alone:

`reproduced`: the value itself. The runs are measured on the very test set of the cell (`same_test` where the ablation
declares it), and its printed value lies either

- within the 95% interval, which is over seeds too, and no wider to either side than `WIDEST` of the value: an interval
  that is wide enough covers everything and confirms nothing; or
- within `TOLERANCE` of the value, or half of its last printed digit where that is more, of the mean over seeds.

`direction only`: not the value, or none was found, or another test set; but the claim that the row takes part in (the
first of the ablation's `contrasts` that names it) holds at this rung.

`not reproduced`: neither. The claim does not hold, is undecided, or there is none.

An evaluation of a checkpoint (`lab evaluate --as`) counts as a run at rung `paper`. Nothing is trained for it, so no
seed is drawn: it reproduces a value by `TOLERANCE` alone, and has no claim.

A dash in the paper's table is nothing to be reproduced and has no verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lab.paper.ledger.cells import DASH, Cell
from lab.paper.ledger.ours import Ours

Verdict = Literal["reproduced", "direction only", "not reproduced", "other scale", "not attempted"]

PAPER = "paper"
WIDEST = 0.1
"""Of the reported value: half an interval that is wider than this confirms nothing."""
TOLERANCE = 0.01
"""Of the reported value."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A cell with what was measured for it, by rung."""

    cell: Cell
    ours: tuple[Ours, ...]
    verdict: Verdict | None
    """Of the cell as a whole: of the rung `paper` where it was run; None for a dash."""


def judge(cell: Cell, ours: Sequence[Ours]) -> Judged:
    """The verdict on one cell."""
    verdict: Verdict | None
    if cell.printed == DASH:
        verdict = None
    elif not ours:
        verdict = "not attempted"
    else:
        verdict = min((judge_one(cell, one) for one in ours), key=_RANK.index)
    return Judged(cell=cell, ours=tuple(ours), verdict=verdict)


def judge_one(cell: Cell, ours: Ours) -> Verdict:
    """The verdict that one row at one rung gives."""
    if ours.rung != PAPER:
        return "other scale"
    if ours.same_test and (_covers(cell, ours) or _is_near(cell, ours)):
        return "reproduced"
    if ours.claim and ours.claim.outcome == "holds":
        return "direction only"
    return "not reproduced"


# Of several ablations that stand for one cell, the best at rung `paper` counts; a small rung never hides it.
_RANK: tuple[Verdict, ...] = ("reproduced", "direction only", "not reproduced", "other scale", "not attempted")


def _covers(cell: Cell, ours: Ours) -> bool:
    if cell.value is None or ours.low is None or ours.high is None or not ours.over_seeds:
        return False
    value = float(cell.value)
    reach = max(ours.high - ours.value, ours.value - ours.low)
    return ours.low <= value <= ours.high and reach <= WIDEST * value


def _is_near(cell: Cell, ours: Ours) -> bool:
    if cell.value is None:
        return False
    exponent = cell.value.as_tuple().exponent
    last_digit = 10.0**exponent if isinstance(exponent, int) else 0.0
    return abs(ours.value - float(cell.value)) <= max(TOLERANCE * float(cell.value), last_digit / 2)
