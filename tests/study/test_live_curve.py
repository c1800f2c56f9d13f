import pytest

from lab.study import store, tracking
from lab.study.live_curve import LiveCurve
from lab.study.store import read_curve


@pytest.fixture
def run(tmp_path, monkeypatch) -> tracking.CellRun:
    monkeypatch.setenv("OMNI_LAB_MLRUNS", str(tmp_path))
    store.spool_dir("r1").mkdir(parents=True)
    return tracking.cell_run("r1", {})


def lines() -> int:
    path = store.spool_dir("r1") / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_curve_can_be_read_while_it_grows(run):
    curve = LiveCurve(run, "loss", seconds=0.0)
    for step, value in enumerate((3.0, 2.0)):
        curve(step, value)
        assert read_curve("r1", "loss")[-1] == (step, value)


def test_it_is_not_written_more_often_than_it_is_looked_at(run):
    curve = LiveCurve(run, "loss", seconds=3600.0)
    for step in range(100):
        curve(step, 1.0)
    assert lines() == 0
    curve.finish([1.0] * 100)
    assert lines() == 100


def test_at_the_end_each_step_stands_there_once_those_before_a_checkpoint_too(run):
    curve = LiveCurve(run, "loss", seconds=0.0)
    for step in (2, 3):
        curve(step, 10.0 - step)
    curve.finish([10.0, 9.0, 8.0, 7.0])
    assert read_curve("r1", "loss") == [(0, 10.0), (1, 9.0), (2, 8.0), (3, 7.0)]
    assert lines() == 4
