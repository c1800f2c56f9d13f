"""What a sweep shows while it runs: a live table of rows by seeds in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from lab.study.ablation import Ablation
from lab.study.cells import Cell
from lab.study.forecast import Forecast
from lab.study.plan import PlannedCell, describe, reason

if TYPE_CHECKING:
    from rich.table import Table


def clock(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Display:
    """Plain lines, one an event: for logs and pipes."""

    def __init__(self, ablation: Ablation, rung: str, *, file: TextIO | None = None) -> None:
        self.ablation, self.rung = ablation, rung
        self.file = file or sys.stdout
        self.forecast = Forecast(ablation, 1, {})
        self.states: dict[tuple[str, int], tuple[str, Any]] = {}

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
        for entry in planned:
            place = (entry.cell.row, entry.cell.seed)
            if entry.state == "done" and entry.run:
                self.states[place] = ("done", self.score(entry.run.results))
            else:
                self.states[place] = ("elsewhere", "") if entry.state == "running" else ("waiting", "")

    def score(self, results: Mapping[str, float]) -> str:
        """A cell's number in the first column of the table."""
        column = self.ablation.columns[0] if self.ablation.columns else None
        if column is None or column.metric not in results:
            return ""
        return f"{results[column.metric] * column.scale:.3g}{'%' if column.unit == '%' else ' ' + column.unit}".rstrip()

    def measured(self) -> str:
        """What `score` is a number of."""
        return self.ablation.columns[0].label if self.ablation.columns else ""

    def started(self, cell: Cell) -> None:
        """A cell runs now."""
        self.states[cell.row, cell.seed] = ("running", time.monotonic())

    def retrying(self, cell: Cell, error: str, seconds: float) -> None:
        """A cell failed for what can pass, and is tried again after a pause."""
        self.say(f"  {cell.title}: {error}; tried again in {seconds:.0f} s")

    def left_out(self, cell: Cell) -> None:
        """What is left of the budget is not enough for that cell."""
        self.states[cell.row, cell.seed] = ("over budget", "")
        self.say(f"  {cell.title}: not started, it does not fit into what is left of the budget")

    def elsewhere(self, cell: Cell) -> None:
        """Another sweep has that cell."""
        self.states[cell.row, cell.seed] = ("elsewhere", "")
        self.say(f"  {cell.title}: left to another sweep, which has it{self.progress()}")

    def finished(self, cell: Cell, status: str, error: str, results: Mapping[str, float], seconds: float) -> None:
        """A cell came to its end: FINISHED, FAILED or KILLED."""
        if status == "FINISHED":
            self.forecast.add(cell.row, seconds)
            self.states[cell.row, cell.seed] = ("done", self.score(results))
            score = self.score(results)
            text = f"done in {clock(seconds)}{f', {self.measured()} {score}' if score else ''}"
        else:
            self.states[cell.row, cell.seed] = ("failed" if status == "FAILED" else "killed", error)
            text = f"{status}: {error}"
        self.say(f"  {cell.title}: {text}{self.progress()}")

    def progress(self) -> str:
        """`  [5 of 27, about 12:30 left]`."""
        states = list(self.states.values())
        ended = sum(state in ("done", "failed", "killed", "elsewhere", "over budget") for state, _ in states)
        left = self.left()
        return f"  [{ended} of {len(states)}{f', about {clock(left)} left' if left else ''}]"

    def left(self) -> float | None:
        """Seconds until the end, as far as can be told."""
        now = time.monotonic()
        waiting = [row for (row, _), (state, _) in self.states.items() if state == "waiting"]
        running = [(row, now - since) for (row, _), (state, since) in self.states.items() if state == "running"]
        return self.forecast.left(waiting, running)

    def tick(self) -> None:
        """Several times a second while cells run."""

    def close(self) -> None:
        """The last cell has ended."""


class LiveDisplay(Display):
    """A table of rows by seeds, redrawn in place."""

    def __init__(self, ablation: Ablation, rung: str) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(ablation, rung)
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)

    def say(self, line: str) -> None:
        """Print above the table."""
        self._console.print(line, highlight=False, markup=False)

    def begin(self, planned: Sequence[PlannedCell], workers: int, history: Mapping[str, Sequence[float]]) -> None:
        """The plan, and the table where something will change in it."""
        super().begin(planned, workers, history)
        if any(entry.to_do for entry in planned):
            self._live.start()

    def finished(self, cell: Cell, status: str, error: str, results: Mapping[str, float], seconds: float) -> None:
        """Only failures need a line: the table shows the rest."""
        say, self.say = self.say, lambda line: None  # type: ignore[method-assign]
        super().finished(cell, status, error, results, seconds)
        self.say = say  # type: ignore[method-assign]
        if status != "FINISHED":
            self.say(f"  {cell.title}: {status}: {error}")

    def _table(self) -> "Table":
        from rich.table import Table

        seeds = list(dict.fromkeys(seed for _, seed in self.states))
        table = Table(self.measured(), *(f"seed {seed}" for seed in seeds), caption=self.progress().strip())
        styles = {"done": "green", "running": "bold", "failed": "red", "killed": "red"}
        for row in dict.fromkeys(row for row, _ in self.states):
            texts = []
            for seed in seeds:
                state, detail = self.states.get((row, seed), ("", ""))
                if state == "running":
                    detail = clock(time.monotonic() - detail)
                elif state in ("failed", "killed"):
                    detail = ""
                text = f"{state} {detail}".strip()
                texts.append(f"[{styles[state]}]{text}[/]" if state in styles else f"[dim]{text}[/]")
            table.add_row(self.ablation.row(row).label, *texts)
        return table

    def tick(self) -> None:
        """Redraw."""
        if self._live.is_started:
            self._live.update(self._table(), refresh=True)

    def close(self) -> None:
        """Leave the last state on the screen."""
        self.tick()
        self._live.stop()


def make_display(ablation: Ablation, rung: str) -> Display:
    """The live table in a terminal, plain lines elsewhere."""
    return LiveDisplay(ablation, rung) if sys.stdout.isatty() else Display(ablation, rung)
