"""A forecast for a study of which no cell was timed here: two trial cells, long enough to tell its two parts apart.

What a cell takes is taken as fixed + work x each: the fixed part is loading and measuring, which hardly depend on how
long was trained, and `work` the parameter that the ablation's `trial` names. Two cells of the dearest row with little
work give both parts; the other rows scale by their declared cost. That is a forecast, rough where the trial is short:
an untrained model may take longer to decode, and two cells at once may share cores differently from many.
Trial cells run in kernels like any cell and are tracked as `trial`, which plans, results and recorded times leave out.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lab.errors import LabError
from lab.study import store
from lab.study.ablation import Ablation, Trial
from lab.study.cells import Cell, notebook_path
from lab.study.display import Display
from lab.study.forecast import Budget, Forecast, Meter
from lab.study.identity import identify

KIND = "trial"


class Quiet(Display):
    """Says nothing of a cell that is run for something else than its results."""

    def started(self, cell: Cell) -> None:
        """Nothing."""

    def finished(self, cell: Cell, status: str, error: str, results: Mapping[str, float], seconds: float) -> None:
        """Nothing."""


def trial_cells(ablation: Ablation, todo: Sequence[Cell], trial: Trial) -> tuple[list[Cell], Cell]:
    """The two trial cells, without identity, and the cell that they stand for: the first of the dearest row.

    None does more of the work than that cell itself; there is no trial cell where that leaves only one amount.
    """
    costs = {row.key: row.cost for row in ablation.rows}
    whole = max(todo, key=lambda cell: costs[cell.row])
    few, more = trial.values
    values = (few, min(more, whole.parameters[trial.parameter]))
    return [
        replace(whole, key="", parameters={**whole.parameters, **trial.changes, trial.parameter: value})
        for value in values
        if few < values[1]
    ], whole


def extrapolate(values: tuple[int, int], seconds: tuple[float, float], work: float) -> tuple[float, float, float]:
    """The fixed part, that of each unit of work, and the seconds at `work`; neither part is below 0."""
    each = max(0.0, (seconds[1] - seconds[0]) / (values[1] - values[0]))
    fixed = max(0.0, seconds[0] - values[0] * each)
    return fixed, each, fixed + work * each


def try_out(
    ablation: Ablation,
    todo: Sequence[Cell],
    prepared: Mapping[str, Any],
    run: Callable[..., tuple[dict[str, str], bool]],
    display: Display,
    budget: Budget,
) -> tuple[dict[str, list[float]], Budget]:
    """Run the trial, or take one that was run; returns the seconds of a cell by row, and what is left of the budget.

    No seconds where a cell does no more work than a trial's.

    `run` runs cells (`todo`, `meter`, `display`), and returns the reasons of those that failed and whether it was
    stopped.

    Raises:
        LabError: the ablation has no trial, or a trial cell failed.
        KeyboardInterrupt: it was stopped.
    """
    trial = ablation.trial
    if trial is None:
        raise LabError(f"ablation {ablation.name!r} declares no trial")
    small, whole = trial_cells(ablation, todo, trial)
    if not small:
        return {}, budget
    pair = identify(small, notebook_path(ablation), prepared)
    values = (pair[0].parameters[trial.parameter], pair[1].parameters[trial.parameter])
    begun = time.monotonic()
    if missing := [cell for cell in pair if cell.key not in _tried()]:
        display.say(
            f"no cell was timed here; a trial of {whole.row} at {trial.parameter} = {values[0]} and {values[1]}"
        )
        forecast = Forecast(ablation, 1, {})
        failed, stopped = run(
            todo=missing, meter=Meter(None, forecast), display=Quiet(ablation, whole.rung, file=display.file)
        )
        if stopped:
            raise KeyboardInterrupt
        if failed:
            raise LabError(f"the trial failed, so that there is no forecast: {next(iter(failed.values()))}")
    known = _tried()
    if lost := [cell for cell in pair if cell.key not in known]:
        raise LabError(f"{len(lost)} trial cells were left to another sweep; run it again when they are done")
    first, second = (known[cell.key] for cell in pair)
    work = float(whole.parameters[trial.parameter])
    fixed, each, seconds = extrapolate(values, (first, second), work)
    display.say(
        f"forecast from the trial, and no more than that: {fixed:.1f} s + {work:g} {trial.parameter} x {each:.3f} s = "
        f"{seconds:.0f} s for a cell of {whole.row}; other rows by their declared cost"
    )
    spent = time.monotonic() - begun
    if budget.gpus:
        spent = budget.gpus * sum(known[cell.key] for cell in missing)
    return {whole.row: [seconds]}, replace(budget, seconds=max(0.0, budget.seconds - spent))


def _tried() -> dict[str, float]:
    """Seconds of the trial cells that finished, by key."""
    return {
        run.tags["key"]: run.seconds
        for run in store.read_runs()
        if run.tags.get("kind") == KIND and run.status == "FINISHED" and run.seconds is not None and run.seconds > 0
    }
