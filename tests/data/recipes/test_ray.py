"""The same recipe on real Ray clusters of this machine gives the same rows, and a node that dies loses none."""

import builtins
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tqdm import tqdm

from lab.data.recipes import engines
from lab.data.recipes.run import build
from lab.errors import LabError
from tests.data.recipe_files import ALL_STEPS, hash_folder, planted_rows, toy_recipe, write_rows


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head node of one CPU; tests add further ones."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed: pip install -e '.[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        made = cluster_utils.Cluster()
        add_node(made)
        yield made
        made.shutdown()


def add_node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=80 << 20, include_dashboard=False)


def kill(node: Any) -> None:
    """The node as a power cut would leave it."""
    (raylet,) = [psutil.Process(info.process.pid) for info in node.all_processes["raylet"]]
    for process in [raylet, *raylet.children(recursive=True)]:
        process.kill()


@pytest.fixture
def on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A folder with rows, and the hash that the local engine gives; the cache is empty again."""
    write_rows(tmp_path / "rows.jsonl", planted_rows(110))
    _, card = build(toy_recipe(tmp_path, ALL_STEPS), workers=1, out=tmp_path / "local")
    monkeypatch.setenv("OMNI_LAB_CACHE", str(tmp_path / "cache-of-the-cluster"))
    return tmp_path, card["rows_hash"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_nodes_give_the_same_rows_as_one_process(cluster: Any, on_this_machine: tuple[Path, str]) -> None:
    folder, expected = on_this_machine
    second = add_node(cluster)
    try:
        out, card = build(toy_recipe(folder, ALL_STEPS), engine="ray", address=cluster.address, out=folder / "ray")
    finally:
        cluster.remove_node(second)
    assert card["engine"] == "ray"
    assert not any(step["cached"] for step in card["steps"])
    assert card["rows_hash"] == expected == hash_folder(out)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_that_is_killed_in_mid_recipe_loses_no_row(cluster: Any, on_this_machine: tuple[Path, str]) -> None:
    folder, _ = on_this_machine
    doomed = add_node(cluster)
    recipe = toy_recipe(folder, ALL_STEPS, shard_rows=10)
    local, whole = build(recipe, workers=1, out=folder / "ten")  # other shards, so other packs
    hashed = hash_folder(local)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNI_LAB_CACHE", str(folder / "third-cache"))
        begun = threading.Event()
        killer = threading.Thread(target=lambda: (begun.wait(600), kill(doomed)))
        killer.start()

        class Beginning(tqdm):
            def update(self, n: float = 1) -> None:
                super().update(n)
                if self.desc.startswith("step 1") and self.n == 2:
                    begun.set()
                    time.sleep(0.2)

        patch.setattr(engines, "tqdm", Beginning)
        out, card = build(recipe, engine="ray", address=cluster.address, out=folder / "ray")
        killer.join()
    cluster.remove_node(doomed, allow_graceful=False)
    assert hash_folder(out) == card["rows_hash"] == whole["rows_hash"] == hashed
    assert card["rows_in"] == card["rows"] + card["dropped"] == 110


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_a_node_finds_wrong_is_one_sentence_here(cluster: Any, on_this_machine: tuple[Path, str]) -> None:
    folder, _ = on_this_machine
    # Its first rows, which are looked at here, can be text.
    table = pa.table({"prompt": ["a"] * 20_000, "answer": [b"b"] * 19_999 + [b"\xff"]})
    pq.write_table(table, folder / "late.parquet", row_group_size=10_000)
    with pytest.raises(LabError, match=r"column 'answer' of .*late\.parquet is binary, expected string"):
        build(toy_recipe(folder, paths=("late.parquet",)), engine="ray", address=cluster.address)


def test_a_missing_ray_is_told_with_its_extra(
    on_this_machine: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(
        LabError, match=r"--engine ray needs the package ray, which is missing: pip install -e '\.\[ray\]'"
    ):
        build(toy_recipe(on_this_machine[0], ALL_STEPS), engine="ray")
