"""`lab adopt`: after a refactoring, results are kept whose golden run comes out bit for bit as it did.

Code that changed makes every cell that reaches it stale, even where it only moved. A stale run is adopted, which means
that it gets today's identity, where two things hold: nothing but code, the notebook, or parameters that were added or
removed differs between its ingredients and today's; and its row's golden run, made today, equals the one that was kept
with it. All else stays stale, and nothing that was recorded is lost.
"""

import getpass
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from lab.study import results, store, tracking
from lab.study.ablation import Ablation, Cell
from lab.study.golden import Record, difference, kept_record
from lab.study.identity import changed_ingredients
from lab.study.plan import Display, PlannedCell, plan
from lab.study.sweep import Prepare, Runner, load_prepare, prepare_cells

ARTIFACT = "adopted.json"


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """What became of a stale cell: adopted, its golden run differs, or left as it is for another reason (`why`)."""

    cell: Cell
    outcome: Literal["adopted", "differs", "left"]
    why: str


def hindrances(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two cells' ingredients and is no refactoring, a short phrase each."""
    added_or_removed = {name for name in before.keys() ^ now.keys() if name.startswith("parameter.")}

    def counts(ingredients: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: value
            for name, value in ingredients.items()
            if not name.startswith(("code.", "notebook")) and name not in added_or_removed
        }

    return changed_ingredients(counts(before), counts(now))


def adopt(
    ablation: Ablation,
    *,
    rung: str = "cpu",
    rows: str | Sequence[str] = "all",
    seeds: Sequence[int] | None = None,
    prepare: Prepare | None = None,
    display: Display | None = None,
) -> tuple[list[Adoption], Path | None]:
    """Give today's identity to the stale runs whose golden run is unchanged, and write it into the results file.

    Returns:
        What became of each stale cell, and the results file where there is one.

    Raises:
        LabError: as `prepare_cells`.
        KeyboardInterrupt: it was stopped; no run was changed.
    """
    chosen, prepared = prepare_cells(ablation, rung, rows, seeds, prepare)
    stale = [entry for entry in plan(chosen) if entry.state == "stale"]
    eligible = [entry for entry in stale if not _hindrance(entry)]
    made: dict[str, Record] = {}
    if eligible:
        runner = Runner(
            ablation=ablation,
            rung=rung,
            prepared=prepared,
            prepare=prepare or load_prepare(ablation.name),
            display=display or Display(ablation, rung),
        )
        arithmetics = {entry.cell.row: _kept(entry)["arithmetic"] for entry in eligible}
        made, stopped = runner.golden_records([entry.cell for entry in eligible], arithmetics)
        if stopped:
            raise KeyboardInterrupt
    judged = [_judged(entry, made.get(entry.cell.row)) for entry in stale]
    adopted = [entry for entry, one in zip(stale, judged, strict=True) if one.outcome == "adopted"]
    if adopted:
        recorder = tracking.Recorder()
        for entry in adopted:
            _give_identity(recorder, entry)
    # All that are done, not those of this call alone: the last one may have been killed before it came here.
    done = [entry for entry in plan(chosen) if entry.state == "done" and "adopted" in _run(entry).tags]
    return judged, results.update_results(ablation, rung, prepared, [entry.cell for entry in done])


def _run(entry: PlannedCell) -> store.RunRecord:
    assert entry.run is not None
    return entry.run


def _kept(entry: PlannedCell) -> Record:
    return kept_record(_run(entry)) or {}


def _hindrance(entry: PlannedCell) -> str:
    """Why a stale run cannot be adopted whatever its golden run says; empty where it can."""
    before = store.read_ingredients(_run(entry))
    if not before:
        return f"the artifacts of its run {_run(entry).run_id} are not on this machine"
    if hinder := hindrances(before, entry.cell.ingredients):
        return f"more than code has changed: {'; '.join(hinder)}"
    return "" if _kept(entry) else "no golden run was kept with it"


def _judged(entry: PlannedCell, made: Record | None) -> Adoption:
    """Hold the golden run of today against the one that was kept."""
    why, differs = _hindrance(entry), ""
    if not why and made is None:
        why = "its golden run could not be made today (see above)"
    elif not why and made is not None:
        kept = _kept(entry)
        if told := changed_ingredients(kept["arithmetic"], made["arithmetic"]):
            why = f"its golden run was made on another arithmetic: {'; '.join(told)}"
        elif told := changed_ingredients(kept["changes"], made["changes"]):
            why = f"its golden run was another one: {'; '.join(told)}"
        else:
            differs = difference(kept, made)
    if why or differs:
        return Adoption(
            cell=entry.cell, outcome="differs" if differs else "left", why=f"{why or differs}; it stays stale"
        )
    changed = f"{len(entry.changed)} ingredient{'s' * (len(entry.changed) != 1)} changed"
    why = f"{_run(entry).tags['key']} -> {entry.cell.key}, {changed}"
    return Adoption(cell=entry.cell, outcome="adopted", why=why)


def _give_identity(recorder: tracking.Recorder, entry: PlannedCell) -> None:
    """Write the new identity and the record of it; the key comes last.

    A plan goes by the key alone, so that whoever is killed in between leaves the old identity, and the next adoption,
    which finds the record and the ingredients of the first, ends it.
    """
    run, cell = _run(entry), entry.cell
    path = run.artifact(ARTIFACT)
    past = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []  # the oldest first
    if not past or past[-1]["to"] != cell.key:
        past.append(
            {
                "from": run.tags["key"],
                "to": cell.key,
                "by": f"{getpass.getuser()}@{socket.gethostname()}",
                "at": datetime.now().astimezone().isoformat(timespec="seconds"),
                "changed": list(entry.changed),
                **{name: value for name, value in tracking.provenance().items() if name.startswith("git_")},
            }
        )
    recorder.keep(run.run_id, ARTIFACT, json.dumps(past, indent=1))
    recorder.keep(run.run_id, "ingredients.json", json.dumps(dict(cell.ingredients), indent=1, sort_keys=True))
    last = past[-1]
    recorder.tag(run.run_id, {"key": cell.key, "adopted": f"{last['at']} by {last['by']} from {last['from']}"})
