import builtins
import os
import re
import signal
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import paths
from lab.errors import LabError
from lab.study import clusters, driver
from lab.study.ablation import load_ablation
from lab.study.machines import Machines
from lab.study.sweep import reproduce
from lab.study.tracking_server import TrackingServer
from tests.study.clusters import (
    DRIVER,
    assert_nothing_is_open,
    assert_whole,
    cell_runs,
    on_a_quiet_machine,
    processes,
    start,
    wait_for,
    workers_of,
    write_checkout,
)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_maker: Callable[[], None]) -> Path:
    pytest.importorskip("submitit")
    root = write_checkout(tmp_path / "checkout", seconds=2.0)
    monkeypatch.setenv("OMNI_LAB_CHECKOUT", str(root))
    store_maker()
    return root


@pytest.mark.slow
def test_jobs_write_through_a_server_that_the_user_started_and_one_that_fails_leaves_the_others_alone(
    checkout: Path,
) -> None:
    server = TrackingServer("127.0.0.1")
    try:
        machines = Machines(slurm="local", slurm_options=("timeout_min=10",), tracking_uri=server.wait() + "/")
        outcome = reproduce(load_ablation("toy"), rows=["small", "broken"], seeds=[0], machines=machines)
    finally:
        server.stop()
    assert {entry.cell.row: entry.state for entry in outcome.planned} == {"small": "done", "broken": "failed"}
    assert outcome.failed == {"broken, seed 0": "the loss is nan at step 3"}
    done, failed = sorted(cell_runs(), key=lambda run: run.status, reverse=True)
    assert_whole(done)
    assert failed.tags["error"] == "the loss is nan at step 3"
    assert "LabError" in failed.artifact("error.txt").read_text()
    assert_nothing_is_open()


@pytest.mark.slow
def test_ctrl_c_stops_the_jobs_within_ten_seconds(checkout: Path) -> None:
    sweeping = start([*DRIVER, "reproduce", "toy", "--rows", "slow", "--seeds", "0", "--slurm", "local"])
    try:
        wait_for(lambda: [run for run in cell_runs() if run.status == "RUNNING"], 90)
        begun = time.monotonic()
        sweeping.send_signal(signal.SIGINT)
        printed, _ = sweeping.communicate(timeout=120)
    finally:
        sweeping.kill()
    assert time.monotonic() - begun < on_a_quiet_machine(10), printed
    assert sweeping.returncode == 130, printed
    wait_for(lambda: not workers_of(checkout) and not processes("submitit"), 10)
    assert {run.status for run in cell_runs()} == {"KILLED"}
    assert_nothing_is_open()


@pytest.mark.slow
def test_a_job_that_dies_is_told_with_its_log_and_tried_again(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "PAUSES", (0.1,))

    def kill() -> None:
        wait_for(lambda: [run for run in cell_runs() if run.status == "RUNNING"], 90)
        for process in processes("submitit.core._submit"):
            process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = reproduce(load_ablation("toy"), rows=["small"], seeds=[0], machines=Machines(slurm="local"))
    killer.join()
    assert outcome.complete
    assert re.search(
        r"small, seed 0: its job \d+ ended as \w+ \(log: .*_log.err\); tried again", capsys.readouterr().out
    )
    assert sorted(run.status for run in cell_runs()) == ["FAILED", "FINISHED"]
    assert_nothing_is_open()


SLURM = {
    # sbatch runs the script at once, srun the command after its options; sacct knows of no end but by the events.
    # Like the real one it runs a copy: submitit renames the script as soon as it is told the job's number.
    "sbatch": """
        cp "$1" "$1.$$"
        export SLURM_JOB_ID=$$ SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0
        setsid sh "$1.$$" > /dev/null 2>&1 &
        echo "Submitted batch job $$"
        """,
    "srun": """
        while case "$1" in --output|--error) shift 2 ;; -*) shift ;; *) false ;; esac; do :; done
        exec "$@"
        """,
    "sacct": "printf 'JobID|State|NodeList\\n'",
    "scancel": "exit 0",
}


@pytest.mark.slow
def test_a_cell_is_a_job_of_slurm(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    for name, script in SLURM.items():
        path = tmp_path / "bin" / name
        path.write_text("#!/bin/sh\n" + textwrap.dedent(script))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(clusters, "_address", lambda: "127.0.0.1")
    monkeypatch.setattr(clusters, "ASK_SECONDS", 1.0)
    options = ("slurm_partition=gpu", "timeout_min=600")
    outcome = reproduce(
        load_ablation("toy"),
        rows=["small"],
        seeds=[0],
        machines=Machines(slurm="slurm", slurm_options=options, gpus=0.5),
    )
    assert outcome.complete, outcome.failed
    (run,) = cell_runs()
    assert_whole(run)
    assert re.fullmatch(r".+ \(job \d+\)", run.tags["node"])
    (submission,) = (paths.mlruns_dir() / "slurm").glob("*_submission.sh")
    for line in ("--partition=gpu", "--time=600", "--gpus-per-node=1", "--job-name=omni-lab"):
        assert f"#SBATCH {line}\n" in submission.read_text()
    assert_nothing_is_open()


def test_options_are_read_as_numbers_where_they_are_and_wrong_ones_are_refused() -> None:
    assert clusters._parameters(("slurm_partition=gpu", "timeout_min=600", "slurm_exclusive=true")) == {
        "slurm_partition": "gpu",
        "timeout_min": 600,
        "slurm_exclusive": True,
    }
    with pytest.raises(LabError, match="--slurm-option is 'partition'; expected NAME=VALUE"):
        clusters._parameters(("partition",))
    pytest.importorskip("submitit")
    with pytest.raises(LabError, match=r"submitit does not take these Slurm options: .*nodes_of_gold"):
        Machines(slurm="local", slurm_options=("nodes_of_gold=1",)).check()
    with pytest.raises(LabError, match="unknown cluster for --slurm: 'pbs'; choose one of: local, slurm"):
        Machines(slurm="pbs").check()


def test_a_machine_without_slurm_or_submitit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LabError, match="needs Slurm's sbatch and srun, which this machine has not"):
        Machines(slurm="slurm").check()
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "submitit":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(
        LabError, match=r"--slurm needs the package submitit, which is missing: pip install -e '.\[slurm"
    ):
        Machines(slurm="slurm").check()
    assert not (paths.mlruns_dir() / "mlflow.db").exists()
