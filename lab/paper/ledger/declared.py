"""How an ablation declares the paper's numbers: by naming their rows in the ledger, so that each has one home."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from lab.errors import LabError
from lab.paper.ledger.cells import Cell, source, table
from lab.study.ablation import Reported

SCALES = {"%": Decimal(100)}
"""What a printed unit is of ours: rates are fractions in every file."""


def reported(
    name: str,
    rows: Mapping[str, str],
    *,
    columns: str | Sequence[str],
    metric: str = "test_accuracy",
    note: str = "",
    same_test: bool = False,
) -> tuple[Reported, ...]:
    """What the ledger has in `columns` of table `name`, for an ablation's rows.

    Args:
        rows: the key of a row of the ablation -> the row of the table that it stands for.
        columns: one or more; where there are several, each value's note is its column.
        metric: of the ablation, in which a value is given as a fraction where it is printed in percent.
        note: what the values are of; left out where a value is not found.
        same_test: at rung `paper` the metric is measured on the very test set of the cells; else no value of theirs
            can be reproduced, only its direction.

    Raises:
        LabError: the table, a row or a column is not in the ledger.
    """
    asked = [columns] if isinstance(columns, str) else list(columns)
    found = []
    for key, row in rows.items():
        for column in asked:
            cell = table(name).cell(row, column)
            told = note if len(asked) == 1 else column
            found.append(
                Reported(
                    row=key,
                    metric=metric,
                    value=None if cell.value is None else float(cell.value / scale_of(cell)),
                    source=source(cell),
                    note=told if cell.value is not None else "",
                    cell=cell.key,
                    same_test=same_test,
                )
            )
    return tuple(found)


def printed(name: str, row: str, column: str) -> str:
    """A value as it is printed, for a note.

    Raises:
        LabError: as `reported`; or it is not found, which a note should say in words of its own.
    """
    cell = table(name).cell(row, column)
    if cell.value is None:
        raise LabError(f"{cell.key} is {cell.printed!r}; a note that wants its number has to say so itself")
    return cell.printed


def scale_of(cell: Cell) -> Decimal:
    """What one of our units is in the cell's: 100 where it is printed in percent."""
    return SCALES.get(cell.unit, Decimal(1))
