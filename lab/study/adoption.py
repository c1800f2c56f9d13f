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
from lab.study.ablation import Ablation
from lab.study.cells import Cell
from lab.study.display import Display
from lab.study.golden import Record, difference, kept_record
from lab.study.identity import changed_ingredients
from lab.study.plan import PlannedCell, plan
from lab.study.sweep import Prepare, Runner, load_prepare, prepare_cells

CODE = ("source.", "code.", "notebook")
"""How the names of those ingredients begin that a refactoring changes."""
ARTIFACT = "adopted.json"


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """What became of a stale cell: adopted, its golden run differs, or left as it is for another reason (`why`)."""

    cell: Cell
    outcome: Literal["adopted", "differs", "left"]
    why: str


def hindrances(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two cells' ingredients and is no refactoring, a short phrase each."""
    return [
        change
        for change in changed_ingredients(before, now)
        if not change.startswith(CODE)
        and not (
            change.startswith("parameter.") and ((name := change.partition(":")[0]) not in before or name not in now)
        )
    ]


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
    planned = plan(chosen)
    stale = [entry for entry in planned if entry.state == "stale"]
    kept: dict[tuple[str, int], Record] = {}
    left: list[Adoption] = []
    for entry in stale:
        record, why = _may_be_adopted(entry)
        if record is None:
            left.append(Adoption(cell=entry.cell, outcome="left", why=f"{why}; it stays stale"))
        else:
            kept[entry.cell.row, entry.cell.seed] = record
    eligible = [entry for entry in stale if (entry.cell.row, entry.cell.seed) in kept]
    made: dict[str, Record] = {}
    if eligible:
        arithmetics = {row: record["arithmetic"] for (row, _), record in kept.items()}
        runner = Runner(
            ablation=ablation,
            rung=rung,
            prepared=prepared,
            prepare=prepare or load_prepare(ablation.name),
            display=display or Display(ablation, rung),
        )
        made, stopped = runner.golden_records([entry.cell for entry in eligible], arithmetics)
        if stopped:
            raise KeyboardInterrupt
    judged = [_judged(entry, kept[entry.cell.row, entry.cell.seed], made.get(entry.cell.row)) for entry in eligible]
    adopted = [entry for entry, one in zip(eligible, judged, strict=True) if one.outcome == "adopted"]
    if adopted:
        recorder = tracking.Recorder()
        for entry in adopted:
            _give_identity(recorder, entry)
    # All that are done, not those of this call alone: the last one may have been killed before it came here.
    done = [(entry.cell, entry.run) for entry in plan(chosen) if entry.state == "done" and entry.run is not None]
    path = results.renew_lines(ablation, rung, [(cell, run) for cell, run in done if "adopted" in run.tags])
    places = {(one.cell.row, one.cell.seed): one for one in (*left, *judged)}
    return [places[entry.cell.row, entry.cell.seed] for entry in stale], path


def _may_be_adopted(entry: PlannedCell) -> tuple[Record | None, str]:
    """The golden record that was kept with a stale run; None where it cannot be adopted, and why."""
    assert entry.run is not None
    before = store.read_ingredients(entry.run)
    if not before:
        return None, f"the artifacts of its run {entry.run.run_id} are not on this machine"
    if hinder := hindrances(before, entry.cell.ingredients):
        return None, f"more than code has changed: {'; '.join(hinder)}"
    record = kept_record(entry.run)
    return record, "" if record else "no golden run was kept with it"


def _judged(entry: PlannedCell, kept: Record, made: Record | None) -> Adoption:
    """Hold the golden run of today against the one that was kept."""
    assert entry.run is not None
    outcome: Literal["differs", "left"] = "left"
    if made is None:
        why = "its golden run could not be made today (see above)"
    elif told := _otherwise(kept["arithmetic"], made["arithmetic"]):
        why = f"its golden run was made on another arithmetic: {told}"
    elif told := _otherwise(kept["changes"], made["changes"]):
        why = f"its golden run was another one: {told}"
    elif told := difference(kept, made):
        outcome, why = "differs", told
    else:
        changed = f"{len(entry.changed)} ingredient{'s' * (len(entry.changed) != 1)} changed"
        why = f"{entry.run.tags['key']} -> {entry.cell.key}, {changed}"
        return Adoption(cell=entry.cell, outcome="adopted", why=why)
    return Adoption(cell=entry.cell, outcome=outcome, why=f"{why}; it stays stale")


def _otherwise(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs, in words."""
    return "; ".join(changed_ingredients(before, now))


def _give_identity(recorder: tracking.Recorder, entry: PlannedCell) -> None:
    """Write the new identity and the record of it; the key comes last.

    A plan goes by the key alone, so that whoever is killed in between leaves the old identity, and the next adoption,
    which finds the record and the ingredients of the first, ends it.
    """
    assert entry.run is not None
    run, cell = entry.run, entry.cell
    past = _adoptions(run)
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


def _adoptions(run: store.RunRecord) -> list[dict[str, Any]]:
    """The adoptions that are kept with a run, the oldest first."""
    path = run.artifact(ARTIFACT)
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []
