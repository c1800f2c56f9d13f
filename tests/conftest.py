"""Fixtures for every room: nothing a test does reaches the user's cache, the user's runs or this checkout."""

import io
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lab import paths
from lab.study import identity, store
from lab.study.ablation import load_ablation
from lab.study.definitions import digest
from lab.study.plan import Display
from lab.study.sweep import Outcome, reproduce

TOY_ABLATION = """
from dataclasses import dataclass

from lab.study.ablation import Ablation, Column, Reported, Row, Rung
from lab.training.parameters import Parameters


@dataclass(frozen=True, kw_only=True)
class ToyParameters(Parameters):
    size: int = 1
    noise: float = 0.5
    mode: str = "plain"
    steps: int = 3


ablation = Ablation(
    name="toy",
    paper="Table 0",
    claim="A toy's error falls with its size.",
    notebook="toy",
    seeds=(0, 1),
    base=ToyParameters(),
    rungs=(
        Rung(name="cpu", description="as it is"),
        Rung(name="smoke", description="hardly anything", changes={"steps": 1}, recorded=False),
    ),
    rows=(
        Row(key="small", label="Small", changes={}),
        Row(key="large", label="Large", changes={"size": 4}, cost=2.0),
        Row(key="broken", label="Broken", changes={"mode": "fail"}, main=False),
        Row(key="slow", label="Slow", changes={"mode": "sleep"}, main=False),
        Row(key="silent", label="Silent", changes={"mode": "silent"}, main=False),
        Row(key="flaky", label="Flaky", changes={"mode": "flaky"}, main=False),
    ),
    columns=(Column(metric="test_character_error_rate", label="CER", unit="%", better="lower", scale=100.0),),
    reported=(Reported(row="small", metric="test_character_error_rate", value=None, source="not found"),),
)


def prepare(parameters_of_cells):
    return {"corpus": "c0ffee", "mode": {name: name.upper() for name in ("plain", "fail", "sleep", "silent", "flaky")}}
"""

TOY_PARAMETERS = """\
size: int = 1  # as large as the toy is
noise: float = 0.1  # standard deviation
mode: str = "plain"  # plain, fail, sleep, silent or flaky
steps: int = 2  # points of the curve
seed: int = 0
run_id: str = ""  # given by the sweep
"""

TOY_CODE = """\
import time
from pathlib import Path
import pandas
from lab.errors import LabError
from lab.study.tracking import cell_run

run = cell_run(run_id, {"size": size, "noise": noise, "mode": mode, "steps": steps, "seed": seed})
run.log_metrics({"train_loss": [(step, 1.0 / (step + 1)) for step in range(steps)]})
if mode == "sleep":
    time.sleep(600)
if mode == "flaky" and not Path("tried").exists():
    Path("tried").touch()
    raise ConnectionError("the hub is away")
if mode == "fail":
    raise LabError("the loss is nan at step 3")
run.log_table(pandas.DataFrame({"id": ["a", "b"], "character_errors": [size, seed]}))
if mode != "silent":
    run.set_results({"test_character_error_rate": 0.25 / size + seed / 100, "steps_done": steps})
run.finish()
"""


def _code_cell(source: str, *tags: str) -> dict[str, object]:
    metadata = {"tags": list(tags)} if tags else {}
    return {"cell_type": "code", "execution_count": None, "metadata": metadata, "outputs": [], "source": source}


def write_notebook(path: Path, parameters: str = TOY_PARAMETERS, code: str = TOY_CODE, tag: str = "parameters") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {
        "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": "Does a toy learn?"},
            _code_cell(parameters, tag),
            _code_cell(code),
        ],
        "metadata": {"kernelspec": kernelspec},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def saved_elsewhere(path: Path) -> dict[str, Any]:
    """Write the notebook as JupyterLab saves it after it was run with another environment's kernel, and by papermill.

    A cell is appended by Shift-Enter. Older notebooks have no ids, null for tags, and some editors a byte-order mark.
    """
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for number, cell in enumerate(content["cells"]):
        cell["metadata"] |= {"collapsed": False, "trusted": True, "jupyter": {"source_hidden": True}, "editable": True}
        if cell["cell_type"] == "code":
            shown = {"output_type": "stream", "name": "stdout", "text": ["of an earlier run\n"]}
            cell |= {"execution_count": number, "outputs": [shown]}
    content["cells"] += [
        _code_cell("size = 7", "injected-parameters"),
        {"cell_type": "raw", "metadata": {}, "source": "notes"},
        {"cell_type": "markdown", "metadata": {"tags": None}, "attachments": {}, "source": "# More"},
        _code_cell("") | {"execution_count": 9, "metadata": {"tags": None}},
    ]
    content["metadata"] = {
        "kernelspec": {"display_name": "mine (conda)", "name": "conda-env-mine-py"},
        "language_info": {"name": "python", "version": "3.12.1", "pygments_lexer": "ipython3"},
        "widgets": {},
    }
    path.write_text(json.dumps(content, indent=1), encoding="utf-8-sig")
    return content


def write_toy_project(root: Path) -> Path:
    """A checkout with one ablation, `toy`, whose cells take no time."""
    (root / "ablations").mkdir(parents=True)
    (root / "ablations" / "toy.py").write_text(TOY_ABLATION, encoding="utf-8")
    write_notebook(root / "notebooks" / "toy.ipynb")
    return root


@pytest.fixture(scope="session")
def user_cache_dir() -> Path:
    """The real cache, for a test that needs weights or corpora and skips where they are not there."""
    return _USER_CACHE


_USER_CACHE = paths.cache_dir()


@pytest.fixture(autouse=True)
def isolated_dirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`OMNI_LAB_CACHE` and `OMNI_LAB_MLRUNS` in the test's own folder."""
    monkeypatch.setenv("OMNI_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMNI_LAB_MLRUNS", str(tmp_path / "mlruns"))


@pytest.fixture(scope="session")
def packages(user_cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where packages lie: the user's, or a folder of this run that its workers share, so that none is fetched twice."""
    if (user_cache_dir / "packages").is_dir():
        return user_cache_dir / "packages"
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "packages"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def shared_packages(packages: Path, isolated_dirs: None) -> None:
    """For a test that fetches: its cache has the packages of the others."""
    paths.cache_dir().mkdir(parents=True)
    (paths.cache_dir() / "packages").symlink_to(packages)


@pytest.fixture(scope="session")
def store_maker(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], None]:
    """A function that puts a migrated, empty store into the current mlruns; MLflow's own migrations take 3 to 7 s."""
    template = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNI_LAB_MLRUNS", str(template))
        store.ensure_store()

    def make() -> None:
        paths.mlruns_dir().mkdir(parents=True, exist_ok=True)
        with (
            closing(sqlite3.connect(template / "mlflow.db")) as source,
            closing(sqlite3.connect(store.database())) as target,
        ):
            source.backup(target)
            location = (paths.mlruns_dir().resolve() / "artifacts").as_uri()
            target.execute("UPDATE experiments SET artifact_location = ? WHERE name = ?", (location, store.EXPERIMENT))
            target.commit()
            target.execute("PRAGMA journal_mode = WAL")

    return make


def toy_code(root: Path) -> dict[str, str]:
    """The toy's cells are made of its declaration alone."""
    return {"toy": digest((root / "ablations" / "toy.py").read_text(encoding="utf-8"))}


def use_checkout(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Put that checkout in place of this one; the toy's identity depends on none of our modules."""
    patch.setattr(paths, "repository_root", lambda: root)
    patch.setattr(identity, "reached_by_notebook", lambda notebook: lambda parameters: toy_code(root))


@pytest.fixture
def toy_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy checkout in place of this one, without a store."""
    root = write_toy_project(tmp_path / "checkout")
    use_checkout(root, monkeypatch)
    return root


@pytest.fixture(scope="session")
def finished_sweep(
    tmp_path_factory: pytest.TempPathFactory, store_maker: Callable[[], None]
) -> Iterator[tuple[Path, Outcome, str]]:
    """A sweep of four toy cells, two of which fail: its folder (checkout and mlruns), outcome and printed lines."""
    folder = tmp_path_factory.mktemp("study")
    root = write_toy_project(folder / "checkout")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNI_LAB_MLRUNS", str(folder / "mlruns"))
        patch.setenv("OMNI_LAB_CACHE", str(folder / "cache"))
        use_checkout(root, patch)
        store_maker()
        ablation = load_ablation("toy")
        rows = ["small", "large", "broken", "silent"]
        outcome = reproduce(ablation, rows=rows, seeds=[0], workers=2, display=Display(ablation, "cpu", file=printed))
    return folder, outcome, printed.getvalue()


@pytest.fixture
def swept(finished_sweep: tuple[Path, Outcome, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the finished sweep, with its checkout and mlruns in place of ours."""
    folder = finished_sweep[0]
    monkeypatch.setenv("OMNI_LAB_MLRUNS", str(folder / "mlruns"))
    use_checkout(folder / "checkout", monkeypatch)
    return folder


CRONTAB = """#!/bin/sh
# A crontab command that keeps its table in a file.
if [ "$1" = -l ]; then cat "$TABLE" 2>/dev/null || { echo "no crontab for me" >&2; exit 1; }; else cat > "$TABLE"; fi
"""


@pytest.fixture
def crontab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The table of a crontab command that stands in for the machine's; it is not there yet."""
    program, table = tmp_path / "bin" / "crontab", tmp_path / "table"
    program.parent.mkdir()
    program.write_text(CRONTAB)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TABLE", str(table))
    return table
