"""The worker processes of a sweep on this machine: started, fed with jobs, replaced when they die, stopped."""

import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab import paths
from lab.errors import LabError
from lab.study import gpus
from lab.study.worker import kill_children

# Gradients of tens of megabytes come and go every step; keeping their pages, and huge ones, saves the page faults
# (glibc and torch read these; elsewhere they do nothing).
ALLOCATION = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "THP_MEM_ALLOC_ENABLE": "1",
}
STOP_SECONDS = 8.0  # what a worker has to close its run, before it is killed
TICK_SECONDS = 0.25

Event = dict[str, Any]
Job = dict[str, Any]


def available_cores() -> int:
    """The cores this process may use, a container's quota included."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no cgroup, or "max"
        pass
    return max(1, cores)


def worker_environment(workers: int) -> dict[str, str]:
    """The environment of a worker and of its kernels: threads divided, nothing of the user's Jupyter set-up."""
    threads = str(max(1, available_cores() // workers))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {
        **ALLOCATION,
        **os.environ,
        **dict.fromkeys(names, threads),
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, not a `python3` of the user's
        "IPYTHONDIR": str(paths.mlruns_dir().resolve() / "ipython"),
        "OMNI_LAB_MLRUNS": str(paths.mlruns_dir().resolve()),  # kernels start in another folder
        "OMNI_LAB_CACHE": str(paths.cache_dir().resolve()),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


class _Worker:
    def __init__(
        self,
        number: int,
        modules: Sequence[str],
        environment: dict[str, str],
        events: "queue.Queue[tuple[_Worker, Event]]",
        devices: str | None = None,
    ) -> None:
        self.job: Job | None = None
        self.run_id = ""
        self.ready = False
        self.devices = devices
        self.log = paths.mlruns_dir() / "logs" / f"worker-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{number}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lab.study.worker", *modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment if devices is None else {**environment, gpus.VARIABLE: devices},
                start_new_session=True,  # a Ctrl-C is the sweep's to hand on
            )
        self._events = events
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.put((self, json.loads(line)))
        self.process.wait()
        self._events.put((self, {"event": "exit", "code": self.process.returncode}))

    def send(self, job: Job) -> None:
        assert self.process.stdin is not None
        self.job, self.run_id = job, ""
        with suppress(BrokenPipeError):  # it died; its exit event follows
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()

    def close(self) -> None:
        """No more jobs: an idle worker ends, a busy one stops its cell."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def kill(self) -> None:
        kill_children(self.process.pid)
        self.process.kill()
        self.process.wait()

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


class Pool:
    """Runs jobs on N workers; `on_event(job, event)` hears of every start and end.

    `modules` are those that the notebooks import: every worker imports them once, for all of its kernels. `devices` is
    what each worker has as CUDA_VISIBLE_DEVICES (see `gpus.shares`); without any, all see what this process sees.

    Events: started (run_id), retrying (error; seconds: the pause), elsewhere (another sweep has the cell), finished
    (status, error, results, seconds), died (error: a worker was lost with its job), left_out (see `run`).
    """

    def __init__(
        self,
        workers: int,
        on_event: Callable[[Job, Event], None],
        on_tick: Callable[[], None],
        modules: Sequence[str] = (),
        devices: Sequence[str] = (),
    ) -> None:
        self._events: queue.Queue[tuple[_Worker, Event]] = queue.Queue()
        self._modules = modules
        self._devices = list(devices)
        self._environment = worker_environment(workers)
        self._on_event, self._on_tick = on_event, on_tick
        self._started = 0
        self._workers: list[_Worker] = []
        for _ in range(workers):
            self._start()

    def _start(self) -> None:
        devices = self._devices.pop(0) if self._devices else None  # those of a worker that died are free again
        self._workers.append(_Worker(self._started, self._modules, self._environment, self._events, devices))
        self._started += 1

    def run(self, jobs: Sequence[Job], may_start: Callable[[Job], bool] = lambda job: True) -> None:
        """Run every job, in this order as workers come free; one that may not start is told of as `left_out`.

        Raises:
            LabError: a worker could not start; the message has the last line of its log.
        """
        waiting = deque(jobs)

        def feed(worker: _Worker) -> None:
            while waiting and worker.job is None:
                job = waiting.popleft()
                if may_start(job):
                    worker.send(job)
                else:
                    self._on_event(job, {"event": "left_out"})

        for worker in self._workers:
            if worker.ready:
                feed(worker)
        while waiting or any(worker.job for worker in self._workers):
            self._on_tick()
            try:
                worker, event = self._events.get(timeout=TICK_SECONDS)
            except queue.Empty:
                continue
            self._handle(worker, event)
            if event["event"] == "exit" and waiting:
                self._start()
            if event["event"] in ("ready", "finished", "elsewhere"):
                feed(worker)
        self._on_tick()

    def _handle(self, worker: _Worker, event: Event) -> None:
        job = worker.job
        if event["event"] == "ready":
            worker.ready = True
        elif event["event"] == "started":
            worker.run_id = event["run_id"]
        if event["event"] in ("finished", "elsewhere", "exit"):
            worker.job = None
        if event["event"] == "exit":
            self._workers.remove(worker)
            if worker.devices is not None:
                self._devices.append(worker.devices)
            if not worker.ready and event["code"]:
                raise LabError(f"a worker could not start: {worker.last_words()} (log: {worker.log})")
            if job is not None:
                code = event["code"]
                how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                error = f"its worker died ({how}; log: {worker.log})"
                self._on_event(job, {"event": "died", "run_id": worker.run_id, "error": error})
        elif job is not None:
            self._on_event(job, event)

    def stop(self, at_once: Callable[[], bool] = lambda: False) -> None:
        """End every worker: at once where idle; a cell that runs gets some seconds to close its run, then is killed.

        Nobody is waited for any more when `at_once` says so.
        """
        for worker in self._workers:
            worker.close()
        deadline = time.monotonic() + STOP_SECONDS
        while self._workers and time.monotonic() < deadline and not at_once():
            try:
                worker, event = self._events.get(timeout=TICK_SECONDS)
            except queue.Empty:
                continue
            if event["event"] == "exit" and not worker.ready:
                self._workers.remove(worker)
            else:
                self._handle(worker, event)
        for worker in list(self._workers):
            worker.kill()
            self._handle(worker, {"event": "exit", "code": -signal.SIGKILL})
