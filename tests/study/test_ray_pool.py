import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.study import store
from lab.study.ablation import load_ablation
from lab.study.machines import Machines
from lab.study.sweep import reproduce
from tests.study.clusters import (
    assert_nothing_is_open,
    assert_whole,
    cell_runs,
    finished,
    wait_for,
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
        workers = [process for process in family if not any("remote_worker" in part for part in process.cmdline())]
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
        made = Nodes(cluster_utils.Cluster(), write_checkout(folder / "checkout", seconds=2.0), folder / "mlruns")
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
    doomed, _ = driver.add(), driver.add()
    name = f"({doomed.node_id[:8]})"

    def kill() -> None:
        wait_for(lambda: [run for run in cell_runs() if name in run.tags["node"] and run.status == "RUNNING"])
        driver.kill(doomed)

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = reproduce(
        load_ablation("toy"), rows=["small", "large"], seeds=[0, 1, 2], machines=Machines(ray=driver.address)
    )
    killer.join()
    driver.cluster.remove_node(doomed, allow_graceful=False)
    assert outcome.complete, outcome.failed
    done = [run for run in cell_runs() if run.status == "FINISHED"]
    assert sorted((run.tags["row"], run.tags["seed"]) for run in done) == [
        (row, str(seed)) for row in ("large", "small") for seed in (0, 1, 2)
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
    assert finished(driver.checkout) == Counter(f"{size} {seed}" for size in (1, 4) for seed in (0, 1, 2))
    assert_nothing_is_open()
    assert len({run.tags["node"] for run in done}) >= 2
