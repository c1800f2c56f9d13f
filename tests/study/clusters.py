"""What the tests of cells on other machines share: a checkout, and what a sweep must leave."""

import functools
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil

from lab.study import leases, store
from tests.conftest import TOY_CODE, write_notebook, write_toy_project

DRIVER = [sys.executable, "-c", "from lab import cli; cli.main()"]


def write_checkout(root: Path, seconds: float = 1.0) -> Path:
    """The toy's checkout; its cells take some time, and write a line into finished.txt when they end.

    None ends while there is a file `hold`.
    """
    write_toy_project(root)
    code = TOY_CODE.replace(
        "run.finish()",
        f'time.sleep({seconds})\nwhile Path("hold").exists():\n    time.sleep(0.1)\nrun.finish()\n',
    )
    trace = 'with open("finished.txt", "a") as file:\n    file.write(f"{size} {seed}\\n")\n'
    write_notebook(root / "notebooks" / "toy.ipynb", code=code + trace)
    return root


def finished(root: Path) -> Counter[str]:
    """How often the notebook of each cell (size and seed) came to its end."""
    path = root / "finished.txt"
    return Counter(path.read_text().splitlines() if path.exists() else [])


def cell_runs() -> list[store.RunRecord]:
    return [run for run in store.read_runs() if run.tags.get("kind") == "cell"]


def assert_whole(run: store.RunRecord, points: int = 3) -> None:
    """A finished run has every metric once, and its artifacts on this machine's disk."""
    assert run.status == "FINISHED"
    assert {"test_character_error_rate", "steps_done"} == run.results.keys()
    for name in ("notebook.ipynb", "utterances.parquet", "ingredients.json"):
        assert run.artifact(name).exists(), name
    with closing(sqlite3.connect(store.database())) as connection:
        rows = connection.execute("SELECT key, step FROM metrics WHERE run_uuid = ?", (run.run_id,)).fetchall()
    expected = [("steps_done", 0), ("test_character_error_rate", 0), *(("train_loss", step) for step in range(points))]
    assert sorted(rows) == expected


def assert_nothing_is_open() -> None:
    """No run says RUNNING, and no cell has a lease."""
    assert [run.tags.get("row", "study") for run in store.read_runs() if run.status == "RUNNING"] == []
    assert not leases.folder().exists() or list(leases.folder().iterdir()) == []


def start(command: list[str]) -> "subprocess.Popen[str]":
    """Start a sweep that can be stopped with Ctrl-C."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Where the tests are a shell's background job they, and so the driver, were started with SIGINT ignored.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def on_a_quiet_machine(seconds: float) -> float:
    """How long it may take here what takes so long where nothing else computes."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def processes(word: str) -> list[psutil.Process]:
    """Those of this user that have the word in their command."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(word in part for part in process.info["cmdline"] or []):
            found.append(process)
    return found


def workers_of(checkout: Path) -> list[psutil.Process]:
    """The processes that run cells of that checkout: other sweeps may run on this machine."""
    found = []
    for process in processes("lab.study.worker"):
        with suppress(psutil.NoSuchProcess):
            if process.environ().get("OMNI_LAB_CHECKOUT") == str(checkout.resolve()):
                found.append(process)
    return found
