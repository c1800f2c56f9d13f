"""Which cells of a study are done, running, failed, stale or missing, from the store alone; what a sweep shows."""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TextIO

from lab.study.ablation import Ablation, Cell
from lab.study.forecast import Forecast
from lab.study.identity import changed_ingredients
from lab.study.leases import is_abandoned
from lab.study.store import RunRecord, read_ingredients, read_runs

State = Literal["done", "running", "failed", "killed", "stale", "missing"]


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """A cell, its state, the run that tells it, and for a stale one what changed since that run."""

    cell: Cell
    state: State
    run: RunRecord | None = None
    changed: tuple[str, ...] = ()

    @property
    def to_do(self) -> bool:
        """Whether a sweep has to run it (one that runs elsewhere is left alone)."""
        return self.state not in ("done", "running")


def plan(cells: Sequence[Cell], runs: Iterable[RunRecord] | None = None) -> list[PlannedCell]:
    """The state of each cell (with its key), in the given order.

    A cell is done where any run of its key finished, whichever ablation and row it was made for; stale where only runs
    of the same row and seed with another key did.
    """
    by_key: dict[str, list[RunRecord]] = {}
    by_place: dict[tuple[str, ...], RunRecord] = {}
    for run in read_runs() if runs is None else runs:
        if run.tags.get("kind") == "cell":
            by_key.setdefault(run.tags.get("key", ""), []).append(run)
            if run.status == "FINISHED":
                by_place[tuple(run.tags.get(name, "") for name in ("ablation", "row", "rung", "seed"))] = run
    return [
        _planned(cell, by_key.get(cell.key, []), by_place.get((cell.ablation, cell.row, cell.rung, str(cell.seed))))
        for cell in cells
    ]


def _planned(cell: Cell, own: Sequence[RunRecord], former: RunRecord | None) -> PlannedCell:
    """The state of a cell with these runs of its key, and a finished one of its place."""
    for run in own:
        if run.status == "FINISHED":
            return PlannedCell(cell=cell, state="done", run=run)
    for run in own:
        if run.status == "RUNNING" and not is_abandoned(run):
            return PlannedCell(cell=cell, state="running", run=run)
    if own:
        return PlannedCell(cell=cell, state="failed" if own[-1].status == "FAILED" else "killed", run=own[-1])
    if former:
        changed = tuple(changed_ingredients(read_ingredients(former), cell.ingredients))
        return PlannedCell(cell=cell, state="stale", run=former, changed=changed)
    return PlannedCell(cell=cell, state="missing")


def describe(planned: Sequence[PlannedCell]) -> str:
    """One line: `27 cells: 20 done, 3 stale, 4 missing`."""
    states = [entry.state for entry in planned]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    return f"{len(planned)} cell{'s' * (len(planned) != 1)}: {', '.join(counts)}"


def reason(entry: PlannedCell) -> str:
    """Why a cell stands where it does, for people; empty where there is nothing to say."""
    run = entry.run
    if entry.state == "stale":
        if not entry.changed and run is not None and read_ingredients(run):
            return f"its adoption was interrupted; `lab adopt {entry.cell.ablation}` ends it"
        return "changed: " + ("; ".join(entry.changed) or "unknown, its artifacts are not here")
    if run is None:
        return ""
    if entry.state == "done":
        return f"adopted {run.tags['adopted']}" if "adopted" in run.tags else ""
    if entry.state == "running":
        since = datetime.fromtimestamp(run.start).astimezone().isoformat(" ", "seconds")
        node = f", on node {run.tags['node']}" if "node" in run.tags else ""
        return f"since {since} on {run.tags.get('host', '?')}, process {run.tags.get('pid', '?')}{node}"
    return run.tags.get("error", "")


def record(entry: PlannedCell) -> dict[str, object]:
    """A cell's state for machines; times in seconds since 1970, what does not apply left out."""
    told: dict[str, object] = {name: getattr(entry.cell, name) for name in ("ablation", "rung", "row", "seed", "key")}
    told["state"] = entry.state
    if (run := entry.run) is not None:
        told |= {"run_id": run.run_id, "start": run.start}
        told |= {} if run.end is None else {"end": run.end}
        shown = {"running": ("host", "pid"), "failed": ("error",), "killed": ("error",)}.get(entry.state, ())
        told |= {name: run.tags.get(name, "") for name in shown}
        if entry.state == "done":
            told |= {"results": run.results, **{name: run.tags[name] for name in ("adopted",) if name in run.tags}}
    return told | ({"changed": list(entry.changed)} if entry.state == "stale" else {})


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
