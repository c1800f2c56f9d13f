import pytest

from lab.study.ablation import Cell
from lab.study.plan import PlannedCell, State, reason, record
from lab.study.store import RunRecord

CELL = Cell(ablation="toy", row="small", rung="cpu", seed=0, parameters={}, key="abc")


def planned(state: State, *, end: float | None = 20.0, changed: tuple[str, ...] = (), **tags: str) -> PlannedCell:
    run = RunRecord("run-1", "ANY", 10.0, end, tags)
    return PlannedCell(cell=CELL, state=state, run=None if state == "missing" else run, changed=changed)


HEAD = {"ablation": "toy", "rung": "cpu", "row": "small", "seed": 0, "key": "abc"}
RUN = {"run_id": "run-1", "start": 10.0}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (planned("missing"), {}),
        (planned("done", results='{"error": 0.5}'), {**RUN, "end": 20.0, "results": {"error": 0.5}}),
        (planned("failed", error="nan at step 3"), {**RUN, "end": 20.0, "error": "nan at step 3"}),
        (planned("running", end=None, host="here", pid="7"), {**RUN, "host": "here", "pid": "7"}),
        (planned("stale", changed=("notebook: a -> b",)), {**RUN, "end": 20.0, "changed": ["notebook: a -> b"]}),
    ],
)
def test_a_cells_state_for_machines_says_what_applies(entry: PlannedCell, told: dict[str, object]) -> None:
    assert record(entry) == {**HEAD, "state": entry.state, **told}


def test_a_running_cell_says_where_and_since_when() -> None:
    told = reason(planned("running", end=None, host="here", pid="7"))
    assert told.startswith("since 1970-01-0")
    assert told.endswith("on here, process 7")
