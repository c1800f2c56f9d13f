import io
from dataclasses import replace

import pytest

from lab.errors import LabError
from lab.study.ablation import cells
from lab.study.golden import KEPT_STEPS, Record, arithmetic, difference, golden_cells, golden_record
from lab.study.plan import Display
from lab.study.sweep import Runner
from tests.study.test_ablation import make


def record(losses: list[float], **results: float) -> Record:
    return golden_record(list(enumerate(losses)), results, arithmetic={}, changes={})


def test_a_row_has_one_golden_run_at_the_first_seed_with_few_steps() -> None:
    toy = make(golden={"steps": 2})
    small = golden_cells(toy, cells(toy, "cpu", ["small", "large"], [7, 8]))
    assert [(cell.row, cell.seed, cell.key) for cell in small] == [
        (row, toy.seeds[0], "") for row in ("small", "large")
    ]
    assert [cell.parameters["steps"] for cell in small] == [2, 2]
    assert [cell.parameters["seed"] for cell in small] == [toy.seeds[0]] * 2
    assert [cell.parameters["size"] for cell in small] == [1, 4]


def test_an_ablation_that_declares_none_has_no_golden_run() -> None:
    assert golden_cells(make(), cells(make(), "cpu")) == []


def test_golden_parameters_exist_and_stand_whatever_a_row_says() -> None:
    with pytest.raises(LabError, match="unknown parameter in `golden` of 'toy': 'step'"):
        make(golden={"step": 2})
    toy = make(golden={"size": 2})
    assert {cell.parameters["size"] for cell in golden_cells(toy, cells(toy, "cpu", ["small", "large"]))} == {2}


def test_the_first_and_the_last_steps_are_kept_and_no_seconds_or_bytes() -> None:
    losses = [(step, 1 / (step + 1)) for step in range(100)]
    results = {"test_error": 0.5, "training_seconds": 3.0, "peak_memory_bytes": 4.0, "tokens_per_second": 5.0}
    kept = golden_record(losses[::-1], results, arithmetic={}, changes={})
    ends = [*range(KEPT_STEPS), *range(100 - KEPT_STEPS, 100)]
    assert kept["losses"] == {str(step): 1 / (step + 1) for step in ends}
    assert kept["results"] == {"test_error": 0.5, "tokens_per_second": 5.0}


def test_the_first_difference_is_named_with_both_values() -> None:
    kept = record([4.0, 3.0, 2.0], test_error=0.5)
    assert difference(kept, record([4.0, 3.0, 2.0], test_error=0.5)) == ""
    one_bit = 3.0 + 2**-51
    assert (
        difference(kept, record([4.0, one_bit, 1.0], test_error=0.5)) == f"the loss of step 1 was 3.0 and is {one_bit}"
    )
    assert difference(kept, record([4.0, 3.0, 2.0], test_error=0.75)) == "test_error was 0.5 and is 0.75"
    assert difference(kept, record([4.0, 3.0], test_error=0.5)) == "the loss of step 2 was 2.0 and is None"
    assert difference(record([1.0]), record([1.0], test_error=0.5)) == "test_error was None and is 0.5"


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_became_no_number_differs_and_one_that_was_none_does_not(broken: float) -> None:
    good, bad = record([4.0, 3.0], test_loss=0.5), record([4.0, broken], test_loss=0.5)
    assert difference(good, bad) == f"the loss of step 1 was 3.0 and is {broken}"
    assert difference(bad, good) == f"the loss of step 1 was {broken} and is 3.0"
    assert difference(bad, record([4.0, broken], test_loss=0.5)) == ""


def test_the_number_of_threads_is_part_of_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        told.append(arithmetic())
    assert [one.pop("threads") for one in told] == [1, 2]
    assert told[0] == told[1]


def test_golden_runs_that_cannot_be_prepared_are_left_out_and_named() -> None:
    toy = replace(make(), golden={"steps": 2})

    def fail(parameters: object) -> dict[str, str]:
        raise LabError("the hub is away")

    said = io.StringIO()
    display = Display(toy, "cpu", file=said)
    runner = Runner(ablation=toy, rung="cpu", prepared={}, prepare=fail, display=display)
    assert runner.golden_records(cells(toy, "cpu")) == ({}, False)
    assert said.getvalue() == "no golden runs, as what they need could not be prepared: the hub is away\n"
