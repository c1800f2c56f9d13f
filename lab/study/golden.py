"""A golden run: the notebook of a cell, run short and seeded, so that two versions of the code can be held together.

A refactoring changes code and no arithmetic. Whether that is so, a golden run tells in seconds: its losses and results
come out bit for bit as before, or they do not. Training losses alone would not see a change in decoding or scoring.
Floating-point sums depend on the processor, the number of threads and the libraries, so each record says on which
arithmetic it was made, and only records of the same arithmetic have to be equal.

Golden runs are tracked like cells, as `golden`, which plans, results and recorded times leave out. A row has one, at
the ablation's first seed: it is made before the row's first cell and kept with each of its cells as `golden.json`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from lab.study import store
from lab.study.ablation import Ablation, Cell
from lab.study.identity import package_versions, processor
from lab.study.limits import visible_gpus

Record = dict[str, Any]
"""`arithmetic`, `changes` (the `golden` of the ablation), `losses` of the first and the last steps, by step, and
`results`; JSON keeps every bit of them."""

NONE: Mapping[str, Record] = MappingProxyType({})
KIND = "golden"
ARTIFACT = "golden.json"
LOSS = "loss"
"""The curve that every notebook of a study tells step by step."""
KEPT_STEPS = 16
"""Steps whose losses are kept at each end."""
MEASURED_ANEW = ("_seconds", "_bytes")
"""Units of results that no two runs have in common."""


def golden_cells(ablation: Ablation, cells: Sequence[Cell]) -> list[Cell]:
    """The golden run of each row among the cells, at the ablation's first seed and without identity.

    None where the ablation declares no `golden`.
    """
    rows = {cell.row: cell for cell in cells} if ablation.golden else {}
    seed = ablation.seeds[0]
    return [
        replace(cell, seed=seed, key="", parameters={**cell.parameters, **ablation.golden, "seed": seed})
        for cell in rows.values()
    ]


def golden_record(
    losses: Sequence[tuple[int, float]],
    results: Mapping[str, float],
    *,
    arithmetic: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> Record:
    """What is kept of a golden run."""
    ordered = sorted(losses)
    ends = ordered if len(ordered) <= 2 * KEPT_STEPS else ordered[:KEPT_STEPS] + ordered[-KEPT_STEPS:]
    return {
        "arithmetic": dict(arithmetic),
        "changes": dict(changes),
        "losses": {str(step): loss for step, loss in ends},
        "results": {name: value for name, value in results.items() if not name.endswith(MEASURED_ANEW)},
    }


def arithmetic() -> dict[str, Any]:
    """What decides how sums come out in this process and its kernels, beside the code: equal where they come out alike.

    Device and precision of a cell are its own parameters, and what `auto` comes to depends on the processor.
    """
    return {
        "processor": processor(),
        "gpus": list(visible_gpus()),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "packages": package_versions(),
    }


def difference(kept: Record, made: Record) -> str:
    """The first step or result that differs, with both values, as the rest of a sentence; empty where none does."""
    for part, what in (("losses", "the loss of step {}"), ("results", "{}")):
        before, now = kept[part], made[part]
        for name in dict.fromkeys([*before, *now]):
            old, new = before.get(name), now.get(name)
            if str(old) != str(new):  # which tells every bit, and a loss that is no number (NaN) from all but itself
                return f"{what.format(name)} was {old} and is {new}"
    return ""


def made_records(cells: Sequence[Cell], changes: Mapping[str, Any]) -> dict[str, list[Record]]:
    """The records of the golden runs that finished, by row, the newest last; `cells` have their keys."""
    keys = {cell.key for cell in cells}
    made: dict[str, list[Record]] = {}
    for run in store.tagged_runs("kind", KIND):
        if run.status == "FINISHED" and run.tags.get("key") in keys:
            losses, told = store.read_curve(run.run_id, LOSS), json.loads(run.tags["arithmetic"])
            record = golden_record(losses, run.results, arithmetic=told, changes=changes)
            made.setdefault(run.tags["key"], []).append(record)
    return {cell.row: made[cell.key] for cell in cells if cell.key in made}  # two rows may be one cell


def kept_record(run: store.RunRecord) -> Record | None:
    """The golden run that is kept with a cell's run; None where there is none that says anything, or it is not here."""
    with suppress(FileNotFoundError, ValueError):
        found: Any = json.loads(run.artifact(ARTIFACT).read_text(encoding="utf-8"))
        if isinstance(found, dict) and found.get("losses"):
            return found
    return None
