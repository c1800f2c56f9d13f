import asyncio
import json
import sys

import pytest

from lab.errors import LabError
from lab.explore import sweep as module
from lab.explore.sweep import SweepPanel, SweepProcess
from lab.study import store
from lab.study.ablation import load_ablation
from lab.study.store import read_curve

GOES_ON = "import sys, time; print('began', *sys.argv[1:], flush=True); time.sleep(60)"


def waiting(process, words, seconds=20.0):
    """Until its log says these words."""
    import time

    until = time.monotonic() + seconds
    while words not in process.last_lines() and time.monotonic() < until:
        time.sleep(0.05)
    return process.last_lines()


@pytest.fixture
def process(monkeypatch):
    monkeypatch.setattr(module, "_COMMAND", f"import signal; signal.signal(2, signal.default_int_handler); {GOES_ON}")
    made = SweepProcess(load_ablation("visual_projector"), "smoke", workers=2)
    yield made
    made.stop()
    if made.process:
        made.process.wait(10)


def test_a_sweep_is_started_once_told_what_to_run_and_stopped_as_by_ctrl_c(process):
    assert not process.running
    process.start("mean_pool")
    assert "began reproduce visual_projector --rung smoke --workers 2 --rows mean_pool" in waiting(process, "began")
    assert process.running
    with pytest.raises(LabError, match="the sweep runs already"):
        process.start()
    process.stop()
    process.process.wait(10)
    assert "KeyboardInterrupt" in process.last_lines()
    process.stop()  # nothing to stop any more


def test_an_unknown_rung_is_refused_at_once():
    with pytest.raises(LabError, match="unknown rung of 'visual_projector'"):
        SweepProcess(load_ablation("visual_projector"), "cup")


def test_the_panel_shows_cells_results_and_what_the_buttons_did(monkeypatch, process):
    panel = SweepPanel("visual_projector", "smoke")
    panel.process = process
    panel.update()
    assert "12 cells: 12 missing; the sweep is not running from here" in panel.shown[0]
    assert "there are no results of &#39;visual_projector&#39; at rung" in panel.shown[-1]
    start, stop, said = panel.children[0].children
    start.click()
    waiting(process, "began")
    panel.update()
    assert "the sweep is running" in panel.shown[0]
    assert any("began reproduce" in str(shown) for shown in panel.shown)
    start.click()
    assert "the sweep runs already" in said.value
    stop.click()
    process.process.wait(10)
    panel.controls["rows"].value = "mean_pool, no_such"
    assert "unknown row of 'visual_projector' (or main, all): 'no_such'" in panel.error
    panel.controls["rows"].value = "mean_pool"
    assert "3 cells: 3 missing" in panel.shown[0]


def test_following_looks_again_and_leaving_ends_it(monkeypatch):
    panel = SweepPanel("visual_projector", "smoke")
    looks = []
    monkeypatch.setattr(panel, "update", lambda: looks.append(1))

    async def follow():
        panel.follow(0.01)
        while len(looks) < 2:
            await asyncio.sleep(0.01)
        panel.leave()
        seen = len(looks)
        await asyncio.sleep(0.1)
        return seen

    assert asyncio.run(follow()) == len(looks)


def test_a_curve_is_read_from_the_spool_of_a_run_that_goes_on_and_from_the_store_after(store_maker):
    store_maker()
    from lab.study.tracking import cell_run

    run = cell_run("", {"seed": 0})
    run.log_metrics({"loss": enumerate([3.0, 2.0, 1.5]), "learning_rate": enumerate([0.1])})
    with (store.spool_dir(run.run_id) / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(["loss", 3, 1.0, 0])[:-4])  # half a line
    assert read_curve(run.run_id, "loss") == [(0, 3.0), (1, 2.0), (2, 1.5)]
    (store.spool_dir(run.run_id) / "metrics.jsonl").write_text("")
    assert read_curve(run.run_id, "loss") == [(0, 3.0), (1, 2.0), (2, 1.5)]
    assert read_curve(run.run_id, "no_such") == []
    run.finish()
    assert read_curve(run.run_id, "loss") == [(0, 3.0), (1, 2.0), (2, 1.5)]
    assert "mlflow" in sys.modules
