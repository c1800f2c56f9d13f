import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.study import results, store
from lab.study.ablation import Trial, cells, load_ablation
from lab.study.forecast import Budget, OverBudget, extrapolate, trial_cells, try_out
from lab.study.plan import Display
from lab.study.sweep import reproduce
from tests.study.test_ablation import make


def test_two_cells_give_the_fixed_part_and_that_of_each_step() -> None:
    # 7 s of loading and measuring, 0.5 s a step.
    assert extrapolate((1, 21), (7.5, 17.5), 340) == (pytest.approx(7.0), pytest.approx(0.5), pytest.approx(177.0))


def test_noise_makes_no_part_negative() -> None:
    assert extrapolate((1, 5), (8.0, 7.0), 100) == (8.0, 0.0, 8.0)  # the longer trial happened to be the quicker one
    fixed, each, seconds = extrapolate((1, 2), (1.0, 5.0), 100)
    assert (fixed, each, seconds) == (0.0, 4.0, 400.0)


def test_trial_cells_are_of_the_dearest_row_and_do_only_a_little_of_the_work() -> None:
    small, large, noisy = make().rows
    dear = make(rows=(small, replace(large, cost=3.0), noisy))
    pair, whole = trial_cells(
        dear,
        cells(dear, "cpu", ["small", "large"], [5, 6]),
        Trial(parameter="steps", values=(1, 4), changes={"noise": 0.0}),
    )
    assert (whole.row, whole.seed, whole.parameters["steps"]) == ("large", 5, 100)
    assert [cell.parameters for cell in pair] == [{"size": 4, "noise": 0.0, "steps": n, "seed": 5} for n in (1, 4)]


def test_a_trial_never_does_more_than_the_cell_that_it_stands_for() -> None:
    chosen = cells(make(), "smoke", ["small"], [0])  # of 2 steps
    pair, _ = trial_cells(make(), chosen, Trial(parameter="steps", values=(1, 50)))
    assert [cell.parameters["steps"] for cell in pair] == [1, 2]
    nothing = Trial(parameter="steps", values=(2, 50))
    assert trial_cells(make(), chosen, nothing)[0] == []
    budget = Budget(seconds=1)
    assert try_out(make(), nothing, chosen, {}, lambda cells: ({}, False), print, budget) == ({}, budget)


@pytest.mark.parametrize(
    ("ended", "error", "message"),
    [
        (
            ({"a": "the loss is nan"}, False),
            LabError,
            "the trial failed, so that there is no forecast: the loss is nan",
        ),
        (({}, True), KeyboardInterrupt, "^$"),
        (({}, False), LabError, "2 trial cells were left to another sweep"),
    ],
)
def test_a_trial_without_times_gives_no_forecast(
    toy_project: Path, ended: tuple[dict[str, str], bool], error: type[BaseException], message: str
) -> None:
    toy, trial = load_ablation("toy"), Trial(parameter="steps", values=(1, 2))
    todo = cells(toy, "cpu", ["small"], [0])
    with pytest.raises(error, match=message):
        try_out(toy, trial, todo, {"corpus": "c0ffee"}, lambda cells: ended, print, Budget(seconds=9))


@pytest.mark.slow
def test_a_study_that_was_never_timed_is_tried_out_once_and_leaves_no_trace_in_its_results(
    toy_project: Path, store_maker: Callable[[], None]
) -> None:
    store_maker()
    toy = replace(load_ablation("toy"), trial=Trial(parameter="steps", values=(1, 2)))
    printed = io.StringIO()

    def run(seconds: float) -> list[str]:
        display = Display(toy, "cpu", file=printed)
        outcome = reproduce(
            toy, rows=["small", "large"], seeds=[0], workers=2, budget=Budget(seconds=seconds), display=display
        )
        return [entry.state for entry in outcome.planned]

    with pytest.raises(OverBudget, match="the 2 cells would take about"):
        run(1e-3)
    trials = [run_ for run_ in store.read_runs() if run_.tags.get("kind") == "trial"]
    assert [(one.tags["row"], one.status) for one in trials] == [("large", "FINISHED")] * 2
    assert not [run_ for run_ in store.read_runs() if run_.tags.get("kind") == "cell"]
    assert results.read_lines(toy, "cpu") == []
    assert "no cell was timed here; a trial of large at steps = 1 and 2" in printed.getvalue()
    assert "forecast from the trial, and no more than that: " in printed.getvalue()
    assert run(3600) == ["done", "done"]
    kinds = [run_.tags.get("kind") for run_ in store.read_runs()]
    assert sorted(str(kind) for kind in kinds) == ["cell", "cell", "study", "trial", "trial"]
    assert len(results.read_lines(toy, "cpu")) == 2
    assert printed.getvalue().count("a trial of large") == 1
