from dataclasses import replace

import pytest

from lab.errors import LabError
from lab.study import forecast as forecasts
from lab.study.ablation import cells
from lab.study.forecast import Budget, Forecast, Meter, OverBudget, check_budget, in_order
from tests.study.test_ablation import make

SMALL_AND_LARGE = {"small": [10.0], "large": [30.0]}


def test_time_left_is_unknown_before_a_cell_has_finished() -> None:
    assert Forecast(make(), 2, {}).left(["small"], []) is None


def test_time_left_divides_the_work_by_the_workers_and_waits_for_the_longest_cell() -> None:
    forecast = Forecast(make(), 2, {"small": [10.0, 12.0, 11.0]})
    assert forecast.left(["small"] * 4, []) == pytest.approx(22.0)
    assert forecast.left([], [("small", 4.0)]) == pytest.approx(7.0)


def names(chosen):
    return [f"{cell.row} {cell.seed}" for cell in chosen]


def test_the_longest_cells_start_first_by_recorded_times_and_else_by_their_declared_cost():
    chosen = cells(make(), "cpu", ["small", "large"], [0, 1])
    known = Forecast(make(), 2, {"small": [30.0], "large": [10.0]})
    assert names(in_order(chosen, known)) == ["small 0", "small 1", "large 0", "large 1"]
    small, large, noisy = make().rows
    declared = make(rows=(small, replace(large, cost=2.0), noisy))
    assert names(in_order(chosen, Forecast(declared, 2, {}))) == ["large 0", "large 1", "small 0", "small 1"]


def test_a_budget_that_does_not_hold_all_finishes_whole_rows_the_cheapest_first():
    chosen = cells(make(), "cpu", ["small", "large"], [0, 1])
    known = Forecast(make(), 1, SMALL_AND_LARGE)
    assert names(in_order(chosen, known, Budget(seconds=79))) == ["small 0", "small 1", "large 0", "large 1"]
    assert names(in_order(chosen, known, Budget(seconds=80))) == ["large 0", "large 1", "small 0", "small 1"]


def test_a_forecast_above_the_budget_is_refused_unless_what_fits_is_wanted():
    chosen = cells(make(), "cpu", ["small", "large"], [0, 1])
    known = Forecast(make(), 1, {"small": [600.0], "large": [1800.0]})
    message = (
        "the 4 cells would take about 80 minutes, the budget is 60; raise it, choose fewer rows or seeds, or add --fit"
    )
    with pytest.raises(LabError, match=message):
        check_budget(chosen, known, Budget(seconds=3600))
    with pytest.raises(LabError, match=r"about 80 minutes, the budget is 0\.3; raise it"):
        check_budget(chosen, known, Budget(seconds=20))
    check_budget(chosen, known, Budget(seconds=3600, fit=True))
    check_budget(chosen, known, Budget(seconds=4800))
    check_budget([], known, Budget(seconds=1))


def test_without_a_recorded_time_a_budget_is_refused_with_the_ways_out():
    chosen = cells(make(), "cpu", ["small"], [0])
    with pytest.raises(LabError, match=r"no cell of this study has been timed.*run one cell first, or add"):
        check_budget(chosen, Forecast(make(), 1, {}), Budget(seconds=3600))


def test_gpu_hours_count_every_cell_times_its_gpus_however_many_run_at_once():
    chosen = cells(make(), "cpu", ["small", "large"], [0, 1])
    known = Forecast(make(), 4, {"small": [600.0], "large": [1800.0]})
    # 2 x 600 + 2 x 1800 = 4800 s of cells: 80 minutes on half a GPU each are 40 of a GPU; four at once end in 30.
    check_budget(chosen, known, Budget(seconds=1800))
    check_budget(chosen, known, Budget(seconds=2400, gpus=0.5))
    with pytest.raises(OverBudget, match="the 4 cells would take about 160 GPU minutes, the budget is 60; raise it"):
        check_budget(chosen, known, Budget(seconds=3600, gpus=2))
    assert names(in_order(chosen, known, Budget(seconds=3600, gpus=2)))[:2] == ["small 0", "small 1"]
    with pytest.raises(OverBudget, match="no cell of this study has been timed"):
        check_budget(chosen, Forecast(make(), 4, {}), Budget(seconds=3600, gpus=2))


def test_gpu_seconds_are_set_aside_when_a_cell_starts_and_corrected_when_it_ends():
    meter = Meter(Budget(seconds=100, gpus=2), Forecast(make(), 4, SMALL_AND_LARGE))
    assert meter.fits("large")  # 60 of 100
    assert not meter.fits("large")
    assert meter.fits("small")  # 80
    assert meter.fits("small")  # 100
    assert not meter.fits("small")
    meter.ended("large", 20.0)  # 40 rather than 60
    assert meter.fits("small")
    assert not meter.fits("small")
    meter.ended("small", 0.0)  # another sweep had it
    assert meter.fits("small")
    Meter(None, Forecast(make(), 1, {})).ended("small", 1.0)


def test_whoever_is_there_is_asked_and_may_go_on_without_the_budget():
    chosen = cells(make(), "cpu", ["small", "large"], [0, 1])
    known = Forecast(make(), 1, {"small": [600.0], "large": [1800.0]})
    asked = []

    def answer(with_: bool):
        return lambda above: asked.append(above) or with_

    assert check_budget(chosen, known, Budget(seconds=3600, ask=answer(True))) is None
    with pytest.raises(OverBudget, match="the budget is 60, and nothing was started"):
        check_budget(chosen, known, Budget(seconds=3600, ask=answer(False)))
    assert asked == ["the 4 cells would take about 80 minutes, the budget is 60"] * 2
    enough = Budget(seconds=4800, ask=answer(False))
    assert check_budget(chosen, known, enough) is enough
    assert len(asked) == 2


def test_no_cell_is_started_that_would_not_end_in_time(monkeypatch):
    now = 100.0
    monkeypatch.setattr(forecasts.time, "monotonic", lambda: now)
    meter = Meter(Budget(seconds=35), Forecast(make(), 1, SMALL_AND_LARGE))
    assert meter.fits("large")
    now += 6
    assert not meter.fits("large")
    assert meter.fits("small")
    now += 20
    assert not meter.fits("small")
    assert Meter(None, Forecast(make(), 1, {})).fits("large")
    untimed = Meter(Budget(seconds=5), Forecast(make(), 1, {}))
    assert untimed.fits("large")
    now += 6
    assert not untimed.fits("large")
