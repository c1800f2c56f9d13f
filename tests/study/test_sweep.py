import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab import paths
from lab.errors import LabError
from lab.study import identity, leases, machines, store, sweep, tracking
from lab.study.ablation import cells, load_ablation
from lab.study.forecast import Budget
from lab.study.limits import Limits
from lab.study.machines import Machines
from lab.study.plan import Display, describe, plan, reason
from lab.study.sweep import Outcome, reproduce
from lab.study.worker import STOP_SECONDS, available_cores, worker_environment
from tests.conftest import TOY_CODE, write_notebook
from tests.study.clusters import start, wait_for

Sweep = tuple[Path, Outcome, str]


def run_of(row: str) -> store.RunRecord:
    return next(run for run in store.read_runs() if run.tags.get("row") == row)


def measured(row: str) -> store.RunRecord | None:
    """The RUNNING run of that row once its kernel has begun to measure."""
    for run in store.read_runs():
        begun = (store.spool_dir(run.run_id) / "metrics.jsonl").exists()
        if run.tags.get("row") == row and run.status == "RUNNING" and begun:
            return run
    return None


@pytest.mark.slow
def test_a_failing_cell_leaves_the_others_alone_and_keeps_its_reason(swept: Path, finished_sweep: Sweep) -> None:
    _, outcome, printed = finished_sweep
    assert {entry.cell.row: entry.state for entry in outcome.planned} == {
        "small": "done",
        "large": "done",
        "broken": "failed",
        "silent": "failed",
    }
    assert outcome.failed["broken, seed 0"] == "the loss is nan at step 3"
    assert "without run.set_results" in outcome.failed["silent, seed 0"]
    assert not outcome.complete
    assert run_of("broken").status == "FAILED"
    assert run_of("broken").tags["error"] == "the loss is nan at step 3"
    assert "LabError" in run_of("broken").artifact("error.txt").read_text()
    assert "broken, seed 0: FAILED: the loss is nan at step 3" in printed


@pytest.mark.slow
def test_dear_rows_start_first(finished_sweep: Sweep, swept: Path) -> None:
    starts = {run.tags["row"]: run.start for run in store.read_runs() if run.tags.get("kind") == "cell"}
    assert min(starts, key=lambda row: starts[row]) in ("large", "small")  # two workers take the first two
    assert starts["large"] < max(starts["broken"], starts["silent"])


@pytest.mark.slow
def test_a_done_cell_keeps_everything_with_its_run(swept: Path) -> None:
    run = run_of("large")
    assert run.results == {"test_character_error_rate": 0.0625, "steps_done": 3.0}
    client = tracking.Recorder()._client
    theirs = client.get_run(run.run_id)
    parent = client.get_run(theirs.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["omni_lab.kind"] == "study"
    assert parent.info.status == "FAILED"
    assert theirs.data.params == {"size": "4", "noise": "0.5", "mode": "plain", "steps": "3", "seed": "0"}
    assert theirs.data.tags["omni_lab.prepared.corpus"] == "c0ffee"
    assert theirs.data.tags["omni_lab.prepared.mode"] == "PLAIN"
    assert {"omni_lab.git_commit", "omni_lab.git_dirty", "omni_lab.package.numpy"} <= theirs.data.tags.keys()
    assert [point.value for point in client.get_metric_history(run.run_id, "train_loss")] == [1.0, 0.5, 1 / 3]
    executed = json.loads(run.artifact("notebook.ipynb").read_text())
    assert any("injected-parameters" in cell["metadata"].get("tags", []) for cell in executed["cells"])
    copy = paths.mlruns_dir() / "notebooks" / "toy" / f"large-0-{run.tags['key']}.ipynb"
    assert copy.exists()
    assert store.read_ingredients(run)["parameter.size"] == 4


@pytest.mark.slow
def test_a_second_reproduce_does_nothing_and_imports_no_mlflow(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "LocalExecutor", None)
    monkeypatch.setattr(tracking, "Recorder", None)
    before = store.read_runs()
    outcome = reproduce(load_ablation("toy"), rows=["small", "large"], seeds=[0])
    assert outcome.complete
    assert store.read_runs() == before


@pytest.mark.slow
def test_what_changed_is_told_of_a_stale_cell(swept: Path) -> None:
    def changed(parameters: list[dict[str, Any]]) -> Mapping[str, Any]:
        return {"corpus": "decaf", "mode": {"plain": "PLAIN"}}

    _, prepared = sweep.prepare_cells(load_ablation("toy"), "cpu", ["small"], [0, 1], changed)
    notebook = paths.repository_root() / "notebooks" / "toy.ipynb"
    chosen = identity.identify(cells(load_ablation("toy"), "cpu", ["small"], [0, 1]), notebook, prepared)
    planned = plan(chosen)
    assert [entry.state for entry in planned] == ["stale", "missing"]
    assert reason(planned[0]) == "changed: prepared.corpus: c0ffee -> decaf"
    assert describe(planned) == "2 cells: 1 stale, 1 missing"


@pytest.mark.slow
def test_status_looks_without_preparing(swept: Path) -> None:
    planned = sweep.status(load_ablation("toy"), "cpu", "all", [0])
    states = {entry.cell.row: entry.state for entry in planned}
    assert states == {
        "small": "done",
        "large": "done",
        "broken": "failed",
        "slow": "missing",
        "silent": "failed",
        "flaky": "missing",
    }
    assert {entry.state for entry in sweep.status(load_ablation("toy"), "smoke")} == {"missing"}


@pytest.mark.slow
def test_a_cell_that_another_ablation_ran_is_done(swept: Path) -> None:
    other = replace(load_ablation("toy"), name="other")
    notebook = paths.repository_root() / "notebooks" / "toy.ipynb"
    prepared = sweep.load_prepare("toy")([])
    (entry,) = plan(identity.identify(cells(other, "cpu", ["large"], [0]), notebook, prepared))
    assert entry.run is not None
    assert (entry.state, entry.run.run_id) == ("done", run_of("large").run_id)


def test_a_misspelt_parameter_is_refused_before_anything_is_prepared_or_made(toy_project: Path) -> None:
    write_notebook(toy_project / "notebooks" / "toy.ipynb", parameters='sise: int = 1\nrun_id: str = ""')

    def prepare(parameters: list[dict[str, Any]]) -> dict[str, Any]:
        raise AssertionError("must not be called")

    with pytest.raises(LabError, match=r"'size' is missing.*'sise' is none of them"):
        reproduce(load_ablation("toy"), prepare=prepare)
    assert not paths.mlruns_dir().exists()


def test_a_notebook_that_is_not_python_is_refused_before_anything_is_prepared(toy_project: Path) -> None:
    def never(parameters: list[dict[str, Any]]) -> Mapping[str, Any]:
        raise AssertionError("prepared")

    write_notebook(toy_project / "notebooks" / "toy.ipynb", code="cell_run?")
    with pytest.raises(LabError, match=r"a cell of .*toy.ipynb is not Python.*cell_run\?"):
        sweep.prepare_cells(load_ablation("toy"), "cpu", prepare=never)


def test_an_ablation_without_prepare_and_a_wrong_number_of_workers_are_refused(toy_project: Path) -> None:
    path = toy_project / "ablations" / "toy.py"
    path.write_text(path.read_text().replace("def prepare", "def get_ready"))
    with pytest.raises(LabError, match=r"ToyParameters is no kind of study that can be prepared.*SpeechParameters, "):
        reproduce(load_ablation("toy"))
    with pytest.raises(LabError, match="workers is the number of cells run at once, from 1; got 0"):
        reproduce(load_ablation("toy"), workers=0)


def workers_of(pid: int) -> list[psutil.Process]:
    """The workers of the sweep that runs in that process."""
    return [child for child in psutil.Process(pid).children() if "lab.study.worker" in " ".join(child.cmdline())]


def test_threads_are_divided_among_the_workers() -> None:
    cores = available_cores()
    assert worker_environment(1)["OMP_NUM_THREADS"] == str(cores)
    assert worker_environment(cores)["MKL_NUM_THREADS"] == "1"
    assert worker_environment(10 * cores)["OMP_NUM_THREADS"] == "1"


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_its_cell_alone(toy_project: Path, store_maker: Callable[[], None]) -> None:
    store_maker()

    def kill() -> None:
        wait_for(lambda: measured("slow"))
        (worker,) = workers_of(os.getpid())
        worker.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = reproduce(load_ablation("toy"), rows=["slow", "large"], seeds=[0], workers=1)
    killer.join()
    assert {entry.cell.row: entry.state for entry in outcome.planned} == {"slow": "failed", "large": "done"}
    assert "its worker died (signal SIGKILL; log:" in outcome.failed["slow, seed 0"]
    assert {run.status for run in store.read_runs()} == {"FINISHED", "FAILED"}


@pytest.mark.slow
def test_what_can_pass_is_tried_again_and_what_takes_too_long_is_not(
    toy_project: Path, store_maker: Callable[[], None]
) -> None:
    store_maker()
    printed = io.StringIO()
    toy = load_ablation("toy")
    outcome = reproduce(
        toy,
        rows=["flaky", "slow", "broken"],
        seeds=[0],
        workers=2,
        limits=Limits(seconds=10.0, retries=1),
        display=Display(toy, "cpu", file=printed),
    )
    assert {entry.cell.row: entry.state for entry in outcome.planned} == {
        "broken": "failed",
        "slow": "failed",
        "flaky": "done",
    }
    assert outcome.failed["slow, seed 0"] == "it ran longer than its limit of 10 s"
    assert "flaky, seed 0: ConnectionError: the hub is away; tried again in 5 s" in printed.getvalue()
    tries = [(run.tags["row"], run.status) for run in store.read_runs() if run.tags.get("kind") == "cell"]
    assert sorted(tries) == [("broken", "FAILED"), ("flaky", "FAILED"), ("flaky", "FINISHED"), ("slow", "FAILED")]


@pytest.mark.slow
def test_a_budget_starts_only_what_fits_and_leaves_the_rest_missing(
    toy_project: Path, store_maker: Callable[[], None]
) -> None:
    store_maker()
    toy = load_ablation("toy")
    with pytest.raises(LabError, match="no cell of this study has been timed"):
        reproduce(toy, rows=["small"], seeds=[0], budget=Budget(seconds=3600))
    assert not [run for run in store.read_runs() if run.tags.get("kind") == "cell"]
    printed = io.StringIO()
    outcome = reproduce(
        toy,
        rows=["small", "large"],
        seeds=[0],
        workers=1,
        budget=Budget(seconds=1e-3, fit=True),
        display=Display(toy, "cpu", file=printed),
    )
    assert [entry.state for entry in outcome.planned] == ["missing", "missing"]
    assert "small, seed 0: not started, it does not fit into what is left of the budget" in printed.getvalue()
    assert {run.status for run in store.read_runs()} == {"FINISHED"}  # the study's own


def lives(process: psutil.Process) -> bool:
    """Whether it runs; a container without an init leaves dead ones as zombies."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


STUDY = """
import sys
from pathlib import Path
from lab import cli, paths
root = Path(sys.argv.pop(1))
paths.repository_root = lambda: root
cli.main()
"""


def start_slow(root: Path) -> "subprocess.Popen[str]":
    return start([sys.executable, "-c", STUDY, str(root), "reproduce", "toy", "--rows", "slow", "--workers", "1"])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_is_stopped_leaves_no_run_running_and_no_process(
    toy_project: Path, store_maker: Callable[[], None], number: signal.Signals
) -> None:
    store_maker()
    driver = start_slow(toy_project)
    try:
        run = wait_for(lambda: measured("slow"))
        family = psutil.Process(driver.pid).children(recursive=True)
        assert len(family) >= 2  # worker and kernel
        driver.send_signal(number)
        begun = time.monotonic()
        printed, _ = driver.communicate(timeout=60)
    finally:
        driver.kill()
    if number != signal.SIGKILL:
        assert driver.returncode == 130, printed
        assert "stopping: what is done stays" in printed
    wait_for(lambda: not any(lives(process) for process in family), seconds=30)
    assert time.monotonic() - begun < 60
    tracking.close_abandoned()  # what the next sweep does first
    runs = store.read_runs()
    assert {entry.status for entry in runs} == {"KILLED"}
    assert tracking.Recorder()._client.get_metric_history(run.run_id, "train_loss")
    assert not any((paths.mlruns_dir() / "spool").iterdir())


@pytest.mark.slow
def test_ctrl_c_does_not_wait_long_for_a_worker_that_hangs_and_a_second_one_tears_nothing_apart(
    toy_project: Path, store_maker: Callable[[], None]
) -> None:
    store_maker()
    driver = start_slow(toy_project)
    try:
        wait_for(lambda: measured("slow"))
        (worker,) = workers_of(driver.pid)
        family = [worker, *worker.children(recursive=True)]
        worker.suspend()  # it hears nothing of the end
        begun = time.monotonic()
        driver.send_signal(signal.SIGINT)
        assert driver.stdout is not None
        while "stopping: what is done stays" not in driver.stdout.readline():
            assert driver.poll() is None
        driver.send_signal(signal.SIGINT)
        driver.communicate(timeout=60)
    finally:
        driver.kill()
    assert time.monotonic() - begun < STOP_SECONDS + 20
    wait_for(lambda: not any(lives(process) for process in family), seconds=30)
    assert {entry.status for entry in store.read_runs()} == {"KILLED"}


@pytest.mark.slow
def test_sweeps_started_at_once_on_an_empty_store_run_every_cell_once(toy_project: Path) -> None:
    rows = ["reproduce", "toy", "--rows", "small,large", "--seeds", "0,1", "--workers", "1"]
    command = [sys.executable, "-c", STUDY, str(toy_project), *rows]
    sweeps = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(3)]
    printed = [one.communicate(timeout=240)[0] for one in sweeps]
    assert [one.returncode for one in sweeps] == [0, 0, 0], printed
    runs = [run for run in store.read_runs() if run.tags.get("kind") == "cell"]
    assert sorted((run.tags["row"], run.tags["seed"]) for run in runs) == [
        ("large", "0"),
        ("large", "1"),
        ("small", "0"),
        ("small", "1"),
    ]
    assert {run.status for run in store.read_runs()} == {"FINISHED"}
    assert list(leases.folder().iterdir()) == []


@pytest.mark.slow
def test_each_cell_sees_the_gpus_that_are_its_own(
    toy_project: Path, store_maker: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store_maker()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    # A cell waits for the other, so that both run at once whatever the machine.
    code = TOY_CODE.replace("import time\n", "import os, time\n").replace(
        "run.set_results({",
        "Path(f'{seed}.there').touch()\n"
        "    while len(list(Path().glob('?.there'))) < 2: time.sleep(0.05)\n"
        "    run.set_results({'device': float(os.environ['CUDA_VISIBLE_DEVICES']), ",
    )
    write_notebook(toy_project / "notebooks" / "toy.ipynb", code=code)
    toy = load_ablation("toy")
    with pytest.raises(LabError, match="3 cells at once with 1 GPUs each need more than the 2 of this machine"):
        reproduce(toy, rows=["small"], seeds=[0, 1], workers=3, machines=Machines(gpus=1))
    outcome = reproduce(toy, rows=["small"], seeds=[0, 1], machines=Machines(gpus=1), limits=Limits(seconds=60))
    assert outcome.complete, outcome.failed
    assert {entry.run.results["device"] for entry in outcome.planned if entry.run} == {5.0, 7.0}
