"""How long cells take, from those that have finished; in which order they start; what fits into a budget."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from lab.errors import LabError
from lab.study.ablation import Ablation
from lab.study.cells import Cell


class OverBudget(LabError):
    """The forecast is above the budget, or there is none."""


class Forecast:
    """Time left, from how long finished cells of the same row took, else all rows by their cost."""

    def __init__(self, ablation: Ablation, workers: int, history: Mapping[str, Sequence[float]]) -> None:
        self._costs = {row.key: row.cost for row in ablation.rows}
        self._seconds = {row: list(values) for row, values in history.items()}
        self._workers = workers

    def add(self, row: str, seconds: float) -> None:
        """A cell of that row took so long."""
        self._seconds.setdefault(row, []).append(seconds)

    def cell_seconds(self, row: str) -> float | None:
        """How long a cell of that row takes; None before any cell has finished."""
        if own := self._seconds.get(row):
            return median(own)
        each = [value / self._costs.get(other, 1.0) for other, values in self._seconds.items() for value in values]
        return median(each) * self._costs[row] if each else None

    def rank(self, row: str) -> float:
        """For ordering: seconds of a cell of that row, or its declared cost where nothing was timed."""
        return self.cell_seconds(row) or self._costs.get(row, 1.0)

    def left(self, waiting: Sequence[str], running: Sequence[tuple[str, float]]) -> float | None:
        """Seconds until the end: rows of the waiting cells, and row and elapsed seconds of the running ones."""
        parts = [self.cell_seconds(row) for row in waiting]
        now = [(self.cell_seconds(row), elapsed) for row, elapsed in running]
        if any(part is None for part in parts) or any(part is None for part, _ in now):
            return None
        rests = [max(0.0, (part or 0.0) - elapsed) for part, elapsed in now]
        return max([*rests, (sum(part or 0.0 for part in parts) + sum(rests)) / self._workers])


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a sweep may take: seconds of this machine, or of GPUs where each cell has some of its own."""

    seconds: float
    fit: bool = False
    """Run what fits where the whole does not."""
    gpus: float = 0.0
    """Of each cell. Above 0 the budget is in GPU seconds: a cell's seconds times its GPUs, however many run at once."""
    ask: Callable[[str], bool] | None = None
    """Asks somebody who is there whether to go on without the budget; None where nobody is."""

    def forecast(self, rows: Sequence[str], forecast: Forecast) -> float | None:
        """What cells of these rows would take of it; None where nothing tells."""
        if not self.gpus:
            return forecast.left(rows, [])
        seconds = [forecast.cell_seconds(row) for row in rows]
        return None if any(each is None for each in seconds) else self.gpus * sum(each or 0.0 for each in seconds)


def in_order(todo: Sequence[Cell], forecast: Forecast, budget: Budget | None = None) -> list[Cell]:
    """The order in which cells start: the longest first, so that none is left for a lone worker at the end.

    Under a budget that does not hold them all, row by row, the cheapest rows first: a row with all of its seeds can
    stand in the table, three rows with one seed each cannot.
    """
    if budget is None or (budget.forecast([cell.row for cell in todo], forecast) or 0.0) <= budget.seconds:
        return sorted(todo, key=lambda cell: -forecast.rank(cell.row))
    by_row: dict[str, list[Cell]] = {}
    for cell in todo:
        by_row.setdefault(cell.row, []).append(cell)
    rows = sorted(by_row, key=lambda row: len(by_row[row]) * forecast.rank(row))
    return [cell for row in rows for cell in by_row[row]]


def check_budget(todo: Sequence[Cell], forecast: Forecast, budget: Budget) -> Budget | None:
    """Refuse a sweep whose forecast is above its budget, unless what fits was asked for.

    Returns the budget that holds: None where somebody was asked and goes on without it.

    Raises:
        OverBudget: the forecast is above the budget, or there is none because no cell was ever timed here.
    """
    if budget.fit or not todo:
        return budget
    left = budget.forecast([cell.row for cell in todo], forecast)
    rest = "add --fit to run what fits, whole rows first"
    if left is None:
        raise OverBudget(
            "no cell of this study has been timed on this machine, so that nothing tells what the sweep would take; "
            f"run one cell first, or {rest}"
        )
    if left > budget.seconds:
        unit = "GPU minutes" if budget.gpus else "minutes"
        above = (
            f"the {len(todo)} cells would take about {_minutes(left)} {unit}, the budget is {_minutes(budget.seconds)}"
        )
        if budget.ask is None:
            raise OverBudget(f"{above}; raise it, choose fewer rows or seeds, or {rest}")
        if not budget.ask(above):
            raise OverBudget(f"{above}, and nothing was started")
        return None
    return budget


def _minutes(seconds: float) -> str:
    """Whole minutes, a few of them with one decimal."""
    return f"{seconds / 60:.0f}" if seconds >= 600 else f"{seconds / 60:.1f}"


class Meter:
    """Tells whether one more cell fits into what is left of a budget, from the moment it was made."""

    def __init__(self, budget: Budget | None, forecast: Forecast) -> None:
        self._budget, self._forecast = budget, forecast
        self._begun = time.monotonic()
        self._gpu_seconds = 0.0
        self._running: dict[str, deque[float]] = {}

    def fits(self, row: str) -> bool:
        """Whether a cell of that row would end in time; one that nothing tells about may start while time is left.

        One that fits is taken to be started: its GPU seconds are set aside.
        """
        if self._budget is None:
            return True
        seconds = self._forecast.cell_seconds(row) or 0.0
        if not self._budget.gpus:
            left = self._budget.seconds - (time.monotonic() - self._begun)
            return left > 0 and seconds <= left
        left = self._budget.seconds - self._gpu_seconds
        if left <= 0 or seconds * self._budget.gpus > left:
            return False
        self._gpu_seconds += seconds * self._budget.gpus
        self._running.setdefault(row, deque()).append(seconds)
        return True

    def ended(self, row: str, seconds: float) -> None:
        """A cell of that row took so long (0 where it was left to another sweep), rather than what was set aside."""
        if self._budget is not None and (set_aside := self._running.get(row)):
            self._gpu_seconds += (seconds - set_aside.popleft()) * self._budget.gpus
