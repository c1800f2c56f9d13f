"""A golden run: the notebook of a cell, run short and seeded, so that two versions of the code can be held together.

A refactoring changes code and no arithmetic. Whether that is so, a golden run tells in seconds: its losses and results
come out bit for bit as before, or they do not. Training losses alone would not see a change in decoding or scoring.
Floating-point sums depend on the processor, the number of threads and the libraries, so each record says on which
arithmetic it was made, and only records of the same arithmetic have to be equal.

Golden runs are tracked like cells, as `golden`, which plans, results and recorded times leave out. A row has one, at
the ablation's first seed: it is made before the row's first cell and kept with each of its cells as `golden.json`.
"""

import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lab.study import store
from lab.study.ablation import Ablation
from lab.study.cells import Cell, notebook_path, typed
from lab.study.gpus import visible_gpus
from lab.study.identity import identify, package_versions
from lab.training.parameters import Parameters

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
        "processor": _processor(),
        "gpus": list(visible_gpus()),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "packages": package_versions(),
    }


def _processor() -> str:
    """The model and a hash of its abilities: libraries choose their kernels by both."""
    with suppress(OSError):
        told = dict[str, str]()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            told.setdefault(name.strip(), value.strip())
        flags = told.get("flags", told.get("Features", ""))
        model = told.get("model name", platform.machine())
        return f"{model} {hashlib.sha256(flags.encode()).hexdigest()[:8]}"
    return platform.processor()


def difference(kept: Record, made: Record, *, relative: float = 0.0) -> str:
    """The first step or result that differs, with both values, as the rest of a sentence; empty where none does.

    Args:
        relative: by how much of the larger value losses may differ, for records of unlike arithmetic. Then losses alone
            are compared: the last bit of a logit can turn an answer, and a rate with it.
    """
    for part, what in (("losses", "the loss of step {}"), ("results", "{}")):
        before, now = kept[part], made[part]
        for name in dict.fromkeys([*before, *now]):
            if relative and part == "results" and "loss" not in name:
                continue
            old, new = before.get(name), now.get(name)
            # isclose knows infinity; a loss that is no number (NaN) is equal to nothing, itself included.
            both = old is not None and new is not None
            if not (str(old) == str(new) or (both and math.isclose(old, new, rel_tol=relative))):
                return f"{what.format(name)} was {old} and is {new}"
    return ""


def made_records(cells: Sequence[Cell], changes: Mapping[str, Any]) -> dict[str, list[Record]]:
    """The records of the golden runs that finished, by key, the newest last; `cells` have their keys."""
    wanted = {cell.key for cell in cells}
    made: dict[str, list[Record]] = {}
    for run in store.read_runs((*store.PLAN_TAGS, "arithmetic")):
        if run.tags.get("kind") == KIND and run.status == "FINISHED" and run.tags.get("key") in wanted:
            losses, told = store.read_curve(run.run_id, LOSS), json.loads(run.tags["arithmetic"])
            record = golden_record(losses, run.results, arithmetic=told, changes=changes)
            made.setdefault(run.tags["key"], []).append(record)
    return made


def kept_record(run: store.RunRecord) -> Record | None:
    """The golden run that is kept with a cell's run; None where there is none that says anything, or it is not here."""
    with suppress(FileNotFoundError, ValueError):
        found: Any = json.loads(run.artifact(ARTIFACT).read_text(encoding="utf-8"))
        if isinstance(found, dict) and found.get("losses"):
            return found
    return None


def golden_records(
    ablation: Ablation,
    cells: Sequence[Cell],
    *,
    prepare: Callable[[list[Parameters]], Mapping[str, Any]],
    run: Callable[[list[Cell]], tuple[Mapping[str, str], bool]],
    say: Callable[[str], None],
    arithmetics: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Record], bool]:
    """The golden records of the cells' rows, by row; those that are not there yet are made.

    A golden run that cannot be prepared or fails is left out, with a line that says so: it never fails a cell.

    Args:
        prepare: as `ablations/NAME.py` has it. Golden runs have few samples, so they are prepared apart: what a cell
            was prepared from stands under its source's name, and must not be mistaken for theirs.
        run: runs golden cells; returns the reasons of those that failed, by title, and whether it was stopped.
        arithmetics: by row, on which arithmetic a record has to be made; any where None.

    Returns:
        Also whether it was stopped.
    """
    small = golden_cells(ablation, cells)
    if not small:
        return {}, False
    try:
        prepared = dict(prepare(typed(ablation, small)))
        small = identify(small, notebook_path(ablation), prepared)
    except Exception as error:  # whatever it is, the cells themselves were prepared and can run
        say(f"no golden runs, as what they need could not be prepared: {error}")
        return {}, False

    def records() -> dict[str, list[Record]]:
        made = made_records(small, ablation.golden)
        return {cell.row: made[cell.key] for cell in small if cell.key in made}

    def fits(row: str, record: Record) -> bool:
        return arithmetics is None or record["arithmetic"] == arithmetics[row]

    known = records()
    stopped = False
    missing = [cell for cell in small if not any(fits(cell.row, record) for record in known.get(cell.row, ()))]
    if missing:
        say(f"golden runs of {len(missing)} row{'s' * (len(missing) != 1)}, some seconds each")
        failed, stopped = run(missing)
        for title, reason in failed.items():
            say(f"no golden run of {title}: {reason}")
        known = records()
    best = {row: [record for record in made if fits(row, record)] or made for row, made in known.items()}
    return {row: made[-1] for row, made in best.items()}, stopped
