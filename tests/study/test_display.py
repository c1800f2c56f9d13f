import io

from lab.study.ablation import cells
from lab.study.plan import Display, PlannedCell, clock
from tests.study.test_ablation import make


def test_times_read_as_people_write_them() -> None:
    assert [clock(seconds) for seconds in (7, 750, 3723)] == ["0:07", "12:30", "1:02:03"]


def test_plain_lines_name_the_cell_its_score_and_a_failures_reason() -> None:
    ablation = make()
    file = io.StringIO()
    display = Display(ablation, "cpu", file=file)
    chosen = cells(ablation, "cpu")
    display.begin([PlannedCell(cell=cell, state="missing") for cell in chosen], 1, {})
    display.started(chosen[0])
    display.finished(chosen[0], "FINISHED", "", {"error": 0.125}, 60.0)
    display.finished(chosen[1], "FAILED", "the loss is nan", {}, 1.0)
    lines = file.getvalue().splitlines()
    assert lines[0] == "toy (cpu): 4 cells: 4 missing"
    assert lines[1] == "  small, seed 0: done in 1:00, Error 0.125  [1 of 4, about 3:00 left]"
    assert lines[2].startswith("  small, seed 1: FAILED: the loss is nan  [2 of 4")
