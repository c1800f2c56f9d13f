"""Which cells of a study are done, running, failed, stale or missing, from the store alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from lab.study.cells import Cell
from lab.study.identity import changed_ingredients
from lab.study.leases import is_abandoned
from lab.study.store import PLAN_TAGS, RunRecord, read_ingredients, read_runs

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
    for run in read_runs(PLAN_TAGS) if runs is None else runs:
        if run.tags.get("kind") != "cell":
            continue
        by_key.setdefault(run.tags.get("key", ""), []).append(run)
        if run.status == "FINISHED":
            by_place[tuple(run.tags.get(name, "") for name in ("ablation", "row", "rung", "seed"))] = run
    planned = []
    for cell in cells:
        own = by_key.get(cell.key, [])
        finished = next((run for run in own if run.status == "FINISHED"), None)
        running = next((run for run in own if run.status == "RUNNING" and not is_abandoned(run)), None)
        former = by_place.get((cell.ablation, cell.row, cell.rung, str(cell.seed)))
        if finished:
            planned.append(PlannedCell(cell=cell, state="done", run=finished))
        elif running:
            planned.append(PlannedCell(cell=cell, state="running", run=running))
        elif own:
            planned.append(
                PlannedCell(cell=cell, state="failed" if own[-1].status == "FAILED" else "killed", run=own[-1])
            )
        elif former:
            changed = tuple(changed_ingredients(read_ingredients(former), cell.ingredients))
            planned.append(PlannedCell(cell=cell, state="stale", run=former, changed=changed))
        else:
            planned.append(PlannedCell(cell=cell, state="missing"))
    return planned


def describe(planned: Sequence[PlannedCell]) -> str:
    """One line: `27 cells: 20 done, 3 stale, 4 missing`."""
    states = [entry.state for entry in planned]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    return f"{len(planned)} cell{'s' * (len(planned) != 1)}: {', '.join(counts)}"


def reason(entry: PlannedCell) -> str:
    """Why a cell stands where it does, for people; empty where there is nothing to say."""
    if entry.state == "stale" and entry.run is not None and not entry.changed and read_ingredients(entry.run):
        return f"its adoption was interrupted; `lab adopt {entry.cell.ablation}` ends it"
    if entry.state == "stale":
        return "changed: " + ("; ".join(entry.changed) or "unknown, its artifacts are not here")
    if entry.run is not None and entry.state == "done" and "adopted" in entry.run.tags:
        return f"adopted {entry.run.tags['adopted']}"
    if entry.run is not None and entry.state in ("failed", "killed"):
        return entry.run.tags.get("error", "")
    if entry.run is not None and entry.state == "running":
        since = datetime.fromtimestamp(entry.run.start).astimezone().isoformat(" ", "seconds")
        node = f", on node {entry.run.tags['node']}" if "node" in entry.run.tags else ""
        return f"since {since} on {entry.run.tags.get('host', '?')}, process {entry.run.tags.get('pid', '?')}{node}"
    return ""


def record(entry: PlannedCell) -> dict[str, object]:
    """A cell's state for machines; times in seconds since 1970, what does not apply left out."""
    told: dict[str, object] = {
        "ablation": entry.cell.ablation,
        "rung": entry.cell.rung,
        "row": entry.cell.row,
        "seed": entry.cell.seed,
        "key": entry.cell.key,
        "state": entry.state,
    }
    if entry.run is not None:
        told |= {"run_id": entry.run.run_id, "start": entry.run.start}
        if entry.state == "running":
            told |= {name: entry.run.tags.get(name, "") for name in ("host", "pid")}
        if entry.run.end is not None:
            told["end"] = entry.run.end
        if entry.state == "done":
            told["results"] = entry.run.results
            told |= {name: entry.run.tags[name] for name in ("adopted",) if name in entry.run.tags}
        if entry.state in ("failed", "killed"):
            told["error"] = entry.run.tags.get("error", "")
    if entry.state == "stale":
        told["changed"] = list(entry.changed)
    return told
