"""One worker of a sweep: a process that runs cells, one after another, with papermill.

It reads jobs as JSON lines and answers with events as JSON lines. The end of its input is the order to stop, so it
stops too when the sweep itself was killed. One process a notebook at a time, as papermill's `cwd=` changes the
directory of the whole process.
"""

import json
import os
import queue
import re
import shutil
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.study import claims, store
from lab.study.cells import Cell

if TYPE_CHECKING:
    from lab.study.tracking import Recorder


def kill_children(pid: int | None = None) -> None:
    """Kill every process below `pid` (this one's where None); kernels have sessions of their own."""
    import psutil

    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for child in children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue


class Orders:
    """The jobs from the input, and the order to stop, which kills the kernel that is running."""

    def __init__(self, descriptor: int) -> None:
        self.stopping = threading.Event()
        self.jobs: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.ready = False
        self._descriptor = descriptor
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        # Not sys.stdin: Python cannot exit while a thread holds its lock.
        pending = b""
        while chunk := os.read(self._descriptor, 65536):
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                self.jobs.put(json.loads(line))
        self.stopping.set()
        self.jobs.put(None)
        if not self.ready:
            os._exit(0)  # nothing was begun; the imports need not be waited for
        while True:  # a kernel may just be starting
            kill_children()
            time.sleep(0.2)


def _reason(error: Exception) -> str:
    """A failed notebook's last line, without terminal colours."""
    name = getattr(error, "ename", None) or type(error).__name__
    value = getattr(error, "evalue", None)
    if value is None:
        value = str(error)
    text = value if name == "LabError" else f"{name}: {value}"
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()


def run_cell(job: dict[str, Any], recorder: "Recorder", owner: dict[str, str], orders: Orders) -> dict[str, Any]:
    """Claim a cell and run it to its end, whatever that is; returns the event for the sweep.

    A cell that another sweep runs, or has finished since ours was planned, is left alone.
    """
    cell = Cell(**job["cell"])
    begun = time.monotonic()
    try:
        if not claims.claim(cell.key, cell.title, owner):
            return {"event": "elsewhere", "id": job["id"]}
        try:
            if store.is_done(cell.key):
                return {"event": "elsewhere", "id": job["id"]}
            event = run_claimed(job, cell, recorder, owner, orders)
        finally:
            claims.release(cell.key, owner)
    except LabError as error:
        event = {"event": "finished", "status": "FAILED", "error": str(error), "run_id": "", "results": {}}
    return {**event, "id": job["id"], "seconds": time.monotonic() - begun}


def run_claimed(
    job: dict[str, Any], cell: Cell, recorder: "Recorder", owner: dict[str, str], orders: Orders
) -> dict[str, Any]:
    """Run one cell in a run of its own, and close that."""
    import papermill

    run_id = recorder.start_cell(cell, {**job["tags"], **owner}, job["parent"])
    emit({"event": "started", "id": job["id"], "run_id": run_id})
    spool, executed = store.spool_dir(run_id), Path(job["executed"])
    executed.parent.mkdir(parents=True, exist_ok=True)
    done = threading.Event()

    def publish() -> None:
        while not done.wait(claims.BEAT_SECONDS):
            recorder.publish(run_id)
            with suppress(LabError):  # the claim itself tells what is wrong
                claims.beat(owner)

    publisher = threading.Thread(target=publish, daemon=True)
    publisher.start()
    status, error = "FINISHED", ""
    try:
        if not orders.stopping.is_set():
            papermill.execute_notebook(
                job["notebook"],
                str(executed),
                parameters={**cell.parameters, "run_id": run_id},
                cwd=str(Path(job["notebook"]).parent),
                progress_bar=False,
            )
            if not (spool / "results.json").exists():
                status, error = "FAILED", "the notebook came to its end without run.set_results(...)"
    except Exception as raised:
        status, error = "FAILED", _reason(raised)
        (spool / "artifacts" / "error.txt").write_text(str(raised), encoding="utf-8")
    if orders.stopping.is_set() and not (status == "FINISHED" and (spool / "results.json").exists()):
        status, error = "KILLED", "the sweep was stopped"
    done.set()
    publisher.join()
    if executed.exists():
        shutil.copyfile(executed, spool / "artifacts" / "notebook.ipynb")
    results = recorder.finish(run_id, status, error)
    return {
        "event": "finished",
        "run_id": run_id,
        "status": status,
        "error": error,
        "results": results,
    }


_events: Any = None


def emit(event: dict[str, Any]) -> None:
    """Tell the sweep; one that is gone is no reason to leave a run open."""
    with suppress(BrokenPipeError):
        _events.write(json.dumps(event) + "\n")
        _events.flush()


def main() -> None:
    """Work until the input ends."""
    global _events
    # Events go to the real output alone; whatever a library or a kernel prints goes to the log.
    _events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    orders = Orders(0)
    store.quiet_mlflow()
    from lab.study.forked_kernels import use_forked_kernels

    template = use_forked_kernels(sys.argv[1:])
    import papermill  # noqa: F401  (2.6 s, before the first cell's time counts)

    from lab.study.tracking import Recorder

    recorder = Recorder()
    if template is not None:
        template.is_safe()  # the same: the first cell should not be the slow one
    with store.owner() as owner:
        orders.ready = True
        emit({"event": "ready"})
        while (job := orders.jobs.get()) is not None:
            emit(run_cell(job, recorder, owner, orders))
            if orders.stopping.is_set():
                break
    sys.stderr.flush()
    os._exit(0)  # the reading thread would kill nothing more, and exit handlers of the libraries cost 0.3 s


if __name__ == "__main__":
    main()
