"""One cell from its claim to its closed run: executed by papermill, watched, and tried again where that can help."""

import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.study import claims, golden, store
from lab.study.cells import Cell
from lab.study.limits import PASSING, PAUSES, Limits, Watch
from lab.study.readable import write_readable

if TYPE_CHECKING:
    import psutil

    from lab.study.tracking import Recorder

Event = dict[str, Any]
START_SECONDS = 300
"""A kernel that has not answered by then has failed its cell; one that died has at once."""


def reason_of(error: Exception) -> tuple[str, str]:
    """The name of a failed notebook's exception, and its last line without terminal colours."""
    name = getattr(error, "ename", None) or type(error).__name__
    value = getattr(error, "evalue", None)
    if value is None:
        value = str(error)
    text = value if name == "LabError" else f"{name}: {value}"
    return name, re.sub(r"\x1b\[[0-9;]*m", "", text).strip()


class Execution:
    """A worker's job: `run` returns the event that says how it ended; `emit` tells the sweep what happens before.

    `kernels` gives the processes of the kernel that runs, and `stopping` is set when the sweep is to end.
    """

    def __init__(
        self,
        job: Mapping[str, Any],
        recorder: "Recorder",
        owner: Mapping[str, str],
        stopping: threading.Event,
        emit: Callable[[Event], None],
        kernels: Callable[[], "list[psutil.Process]"],
    ) -> None:
        self._job, self._recorder, self._owner = job, recorder, owner
        self._stopping, self._emit, self._kernels = stopping, emit, kernels
        self._cell = Cell(**job["cell"])
        self._limits = Limits(**job["limits"])

    def run(self) -> Event:
        """Claim the cell and run it to its end, whatever that is.

        A cell that another sweep runs, or has finished since ours was planned, is left alone.
        """
        begun = time.monotonic()
        try:
            if not claims.claim(self._cell.key, self._cell.title, self._owner):
                return {"event": "elsewhere", "id": self._job["id"]}
            try:
                if store.is_done(self._cell.key):
                    return {"event": "elsewhere", "id": self._job["id"]}
                event = self._tries()
            finally:
                claims.release(self._cell.key, self._owner)
        except LabError as error:
            event = {"event": "finished", "status": "FAILED", "error": str(error), "run_id": "", "results": {}}
        return {**event, "id": self._job["id"], "seconds": time.monotonic() - begun}

    def _tries(self) -> Event:
        """Each try is a run of its own, so that what went wrong stays on record."""
        for tried in range(self._limits.retries + 1):
            event, passing = self._try()
            if event["status"] != "FAILED" or not passing or tried == self._limits.retries:
                break
            pause = PAUSES[min(tried, len(PAUSES) - 1)]
            self._emit({"event": "retrying", "id": self._job["id"], "error": event["error"], "seconds": pause})
            if self._pause(pause):
                break
        return event

    def _pause(self, seconds: float) -> bool:
        """Wait, still alive to other sweeps; whether the sweep was stopped meanwhile."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            claims.beat(self._owner)
            if self._stopping.wait(min(left, claims.BEAT_SECONDS)):
                return True
        return False

    def _try(self) -> tuple[Event, bool]:
        """Run the notebook once, in a run of its own; how it ended, and whether another try could end otherwise."""
        tags = {**self._job["tags"], **self._owner, "arithmetic": json.dumps(golden.arithmetic())}
        run_id = self._recorder.start_cell(self._cell, tags, self._job["parent"])
        self._emit({"event": "started", "id": self._job["id"], "run_id": run_id})
        spool, executed = store.spool_dir(run_id), Path(self._job["executed"])
        executed.parent.mkdir(parents=True, exist_ok=True)
        if self._job["golden"]:
            (spool / "artifacts" / golden.ARTIFACT).write_text(json.dumps(self._job["golden"]), encoding="utf-8")
        done = threading.Event()
        publisher = threading.Thread(target=self._publish, args=(run_id, done), daemon=True)
        publisher.start()
        watch = Watch(self._limits, self._kernels)
        status, error, passing = "FINISHED", "", False
        try:
            if not self._stopping.is_set():
                self._execute(run_id, executed)
                if not (spool / "results.json").exists():
                    status, error = "FAILED", "the notebook came to its end without run.set_results(...)"
        except Exception as raised:
            name, error = reason_of(raised)
            status, passing = "FAILED", name in PASSING
            (spool / "artifacts" / "error.txt").write_text(str(raised), encoding="utf-8")
        watch.stop()
        if watch.why and status == "FAILED":
            error, passing = watch.why, False
        if self._stopping.is_set() and not (status == "FINISHED" and (spool / "results.json").exists()):
            status, error = "KILLED", "the sweep was stopped"
        done.set()
        publisher.join()
        if executed.exists():
            shutil.copyfile(executed, spool / "artifacts" / "notebook.ipynb")
            write_readable(executed, spool / "artifacts")
        results = self._recorder.finish(run_id, status, error)
        event = {"event": "finished", "run_id": run_id, "status": status, "error": error, "results": results}
        return event, passing

    def _execute(self, run_id: str, executed: Path) -> None:
        import papermill

        from lab.study.quick_client import QuickManager

        notebook = self._job["notebook"]
        papermill.execute_notebook(
            notebook,
            str(executed),
            parameters={**self._cell.parameters, "run_id": run_id},
            cwd=str(Path(notebook).parent),
            progress_bar=False,
            kernel_manager_class=QuickManager,
            # A first kernel waits for torch and all else to be imported, on a machine that may be busy with other work.
            start_timeout=START_SECONDS,
        )

    def _publish(self, run_id: str, done: threading.Event) -> None:
        """Move curves into MLflow and keep the claim alive while the cell runs."""
        while not done.wait(claims.BEAT_SECONDS):
            # What cannot be sent now is sent at the end, which says what is wrong.
            with suppress(Exception):
                self._recorder.publish(run_id)
            with suppress(LabError):
                self._beat(run_id)

    def _beat(self, run_id: str) -> None:
        claims.beat(self._owner)
