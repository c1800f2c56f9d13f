"""What goes wrong around a sweep: a full or read-only disk, a ledger cut in half, a clock that jumps."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import cli, paths
from lab.errors import LabError
from lab.study import identity, leases, store, tracking
from lab.study.ablation import load_ablation
from lab.study.limits import Limits
from lab.study.plan import Display
from lab.study.reach import reached_by_notebook
from lab.study.sweep import _history, reproduce, status
from tests.study.clusters import wait_for
from tests.study.test_sweep import STUDY

ONE = {"rows": ["small"], "seeds": [0], "workers": 1}
MORE = {"rows": ["small"], "seeds": [0, 1], "workers": 1}


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk needs leave to mount one: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_maker: Callable[[], None]) -> Iterator[Path]:
    """A disk of 24 MB that holds the store, the toy's mlruns."""
    if not sys.platform.startswith("linux"):
        pytest.skip("a small disk is made with Linux's tmpfs")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder))
    try:
        monkeypatch.setenv("OMNI_LAB_MLRUNS", str(folder / "mlruns"))
        store_maker()
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb") as file:
        while True:
            try:
                os.write(file.fileno(), bytes(4096))
            except OSError:
                return filler


def states(**chosen: list[object]) -> list[str]:
    return [entry.state for entry in status(load_ablation("toy"), "cpu", **chosen)]  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_full_disk_is_one_clear_sentence_and_loses_nothing(toy_project: Path, small_disk: Path) -> None:
    toy = load_ablation("toy")
    assert reproduce(toy, **ONE).complete
    before = {run.run_id: run.results for run in store.read_runs()}
    filler = fill(small_disk)
    assert states(rows=["small"], seeds=[0, 1]) == ["done", "missing"]
    with pytest.raises((LabError, OSError), match=r"the disk is full|No space left"):
        reproduce(toy, **MORE)
    filler.unlink()
    assert reproduce(toy, **MORE).complete
    after = store.read_runs()
    assert before.items() <= {run.run_id: run.results for run in after}.items()
    finished = [run for run in after if run.tags.get("kind") == "cell" and run.status == "FINISHED"]
    assert sorted(run.tags["seed"] for run in finished) == ["0", "1"]
    assert not [run for run in after if run.status == "RUNNING"]


@pytest.mark.slow
def test_a_disk_that_fills_while_a_cell_runs_fails_it_and_the_next_sweep_goes_on(
    toy_project: Path, small_disk: Path
) -> None:
    toy = load_ablation("toy")
    sweep = {"rows": ["slow", "small"], "seeds": [0], "workers": 1, "limits": Limits(seconds=1.0, retries=0)}
    fillers: list[Path] = []

    def fill_when_it_runs() -> None:
        wait_for(lambda: [run for run in store.read_runs() if run.tags.get("row") == "slow"])
        fillers.append(fill(small_disk))

    filling = threading.Thread(target=fill_when_it_runs)
    filling.start()
    with pytest.raises((LabError, OSError), match=r"the disk is full|No space left"):
        reproduce(toy, **sweep, display=Display(toy, "cpu", file=open(os.devnull, "w")))  # noqa: SIM115
    filling.join()
    fillers[0].unlink()
    outcome = reproduce(toy, **ONE)
    assert outcome.complete
    assert {run.status for run in store.read_runs() if run.tags.get("row") == "slow"} <= {"KILLED", "FAILED"}
    assert not [run for run in store.read_runs() if run.status == "RUNNING"]


@pytest.mark.slow
def test_on_a_read_only_disk_status_tells_and_a_sweep_is_refused(
    toy_project: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(identity, "reached_by_notebook", reached_by_notebook)  # as the other process has it
    # By another process: this one would keep the store open, and the disk could not be made read-only.
    command = [sys.executable, "-c", STUDY, str(toy_project), "reproduce", "toy", "--rows", "small", "--seeds", "0"]
    subprocess.run(command, check=True, capture_output=True)
    mount("-o", "remount,ro", str(small_disk))
    assert states(rows=["small"], seeds=[0, 1]) == ["done", "missing"]
    monkeypatch.setattr(sys, "argv", ["lab", "reproduce", "toy", "--rows", "small", "--seeds", "0,1"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "the disk is read-only: make it writable" in told


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_store_cut_short_is_one_clear_sentence_and_stays_as_it_is(
    toy_project: Path, store_maker: Callable[[], None], share: float
) -> None:
    store_maker()
    whole = store.database().read_bytes()
    store.database().write_bytes(whole[: int(len(whole) * share)])
    for attempt in (lambda: reproduce(load_ablation("toy"), **ONE), store.read_runs):
        with pytest.raises(LabError, match=r"mlflow\.db cannot be used .*; restore it .*, or name another folder"):
            attempt()
    assert store.database().read_bytes() == whole[: int(len(whole) * share)]


@pytest.mark.slow
def test_where_no_lease_can_be_taken_no_cell_is_run_and_no_run_left_open(
    toy_project: Path, store_maker: Callable[[], None]
) -> None:
    store_maker()
    leases.folder().touch()
    with pytest.raises(LabError, match=r"the leases in .* cannot be written .* delete it"):
        reproduce(load_ablation("toy"), **ONE)
    assert [(run.tags.get("kind"), run.status) for run in store.read_runs()] == [("study", "FAILED")]
    leases.folder().unlink()
    assert reproduce(load_ablation("toy"), **ONE).complete


def test_a_run_that_a_clock_let_end_before_it_began_tells_nothing_of_the_time_cells_take(
    toy_project: Path, store_maker: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store_maker()
    recorder = tracking.Recorder()
    now = time.time()
    tags = {"kind": "cell", "ablation": "toy", "rung": "cpu", "row": "small", "seed": "0", "key": "k"}
    for begun, ended in ((now, now - 3600), (now, now + 7)):
        monkeypatch.setattr(time, "time", lambda begun=begun: begun)
        run_id = recorder.start("small, seed 0", {}, tags)
        monkeypatch.setattr(time, "time", lambda ended=ended: ended)
        recorder.finish(run_id, "FINISHED")
    assert _history(load_ablation("toy"), "cpu", store.read_runs()) == {"small": [pytest.approx(7, abs=0.01)]}
    assert paths.mlruns_dir().exists()
