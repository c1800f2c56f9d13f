"""The one loop of a sweep: it hands cells to an executor, waits for their futures, shows what happens, closes the runs.

The driver owns every lease and run of its sweep, and it alone gives a run its last status, so that a cell is finished
once, whatever dies. Where the driver itself dies its runs stay RUNNING, and the next sweep closes them.
"""

import shutil
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from types import FrameType
from typing import Any

from lab import paths
from lab.study import golden, leases, store
from lab.study.ablation import Cell
from lab.study.forecast import Meter
from lab.study.limits import PAUSES
from lab.study.plan import Display
from lab.study.tracking import Recorder
from lab.study.worker import Job, Result

TICK_SECONDS = 0.25
BEAT_SECONDS = 1.0


class Executor(ABC):
    """What runs cells: workers of this machine, a Ray cluster, or Slurm."""

    host = "127.0.0.1"
    """The address of this machine for whoever runs them."""

    @abstractmethod
    def slots(self) -> int:
        """How many cells can run at once now, or a LabError where none has been able to for some time."""

    @abstractmethod
    def submit(self, job: Job) -> Future[Result]:
        """Hand a cell over, to be run once. A machine that is lost with it is a failure like another.

        The future raises a LabError where a worker could not start.
        """

    def leave_out(self, node: str) -> bool:
        """Give that node no more cells; False, and it stays, where no other would be left."""
        return False

    @abstractmethod
    def stop(self) -> None:
        """End every cell, within seconds, and let go of the machines."""


@dataclass
class _Running:
    cell: Cell
    future: Future[Result] | None = None
    """None while it waits for its next try."""
    again_at: float = 0.0
    tried: int = 0
    seconds: float = 0.0


@dataclass
class Driver:
    """Runs the cells of one sweep, each with its row's golden record."""

    executor: Executor
    recorder: Recorder
    owner: Mapping[str, str]
    job: Job
    """What the jobs share: parent, kind, notebook, limits, tracking_uri, experiment_id."""
    at_most: int | None
    """Cells at once; as many as the executor has room for where None."""
    meter: Meter
    display: Display
    goldens: Mapping[str, golden.Record] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """The reasons of the cells that failed, by title."""
    _running: dict[str, _Running] = field(default_factory=dict)

    def run(self, cells: Sequence[Cell]) -> None:
        """Run every cell, in this order as there is room; those that no budget is left for are left out.

        A LabError is a worker that could not start, no machine left, or a store or leases that cannot be written.
        """
        waiting, beaten = deque(cells), 0.0
        while waiting or self._running:
            if time.monotonic() - beaten > BEAT_SECONDS:
                beaten = time.monotonic()
                leases.beat(self.owner)
            room = self.executor.slots() if self.at_most is None else min(self.at_most, self.executor.slots())
            while waiting and len(self._running) < room:
                self._start(waiting.popleft())
            for running in self._running.values():
                if running.future is None and time.monotonic() >= running.again_at:
                    self._submit(running)
            by_future = {running.future: running for running in self._running.values() if running.future is not None}
            for future in wait(by_future, TICK_SECONDS, FIRST_COMPLETED).done:
                self._hear(by_future[future], future.result())
            if not by_future and (waiting or self._running):
                time.sleep(TICK_SECONDS)

    def _open_runs(self) -> list[store.RunRecord]:
        """The runs of this sweep's cells that say RUNNING."""
        own = self.owner["owner"]
        return [run for run in store.running_runs() if run.tags.get("owner") == own and "key" in run.tags]

    def _start(self, cell: Cell) -> None:
        if not self.meter.fits(cell.row):
            self.display.left_out(cell)
            return
        if cell.key not in self._running and leases.take(cell.key, self.owner):
            if not store.is_done(cell.key):
                self._running[cell.key] = running = _Running(cell)
                self._submit(running)
                self.display.started(cell)
                return
            leases.release(cell.key, self.owner)
        self.meter.ended(cell.row, 0.0)
        self.display.elsewhere(cell)

    def _submit(self, running: _Running) -> None:
        shared = {**self.job, "owner": dict(self.owner), "node": ""}
        kept = self.goldens.get(running.cell.row)
        running.future = self.executor.submit({**shared, "cell": asdict(running.cell), "golden": kept})

    def _hear(self, running: _Running, result: Result) -> None:
        """A try has ended: close its run, and try again or say how the cell ended."""
        running.future = None
        running.seconds += result.seconds
        result = self._close(running.cell, result)
        again = self.executor.leave_out(result.node) if result.refused else result.passing
        if result.status == "FAILED" and again and running.tried < self.job["limits"]["retries"]:
            pause = 0.0 if result.refused else PAUSES[min(running.tried, len(PAUSES) - 1)]
            running.tried, running.again_at = running.tried + 1, time.monotonic() + pause
            self.display.retrying(running.cell, result.error, pause)
        else:
            self._end(running, result)

    def _close(self, cell: Cell, result: Result) -> Result:
        """Give the run its last status; one that had delivered all is done, though the word of it was lost.

        A node may die before its first word, and a queue may start a job again: every open run of the cell is closed.
        One that could not begin leaves a run too, so that `lab status` can say why.
        """
        runs = [run for run in self._open_runs() if run.tags["key"] == cell.key]
        if not runs and not result.run_id and result.status == "FAILED":
            tags = {"kind": self.job["kind"], **self.owner, **({"node": result.node} if result.node else {})}
            self.recorder.finish(self.recorder.start_cell(cell, tags, self.job["parent"]), "FAILED", result.error)
        for run in runs:
            if run.run_id == result.run_id:
                self.recorder.close(run.run_id, result.status, result.error)
            elif result.run_id:
                self.recorder.finish(run.run_id, "FAILED", "its node died, and the cluster started it again")
            elif self.recorder.give_up(run, result.status, result.error):
                result = replace(result, status="FINISHED", error="", results=run.results, run_id=run.run_id)
        executed = store.artifact(result.run_id, "notebook.ipynb")
        if result.run_id and executed.exists():
            folder = paths.mlruns_dir() / "notebooks" / cell.ablation
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(executed, folder / f"{cell.row}-{cell.seed}-{cell.key}.ipynb")
        return result

    def _end(self, running: _Running, result: Result) -> None:
        cell = running.cell
        del self._running[cell.key]
        leases.release(cell.key, self.owner)
        self.meter.ended(cell.row, running.seconds)
        if result.status == "FAILED":
            self.failed[cell.title] = result.error
        self.display.finished(cell, result.status, result.error, result.results, running.seconds)

    def close_what_ran(self) -> None:
        """Close the runs of the cells that the stopped executor has left, as KILLED."""
        for running in list(self._running.values()):
            stopped = Result(status="KILLED", error="the sweep was stopped")
            self._end(running, self._close(running.cell, stopped))


@contextmanager
def interruptible() -> Iterator[None]:
    """The first SIGINT or SIGTERM raises KeyboardInterrupt, the second does nothing, the third raises once more.

    An exception while runs are being closed would leave some open; the third is for an end that hangs. A SIGINT that
    was ignored, as in a shell's background job, stays so. Outside the main thread, which alone hears signals, nothing
    changes.
    """
    heard = 0

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        heard += 1
        if heard != 2:
            raise KeyboardInterrupt

    former: dict[signal.Signals, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    former[number] = signal.signal(number, hear)
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
