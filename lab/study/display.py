"""What a sweep shows while it runs."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from lab.study.ablation import Ablation
from lab.study.cells import Cell
from lab.study.forecast import Forecast
from lab.study.plan import PlannedCell, describe, reason


def clock(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Display:
    """Plain lines, one an event."""

    def __init__(self, ablation: Ablation, rung: str, *, file: TextIO | None = None) -> None:
        self.ablation, self.rung = ablation, rung
        self.file = file or sys.stdout
        self.forecast = Forecast(ablation, 1, {})
        self._waiting: list[Cell] = []
        self._running: dict[str, tuple[Cell, float]] = {}
        self._all = 0

    def say(self, line: str) -> None:
        """Print a line of its own."""
        print(line, file=self.file, flush=True)

    def begin(self, planned: Sequence[PlannedCell], workers: int, history: Mapping[str, Sequence[float]]) -> None:
        """The plan, before the first cell starts."""
        self.forecast = Forecast(self.ablation, max(1, workers), history)
        self.say(f"{self.ablation.name} ({self.rung}): {describe(planned)}")
        stale = [entry for entry in planned if entry.state == "stale"]
        for text in dict.fromkeys(reason(entry) for entry in stale):
            self.say(f"  stale, {text}")
        self._waiting, self._all = [entry.cell for entry in planned if entry.to_do], len(planned)

    def started(self, cell: Cell) -> None:
        """A cell runs now."""
        self._ended(cell)
        self._running[cell.title] = (cell, time.monotonic())

    def retrying(self, cell: Cell, error: str, seconds: float) -> None:
        """A cell failed for what can pass, and is tried again after a pause."""
        self.say(f"  {cell.title}: {error}; tried again in {seconds:.0f} s")

    def left_out(self, cell: Cell) -> None:
        """What is left of the budget is not enough for that cell."""
        self._ended(cell)
        self.say(f"  {cell.title}: not started, it does not fit into what is left of the budget")

    def elsewhere(self, cell: Cell) -> None:
        """Another sweep has that cell."""
        self._ended(cell)
        self.say(f"  {cell.title}: left to another sweep, which has it{self._progress()}")

    def finished(self, cell: Cell, status: str, error: str, results: Mapping[str, float], seconds: float) -> None:
        """A cell came to its end: FINISHED, FAILED or KILLED."""
        self._ended(cell)
        text = f"{status}: {error}"
        if status == "FINISHED":
            self.forecast.add(cell.row, seconds)
            text = f"done in {clock(seconds)}{self._score(results)}"
        self.say(f"  {cell.title}: {text}{self._progress()}")

    def _ended(self, cell: Cell) -> None:
        self._running.pop(cell.title, None)
        self._waiting = [other for other in self._waiting if other != cell]

    def _score(self, results: Mapping[str, float]) -> str:
        """`, CER 12.5%`: the number in the first column of the table."""
        column = self.ablation.columns[0] if self.ablation.columns else None
        if column is None or column.metric not in results:
            return ""
        unit = "%" if column.unit == "%" else f" {column.unit}"
        return f", {column.label} {results[column.metric] * column.scale:.3g}{unit}".rstrip()

    def _progress(self) -> str:
        """`  [5 of 27, about 12:30 left]`."""
        now = time.monotonic()
        running = [(cell.row, now - since) for cell, since in self._running.values()]
        left = self.forecast.left([cell.row for cell in self._waiting], running)
        ended = self._all - len(self._waiting) - len(running)
        return f"  [{ended} of {self._all}{f', about {clock(left)} left' if left else ''}]"
