from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock

from lab import paths
from lab.errors import LabError
from lab.study import schedule, sweep, tracking
from lab.study.ablation import load_ablation
from lab.study.schedule import run_unattended
from lab.study.sweep import Outcome


@pytest.mark.slow
def test_a_sweep_leaves_a_log_a_report_and_a_copy_with_the_studys_run(
    toy_project: Path, store_maker: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store_maker()
    report = run_unattended(load_ablation("toy"), rung="cpu", rows=["small", "broken"], seeds=[0], workers=1)
    assert report is not None
    assert report.path == paths.mlruns_dir() / "unattended" / "toy-cpu.md"
    text = report.path.read_text()
    assert text == report.text
    assert text.startswith("# toy (cpu), 20")
    assert "Before: 2 cells: 2 missing. Now: 2 cells: 1 done, 1 failed." in text
    assert "| small, seed 0 | missing | done | 0:0" in text
    assert "## Failed\n\n- broken, seed 0: the loss is nan at step 3\n" in text
    log = (paths.mlruns_dir() / "unattended" / "toy-cpu.log").read_text()
    assert "broken, seed 0: FAILED: the loss is nan at step 3" in log
    study = tracking.find_study("toy", "cpu")
    assert study is not None
    assert study.tags["last_sweep"].endswith(": 2 cells: 1 done, 1 failed")
    (kept,) = study.artifact("reports").glob("*.md")
    assert kept.read_text() == text

    changed = dict(sweep.load_prepare("toy")([]), corpus="decaf")
    monkeypatch.setattr(sweep, "load_prepare", lambda name: lambda cells: changed)
    second = run_unattended(load_ablation("toy"), rung="cpu", rows=["small"], seeds=[0], workers=1)
    assert second is not None
    assert "- prepared.corpus: c0ffee -> decaf" in second.text
    assert "| small, seed 0 | stale | done |" in second.text
    assert (paths.mlruns_dir() / "unattended" / "toy-cpu.log").read_text().startswith(log)


def test_one_that_is_still_running_is_left_alone(toy_project: Path) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("must not run")

    schedule.folder().mkdir(parents=True)
    with FileLock(schedule.folder() / "toy-cpu.lock"):
        assert run_unattended(load_ablation("toy"), rung="cpu", sweep=never) is None
    assert "left to the last one, which is still running" in (schedule.folder() / "toy-cpu.log").read_text()


def test_a_sweep_that_cannot_start_says_so_in_its_report(toy_project: Path) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise LabError("package 'x' cannot be fetched")

    with pytest.raises(LabError, match="cannot be fetched"):
        run_unattended(load_ablation("toy"), rung="cpu", sweep=refused)
    assert "**It could not start:** package 'x' cannot be fetched" in (schedule.folder() / "toy-cpu.md").read_text()
    with FileLock(schedule.folder() / "toy-cpu.lock", timeout=0):
        pass  # the lock is free again


def test_a_sweep_with_nothing_to_do_reports_that_nothing_changed(toy_project: Path) -> None:
    toy = load_ablation("toy")
    begun = datetime.now().astimezone()
    outcome = Outcome(before=(), planned=(), failed={}, interrupted=True, results_file=None)
    text = schedule.compose(toy, "cpu", outcome, begun, begun + timedelta(seconds=65))
    assert "Took 1:05." in text
    assert "It was stopped." in text
    assert "Nothing that a cell had been made from." in text
    assert "## Run now" not in text
    assert "## Failed" not in text
