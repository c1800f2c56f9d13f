import builtins
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab import paths
from lab.errors import LabError
from lab.study import clusters, sweep, tracking
from lab.study.ablation import load_ablation
from lab.study.machines import Machines
from lab.study.sweep import reproduce
from tests.conftest import TOY_CODE, write_notebook
from tests.study.clusters import (
    DRIVER,
    assert_nothing_is_open,
    assert_whole,
    cell_runs,
    finished,
    on_a_quiet_machine,
    processes,
    start,
    wait_for,
    workers_of,
    write_checkout,
)


@dataclass
class Nodes:
    """A Ray cluster of nodes of one CPU on this machine, and the checkout that its nodes have."""

    cluster: Any
    checkout: Path
    mlruns: Path

    def add(self, checkout: Path | None = None) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMNI_LAB_CHECKOUT", str(checkout or self.checkout))
            patch.setenv("OMNI_LAB_MLRUNS", str(self.mlruns))
            patch.setenv("OMNI_LAB_CACHE", str(self.mlruns / "cache"))
            return self.cluster.add_node(num_cpus=1, object_store_memory=80 << 20, include_dashboard=False)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def kill(self, node: Any) -> list[psutil.Process]:
        """The node as a power cut would leave it; returns the processes of cells that had been on it."""
        (raylet,) = [psutil.Process(info.process.pid) for info in node.all_processes["raylet"]]
        family = raylet.children(recursive=True)
        workers = [process for process in family if not any("lab.study.worker" in part for part in process.cmdline())]
        for process in [raylet, *workers]:
            process.kill()
        return family


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    folder = tmp_path_factory.mktemp("nodes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        made = Nodes(cluster_utils.Cluster(), write_checkout(folder / "checkout", seconds=1.0), folder / "mlruns")
        made.add()
        yield made
        made.cluster.shutdown()


@pytest.fixture
def driver(nodes: Nodes, monkeypatch: pytest.MonkeyPatch, store_maker: Callable[[], None]) -> Nodes:
    """This process as the driver, with a store of its own and the nodes' checkout."""
    monkeypatch.setenv("OMNI_LAB_CHECKOUT", str(nodes.checkout))
    store_maker()
    return nodes


@pytest.mark.slow
def test_a_node_that_dies_in_mid_sweep_loses_nothing_and_no_cell_is_done_twice(
    driver: Nodes, capsys: pytest.CaptureFixture[str]
) -> None:
    doomed, third = driver.add(), driver.add()
    name = f"({doomed.node_id[:8]})"

    # A cell whose notebook ends while its node is killed may rightly be done twice: none does.
    hold = driver.checkout / "hold"
    hold.touch()

    def kill() -> None:
        try:
            wait_for(lambda: [run for run in cell_runs() if name in run.tags["node"] and run.status == "RUNNING"])
            psutil.wait_procs(driver.kill(doomed), timeout=60)
        finally:
            hold.unlink()

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = reproduce(
        load_ablation("toy"), rows=["small", "large"], seeds=[0, 1], machines=Machines(ray=driver.address)
    )
    killer.join()
    driver.cluster.remove_node(doomed, allow_graceful=False)
    driver.cluster.remove_node(third)
    assert outcome.complete, outcome.failed
    done = [run for run in cell_runs() if run.status == "FINISHED"]
    assert sorted((run.tags["row"], run.tags["seed"]) for run in done) == [
        (row, str(seed)) for row in ("large", "small") for seed in (0, 1)
    ]
    for run in done:
        assert_whole(run)
        copy = f"{run.tags['row']}-{run.tags['seed']}-{run.tags['key']}.ipynb"
        assert (paths.mlruns_dir() / "notebooks" / "toy" / copy).exists()
    (lost,) = [run for run in cell_runs() if run.status != "FINISHED"]
    assert lost.status == "FAILED"
    assert name in lost.tags["error"]
    assert "died" in lost.tags["error"]
    assert "died; tried again in 5 s" in capsys.readouterr().out
    assert finished(driver.checkout) == Counter(f"{size} {seed}" for size in (1, 4) for seed in (0, 1))
    assert_nothing_is_open()
    assert len({run.tags["node"] for run in done}) >= 2


@pytest.mark.slow
def test_ctrl_c_stops_the_nodes_within_ten_seconds_and_the_next_call_goes_on(driver: Nodes) -> None:
    command = [*DRIVER, "reproduce", "toy", "--rows", "slow", "--seeds", "0,1", "--ray", driver.address]
    sweeping = start(command)
    try:
        wait_for(lambda: [run for run in cell_runs() if run.status == "RUNNING"], 90)
        before = workers_of(driver.checkout)
        assert before
        begun = time.monotonic()
        sweeping.send_signal(signal.SIGINT)
        printed, _ = sweeping.communicate(timeout=120)
    finally:
        sweeping.kill()
    assert time.monotonic() - begun < on_a_quiet_machine(10), printed
    assert sweeping.returncode == 130, printed
    wait_for(lambda: not workers_of(driver.checkout) and not processes("tracking_server"), 10)
    assert {run.status for run in cell_runs()} == {"KILLED"}
    assert_nothing_is_open()
    (planned, *_) = sweep.status(load_ablation("toy"), "cpu", ["slow"], [0])
    assert planned.to_do


def test_ray_that_was_left_is_no_cluster_of_its_own() -> None:
    code = "from lab.study.clusters import _import_ray; _import_ray().put(1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "Ray has not been started yet" in done.stderr


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_no_process_and_its_runs_are_closed_by_the_next(driver: Nodes) -> None:
    command = [*DRIVER, "reproduce", "toy", "--rows", "slow", "--seeds", "0", "--ray", driver.address]
    sweeping = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: [run for run in cell_runs() if run.status == "RUNNING"], 90)
    finally:
        sweeping.kill()
        sweeping.wait()
    wait_for(lambda: not workers_of(driver.checkout) and not processes("tracking_server"), 30)
    assert {run.status for run in cell_runs()} == {"RUNNING"}
    tracking.close_abandoned()  # what the next sweep does first
    (killed,) = cell_runs()
    assert killed.status == "KILLED"
    assert "died" in killed.tags["error"]


@pytest.mark.slow
def test_a_node_with_another_checkout_refuses_its_cell_which_another_node_then_runs(
    driver: Nodes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_checkout(tmp_path / "other")
    write_notebook(other / "notebooks" / "toy.ipynb", code=TOY_CODE.replace("0.25 / size", "0.26 / size"))
    strange = driver.add(other)
    name = f"({strange.node_id[:8]})"
    try:
        toy, machines = load_ablation("toy"), Machines(ray=driver.address)
        outcome = reproduce(toy, rows=["large"], seeds=[5, 6], machines=machines)
        assert outcome.complete, outcome.failed
        refused = [run for run in cell_runs() if run.status == "FAILED"]
        assert len(refused) == 1
        assert name in refused[0].tags["node"]
        assert "it would run another cell than the one asked for: notebook: " in refused[0].tags["error"]
        assert (
            "; bring its checkout, packages and data to the driver's state; tried again in 0 s"
            in capsys.readouterr().out
        )
        assert not finished(other)
        assert_nothing_is_open()
    finally:
        driver.cluster.remove_node(strange)


@pytest.mark.slow
def test_a_cluster_that_cannot_take_a_cell_is_refused(nodes: Nodes) -> None:
    with pytest.raises(LabError, match=r"no node of the Ray cluster at .* has 1 CPU and 2 GPUs for a cell; its nodes"):
        clusters.check_ray(nodes.address, 2)
    assert clusters.check_ray(nodes.address, 0) >= 1


def test_an_address_without_a_cluster_is_refused_before_anything_is_prepared(
    toy_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")

    def prepare(parameters: list[dict[str, Any]]) -> dict[str, Any]:
        raise AssertionError("must not be called")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address, message in [
        (
            f"127.0.0.1:{port}",
            f"no Ray cluster can be reached at 127.0.0.1:{port} .*; expected HOST:PORT of the head node",
        ),
        ("ray://head:10001", "the Ray address is 'ray://head:10001'; expected HOST:PORT of the head node"),
        ("head", "the Ray address is 'head'; expected HOST:PORT"),
    ]:
        with pytest.raises(LabError, match=message):
            reproduce(load_ablation("toy"), machines=Machines(ray=address), prepare=prepare)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(clusters, "CHECK_SECONDS", 2.0)
        with pytest.raises(LabError, match="does not answer as a Ray cluster of which this machine is a node"):
            clusters.check_ray(f"127.0.0.1:{silent.getsockname()[1]}", 0)
    assert not paths.mlruns_dir().exists()


def test_another_version_of_ray_is_told() -> None:
    printed = (
        "Traceback\nRuntimeError: Version mismatch: The cluster was started with:\n"
        "    Ray: 2.50.0\n    Python: 3.12.1\n"
        "This process on node 10.0.0.2 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    told = clusters._said(printed)
    assert told.startswith("RuntimeError: Version mismatch")
    assert "Ray: 2.50.0 Python: 3.12.1" in told


def test_a_missing_ray_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(LabError, match=r"--ray needs the package ray, which is missing: pip install -e '\.\[ray\]'"):
        clusters.check_ray("127.0.0.1:6379", 0)


def test_room_is_counted_by_cpus_and_gpus() -> None:
    node = {"CPU": 8.0, "GPU": 4.0}
    assert [clusters._room(node, gpus) for gpus in (0, 1, 2, 3, 0.5, 0.3)] == [8, 4, 2, 1, 8, 8]
    assert clusters._room({"CPU": 2.0, "GPU": 4.0}, 1) == 2
    assert clusters._room({"CPU": 2.0}, 1) == clusters._room({"GPU": 1.0}, 1) == 0
