"""How long cells take; in which order they start; what fits into a budget.

Finished cells tell. Of a study of which none was timed here, two trial cells do, of the dearest row with little work:
a cell is taken to take fixed + work x each, where the fixed part is loading and measuring, and `work` the parameter
that the ablation's `trial` names. Other rows scale by their declared cost. That is rough where the trial is short: an
untrained model may take longer to decode, and two cells at once may share cores differently from many. Trial cells are
tracked as `trial`, which plans, results and recorded times leave out.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from lab.errors import LabError
from lab.study import store
from lab.study.ablation import Ablation, Cell, Trial, notebook_path
from lab.study.identity import identify

TRIAL = "trial"
"""The kind of a trial cell's run."""


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
        whole = [(self.cell_seconds(row), 0.0) for row in waiting]
        rests = [(self.cell_seconds(row), elapsed) for row, elapsed in running]
        if any(seconds is None for seconds, _ in (*whole, *rests)):
            return None
        each = [max(0.0, (seconds or 0.0) - elapsed) for seconds, elapsed in (*rests, *whole)]
        return max([*each[: len(rests)], sum(each) / self._workers])


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

    def less(self, spent: float) -> "Budget":
        """What is left of it."""
        return replace(self, seconds=max(0.0, self.seconds - spent))

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
    if left <= budget.seconds:
        return budget
    took, given = (f"{each / 60:.0f}" if each >= 600 else f"{each / 60:.1f}" for each in (left, budget.seconds))
    unit = "GPU minutes" if budget.gpus else "minutes"
    above = f"the {len(todo)} cells would take about {took} {unit}, the budget is {given}"
    if budget.ask is None:
        raise OverBudget(f"{above}; raise it, choose fewer rows or seeds, or {rest}")
    if not budget.ask(above):
        raise OverBudget(f"{above}, and nothing was started")
    return None


class Meter:
    """Tells whether one more cell fits into what is left of a budget, from the moment it was made."""

    def __init__(self, budget: Budget | None, forecast: Forecast) -> None:
        self._budget, self._forecast = budget, forecast
        self._begun = time.monotonic()
        self._seconds = 0.0
        """Of the cells that ended."""
        self._running: list[str] = []

    def fits(self, row: str) -> bool:
        """Whether a cell of that row would end in time; one that nothing tells about may start while time is left.

        One that fits is taken to be started: its GPU seconds are set aside.
        """
        if self._budget is None:
            return True
        gpus, spent = self._budget.gpus, time.monotonic() - self._begun
        if gpus:
            spent = gpus * (self._seconds + sum(self._forecast.cell_seconds(other) or 0.0 for other in self._running))
        left = self._budget.seconds - spent
        if left <= 0 or (self._forecast.cell_seconds(row) or 0.0) * (gpus or 1.0) > left:
            return False
        self._running.append(row)
        return True

    def ended(self, row: str, seconds: float) -> None:
        """A cell of that row took so long (0 where it was left to another sweep), rather than what was set aside."""
        if row in self._running:
            self._running.remove(row)
            self._seconds += seconds


def trial_cells(ablation: Ablation, todo: Sequence[Cell], trial: Trial) -> tuple[list[Cell], Cell]:
    """The two trial cells, without identity, and the cell that they stand for: the first of the dearest row.

    None does more of the work than that cell itself; there is no trial cell where that leaves only one amount.
    """
    costs = {row.key: row.cost for row in ablation.rows}
    whole = max(todo, key=lambda cell: costs[cell.row])
    few, more = trial.values[0], min(trial.values[1], whole.parameters[trial.parameter])
    changes = {**whole.parameters, **trial.changes}
    values = (few, more) if few < more else ()
    return [replace(whole, key="", parameters={**changes, trial.parameter: value}) for value in values], whole


def extrapolate(values: tuple[int, int], seconds: tuple[float, float], work: float) -> tuple[float, float, float]:
    """The fixed part, that of each unit of work, and the seconds at `work`; neither part is below 0."""
    each = max(0.0, (seconds[1] - seconds[0]) / (values[1] - values[0]))
    fixed = max(0.0, seconds[0] - values[0] * each)
    return fixed, each, fixed + work * each


def try_out(
    ablation: Ablation,
    trial: Trial,
    todo: Sequence[Cell],
    prepared: Mapping[str, Any],
    run: Callable[[list[Cell]], tuple[dict[str, str], bool]],
    say: Callable[[str], None],
    budget: Budget,
) -> tuple[dict[str, list[float]], Budget]:
    """Run the trial, or take one that was run; returns the seconds of a cell by row, and what is left of the budget.

    No seconds where a cell does no more work than a trial's. `run` runs cells, and returns the reasons of those that
    failed and whether it was stopped.

    Raises:
        LabError: a trial cell failed.
        KeyboardInterrupt: it was stopped.
    """
    small, whole = trial_cells(ablation, todo, trial)
    if not small:
        return {}, budget
    pair, name, begun = identify(small, notebook_path(ablation), prepared), trial.parameter, time.monotonic()
    values = (pair[0].parameters[name], pair[1].parameters[name])
    if missing := [cell for cell in pair if cell.key not in _tried()]:
        say(f"no cell was timed here; a trial of {whole.row} at {name} = {values[0]} and {values[1]}")
        failed, stopped = run(missing)
        if stopped:
            raise KeyboardInterrupt
        if failed:
            raise LabError(f"the trial failed, so that there is no forecast: {next(iter(failed.values()))}")
    known = _tried()
    if lost := [cell for cell in pair if cell.key not in known]:
        raise LabError(f"{len(lost)} trial cells were left to another sweep; run it again when they are done")
    work = float(whole.parameters[name])
    fixed, each, seconds = extrapolate(values, (known[pair[0].key], known[pair[1].key]), work)
    say(
        f"forecast from the trial, and no more than that: {fixed:.1f} s + {work:g} {name} x {each:.3f} s = "
        f"{seconds:.0f} s for a cell of {whole.row}; other rows by their declared cost"
    )
    spent = time.monotonic() - begun
    if budget.gpus:
        spent = budget.gpus * sum(known[cell.key] for cell in missing)
    return {whole.row: [seconds]}, budget.less(spent)


def _tried() -> dict[str, float]:
    """Seconds of the trial cells that finished, by key."""
    finished = [run for run in store.read_runs() if run.tags.get("kind") == TRIAL and run.status == "FINISHED"]
    return {run.tags["key"]: run.seconds for run in finished if run.seconds is not None and run.seconds > 0}
