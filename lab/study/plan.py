"""Which cells of a study are done, running, failed, stale or missing, from the store alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from lab.study.cells import Cell
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
