"""A process that runs cells, one after another: `Worker` is a handle of it, `python -m lab.study.worker` the process.

It reads jobs as JSON lines and answers each with its result, a JSON line. The end of its input ends it and the notebook
that runs, so that nothing of a cell outlives whoever asked for it, however that died.
"""

import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from lab import paths
from lab.errors import LabError
from lab.study import store
from lab.study.limits import family

Job = dict[str, Any]
"""A cell to run once, and what its run needs (see `lab.study.driver`); JSON, as it goes to other machines."""

# Gradients of tens of megabytes come and go every step; keeping their pages, and huge ones, saves the page faults
# (glibc and torch read these; elsewhere they do nothing).
ALLOCATION = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "THP_MEM_ALLOC_ENABLE": "1",
}
STOP_SECONDS = 2.0  # for a process to end its notebook, before it is killed


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a job ended.

    `run_id` is empty where no run was made, or nobody knows of one; `node` is the other machine's name; `passing` says
    that another try could end otherwise, `refused` that the node would have run another cell than the one asked for.
    """

    status: str = "FAILED"  # FINISHED, FAILED or KILLED
    error: str = ""
    run_id: str = ""
    results: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    node: str = ""
    passing: bool = False
    refused: bool = False


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
    """The environment of a worker and of its notebooks: threads divided, nothing of the user's IPython set-up."""
    threads = str(max(1, available_cores() // workers))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {
        **ALLOCATION,
        **os.environ,
        **dict.fromkeys(names, threads),
        "IPYTHONDIR": str(paths.mlruns_dir().resolve() / "ipython"),
        "OMNI_LAB_CHECKOUT": str(paths.repository_root().resolve()),
        "OMNI_LAB_MLRUNS": str(paths.mlruns_dir().resolve()),  # kernels start in another folder
        "OMNI_LAB_CACHE": str(paths.cache_dir().resolve()),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        # Asking whether there is a GPU must not initialise CUDA in a process that forks.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


class Worker:
    """The process's handle: it starts at once, and anew where a job finds it dead.

    `workers` share the machine's cores; `modules` are what the notebooks import, imported once for all of them; the
    `environment` has variables of this worker's own.
    """

    def __init__(
        self, workers: int = 1, modules: Sequence[str] = (), environment: dict[str, str] | None = None
    ) -> None:
        self._command = [sys.executable, "-m", "lab.study.worker", *modules]
        self._environment = worker_environment(workers) | (environment or {})
        self._closed = False
        self._start()

    def _start(self) -> None:
        self._ready = False
        stem = f"worker-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        self.log = paths.mlruns_dir() / "logs" / f"{stem}-{time.monotonic_ns()}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # a Ctrl-C is the sweep's to hand on
            )

    def run(self, job: Job) -> Result:
        """Run the job's cell and wait for its end; that of the process, too, ends it.

        Raises:
            LabError: the process could not start; the message has the last line of its log.
        """
        if self.process.poll() is not None and not self._closed:
            self._start()
        stdin, stdout = self._pipes()
        if not self._ready and not stdout.readline():
            raise LabError(f"a worker could not start: {self._last_words()} (log: {self.log})")
        self._ready = True
        begun = time.monotonic()
        with suppress(BrokenPipeError, ValueError):  # it has died, or was closed, and says no word below
            stdin.write(json.dumps(job).encode() + b"\n")
            stdin.flush()
        if (line := stdout.readline()).endswith(b"\n"):
            return Result(**json.loads(line))
        code = self.process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        on = f" on node {job['node']}" if job["node"] else ""
        error = f"its worker{on} died ({how}; log: {self.log}): {self._last_words()}"
        return Result(error=error, seconds=time.monotonic() - begun)

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        return self.process.stdin, self.process.stdout

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def close(self) -> None:
        """Tell it to end, with the cell that it runs."""
        self._closed = True
        with suppress(BrokenPipeError):
            self._pipes()[0].close()

    def end(self) -> None:
        """Wait until it has ended; one that hangs is killed."""
        self.close()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            kill_children(self.process.pid)
            self.process.kill()
            self.process.wait()


def run_once(job: Job, node: str, cells_at_once: int) -> Result:
    """Run the job's cell on this machine, a node of that name, in a process that ends with the cell.

    Whatever holds the node (a Ray task, a Slurm job) keeps no memory, GPU or process of the cell.
    """
    worker = Worker(cells_at_once)
    try:
        return worker.run({**job, "node": node})
    finally:
        worker.end()


def kill_children(pid: int | None = None) -> None:
    """Kill every process below `pid`, this one's where None."""
    for child in family(os.getpid() if pid is None else pid)[1:]:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def main() -> None:
    """Run the jobs that come in until the input ends."""
    # Jobs and results have these alone: a library or a notebook reads nothing, and what it prints goes to the log.
    jobs, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()

    def listen() -> None:
        for line in jobs:
            waiting.put(json.loads(line))
        kill_children()
        kill_children()  # a notebook may just have been starting
        os._exit(0)  # exit handlers of the libraries cost 0.3 s

    threading.Thread(target=listen, daemon=True).start()
    store.quiet_mlflow()
    from lab.study.execution import run_cell
    from lab.study.kernels import warm
    from lab.study.tracking import Recorder

    def answer(what: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # who asked is gone, and this process in a moment
            answers.write(json.dumps(what) + "\n")
            answers.flush()

    recorders: dict[str, Recorder] = {}
    if modules := sys.argv[1:]:  # the first of many cells should not be the slow one
        recorders[""] = Recorder()
    warm(modules)
    answer({"ready": True})
    while True:
        job = waiting.get()
        uri = job["tracking_uri"]
        if uri not in recorders:
            recorders[uri] = Recorder(uri, job["experiment_id"])
        answer(asdict(run_cell(job, recorders[uri])))


if __name__ == "__main__":
    main()
