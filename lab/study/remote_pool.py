"""The driver's side of a sweep on other machines: claims, runs, further tries, and the last word on each cell.

A cluster (Ray, Slurm) only carries jobs there and events back. The driver is the owner of every claim and run: it
beats the heart, and it alone gives a run its last status, so that a cell is finished once, whatever dies. Where the
driver itself dies its runs stay RUNNING, and the next sweep closes them.
"""

import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lab.errors import LabError
from lab.study import claims, store, tracking
from lab.study.cells import Cell
from lab.study.limits import PAUSES, Limits
from lab.study.pool import TICK_SECONDS, Event, Job
from lab.study.tracking_server import TrackingServer, check_store

STOP_SECONDS = 6.0  # for the nodes to stop their cells; the server's end and the runs' closing come on top


class Cluster(Protocol):
    """What carries cells to other machines.

    Its events are those of `remote.run_cell`, and `placed` (node: its name) when a cell has come to one; a `lost` that
    another try can mend (a node died) says `passing`.
    """

    host: str
    """The address of this machine for the nodes."""

    def slots(self) -> int:
        """How many cells can run at once now.

        Raises:
            LabError: none has been able to for some time.
        """

    def submit(self, job: Job) -> None:
        """Hand a cell over."""

    def events(self, seconds: float) -> list[tuple[int, Event]]:
        """What has happened, by the job's id; waits so long for something to happen."""

    def leave_out(self, node: str) -> bool:
        """Give that node no more cells; False, and it stays, where no other would be left."""

    def stop(self, seconds: float, at_once: Callable[[], bool] = ...) -> None:
        """Stop every cell, wait so long for their ends or until `at_once`, and let go of the cluster."""


@dataclass
class _Running:
    job: Job
    begun: float
    tried: int = 0
    node: str = ""
    run_id: str = ""
    again_at: float | None = None
    """When the next try is handed over; None while one is at the cluster."""

    @property
    def cell(self) -> Cell:
        return Cell(**self.job["cell"])


class RemotePool:
    """As `lab.study.pool.Pool`, on a cluster's machines; the same events, but that `died` never comes.

    Args:
        server: what the nodes write through, or the address of one that the user started.
        at_most: cells at once; as many as the cluster has room for where None.
    """

    def __init__(
        self,
        cluster: Cluster,
        server: TrackingServer | str,
        owner: Mapping[str, str],
        at_most: int | None,
        on_event: Callable[[Job, Event], None],
        on_tick: Callable[[], None],
    ) -> None:
        self._cluster, self._server, self._owner, self._at_most = cluster, server, dict(owner), at_most
        self._on_event, self._on_tick = on_event, on_tick
        self._running: dict[int, _Running] = {}
        self._recorder: tracking.Recorder | None = None
        self._beaten = 0.0

    def run(self, jobs: Sequence[Job], may_start: Callable[[Job], bool] = lambda job: True) -> None:
        """Run every job, in this order as there is room; one that may not start is told of as `left_out`.

        Raises:
            LabError: the tracking server does not start or serves another store, or the cluster has no node left.
        """
        self._recorder = tracking.Recorder()
        uri = self._server if isinstance(self._server, str) else self._server.wait()
        if jobs:
            check_store(uri, jobs[0]["parent"])
        more = {"tracking_uri": uri, "experiment_id": self._recorder.experiment_id, "owner": self._owner}
        waiting = deque({**job, **more} for job in jobs)
        while waiting or self._running:
            self._on_tick()
            self._beat()
            slots = self._cluster.slots()
            room = slots if self._at_most is None else self._at_most
            while waiting and len(self._running) < room:
                job = waiting.popleft()
                if may_start(job):
                    self._start(job)
                else:
                    self._on_event(job, {"event": "left_out"})
            for running in self._running.values():
                if running.again_at is not None and time.monotonic() >= running.again_at:
                    running.again_at = None
                    self._cluster.submit(running.job)
            for number, event in self._cluster.events(TICK_SECONDS):
                if number in self._running:
                    self._hear(self._running[number], event)
        self._on_tick()

    def _beat(self) -> None:
        if time.monotonic() - self._beaten > claims.BEAT_SECONDS:
            with suppress(LabError):  # a claim that cannot be taken says what is wrong
                claims.beat(self._owner)
            self._beaten = time.monotonic()

    def _start(self, job: Job) -> None:
        running = _Running(job, time.monotonic())
        cell = running.cell
        if not claims.claim(cell.key, cell.title, self._owner):
            self._on_event(job, {"event": "elsewhere"})
        elif store.is_done(cell.key):
            claims.release(cell.key, self._owner)
            self._on_event(job, {"event": "elsewhere"})
        else:
            self._running[job["id"]] = running
            self._cluster.submit(job)

    def _hear(self, running: _Running, event: Event) -> None:
        assert self._recorder is not None
        if event["event"] == "placed":
            running.node = event["node"]
        elif event["event"] == "started":
            if running.run_id:  # a queue starts a job again whose node died
                self._recorder.finish(running.run_id, "FAILED", "its node died, and the cluster started it again")
            running.run_id = event["run_id"]
            self._on_event(running.job, event)
        elif event["event"] == "lost":
            ended = self._close_open(running, "FAILED", event["error"])
            self._ended(running, ended, event.get("passing", False))
        else:
            if event["run_id"]:
                self._close(running, event)
            else:
                self._record_refusal(running, event["error"])
            again = event.get("passing", False)
            if event.get("refused") and running.node:
                again = self._cluster.leave_out(running.node)
            self._ended(running, event, again)

    def _close(self, running: _Running, event: Event) -> None:
        assert self._recorder is not None
        self._recorder.close(event["run_id"], event["status"], event["error"])
        executed = store.RunRecord(event["run_id"], "", 0.0, None, {}).artifact("notebook.ipynb")
        if executed.exists():
            target = Path(running.job["executed"])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(executed, target)

    def _close_open(self, running: _Running, status: str, error: str) -> Event:
        """Close the cell's runs that are still RUNNING, told of or not: a node may die before its first word.

        One that had delivered all is done, though the word of it was lost. Returns how the cell ended.
        """
        assert self._recorder is not None
        ended: Event = {"status": status, "error": error, "results": {}}
        for run in store.read_runs():
            own = (run.tags.get("owner"), run.tags.get("key")) == (self._owner["owner"], running.cell.key)
            if run.status != "RUNNING" or not own:
                continue
            if run.tags.get("delivered") == "FINISHED":
                ended = {"status": "FINISHED", "error": "", "run_id": run.run_id, "results": run.results}
                self._close(running, ended)
            else:
                self._recorder.finish(run.run_id, status, error)
        return ended

    def _record_refusal(self, running: _Running, error: str) -> None:
        """A node that could not even begin leaves a run too, so that `lab status` can say why."""
        assert self._recorder is not None
        tags = {**running.job["tags"], **self._owner, "node": running.node}
        run_id = self._recorder.start_cell(running.cell, tags, running.job["parent"])
        self._recorder.finish(run_id, "FAILED", error)

    def _ended(self, running: _Running, event: Event, again: bool) -> None:
        """Try the cell again after a pause, or tell how it ended and give its claim back."""
        running.run_id = ""
        if event["status"] == "FAILED" and again and running.tried < Limits(**running.job["limits"]).retries:
            pause = 0.0 if event.get("refused") else PAUSES[min(running.tried, len(PAUSES) - 1)]
            running.tried, running.again_at, running.node = running.tried + 1, time.monotonic() + pause, ""
            self._on_event(running.job, {"event": "retrying", "error": event["error"], "seconds": pause})
            return
        del self._running[running.job["id"]]
        claims.release(running.cell.key, self._owner)
        seconds = time.monotonic() - running.begun
        self._on_event(running.job, {**event, "event": "finished", "seconds": seconds})

    def stop(self, at_once: Callable[[], bool] = lambda: False) -> None:
        """Stop every cell within some seconds, or when `at_once` says so; close its run as KILLED; end the server."""
        try:
            self._cluster.stop(STOP_SECONDS if self._running else 0.0, at_once)
        finally:
            for running in list(self._running.values()):
                self._ended(running, self._close_open(running, "KILLED", "the sweep was stopped"), again=False)
            if isinstance(self._server, TrackingServer):
                self._server.stop()
