"""Cells as Slurm jobs through submitit, one job a cell.

`mlruns/` has to lie on a disk that every node sees. submitit's `local` executor runs the same jobs as processes of
this machine.
"""

import json
import math
import os
import shutil
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from lab import paths
from lab.errors import LabError, choose
from lab.study.worker import Job, Result, available_cores, run_once

KINDS = {"slurm": "sbatch on this machine", "local": "processes of this machine"}
WAIT_SECONDS = 0.5
ASK_SECONDS = 60.0  # between two calls of sacct, which is what tells of a node that died
AT_ONCE = 1000  # jobs submitted at once; a thread waits for each, and Slurm's own queue has the order
DEFAULT_MINUTES = 24 * 60  # submitit's own five would end every cell
HOPELESS = ("TIMEOUT", "OUT_OF_MEMORY", "CANCELLED")
"""How a job ends that would end the same way again, or that somebody wanted to end."""


def parse_options(options: tuple[str, ...]) -> dict[str, Any]:
    """`slurm_partition=gpu` and the like as submitit's parameters; numbers, true and false become such.

    Raises:
        LabError: one is not of the form key=value.
    """
    parsed: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key.strip():
            raise LabError(f"--slurm-option is {option!r}; expected key=value, such as slurm_partition=gpu")
        try:
            parsed[key.strip()] = json.loads(value)
        except ValueError:
            parsed[key.strip()] = value
    return parsed


def _submitit_executor(kind: str, options: Mapping[str, Any], gpus: float) -> Any:
    choose(KINDS, kind, "cluster for --slurm:")
    try:
        import submitit
    except ImportError:
        raise LabError("--slurm needs the package submitit, which is missing: pip install -e '.[slurm]'") from None
    if kind == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise LabError("--slurm slurm needs Slurm's sbatch and srun, which this machine has not; run it where they are")
    executor = submitit.AutoExecutor(folder=paths.mlruns_dir().resolve() / "slurm", cluster=kind)
    own: dict[str, Any] = {"name": "omni-lab", "timeout_min": DEFAULT_MINUTES}
    if gpus:
        own["gpus_per_node"] = math.ceil(gpus)
    try:
        executor.update_parameters(**{**own, **options})
    except (NameError, TypeError, ValueError, AssertionError) as error:
        raise LabError(f"submitit does not take these Slurm options: {' '.join(str(error).split())}") from None
    return executor


def _address() -> str:
    """This machine's address on the way to others; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("10.255.255.255", 1))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def run_job(job: Job, cells_at_once: int) -> Result:
    """A Slurm job: run the cell on the node where it is."""
    number = os.environ.get("SLURM_JOB_ID", "")
    return run_once(job, f"{socket.gethostname()} (job {number})" if number else socket.gethostname(), cells_at_once)


class SlurmExecutor:
    """Slurm, or submitit's local executor in its place.

    Raises:
        LabError: no package, no Slurm on this machine, or an option that submitit does not know.
    """

    def __init__(self, kind: str, options: tuple[str, ...], gpus: float) -> None:
        self._executor = _submitit_executor(kind, parse_options(options), gpus)
        self._local = kind == "local"
        self.host = "127.0.0.1" if self._local else _address()
        self._threads = ThreadPoolExecutor(AT_ONCE)
        self._stopped = threading.Event()
        self._handles: list[Any] = []

    def slots(self) -> int:
        """How many cells are submitted at once: one a core where this machine stands in for Slurm."""
        return available_cores() if self._local else AT_ONCE

    def submit(self, job: Job) -> "Future[Result]":
        """Submit the cell's job; a job that was lost is a failure that can pass, but for a limit of Slurm's."""
        handle = self._executor.submit(run_job, job, available_cores() if self._local else 1)
        self._handles.append(handle)
        return self._threads.submit(self._wait, handle)

    def _wait(self, handle: Any) -> Result:
        asked = time.monotonic()
        # submitit by itself asks Slurm every ten minutes; one question is for all jobs.
        while not handle.done(force_check=(ask := time.monotonic() - asked > ASK_SECONDS)):
            asked = time.monotonic() if ask else asked
            if self._stopped.wait(WAIT_SECONDS):
                return Result(error="it was stopped")
        self._handles.remove(handle)
        try:
            result: Result = handle.result()  # waits a little, as a shared disk may show it late
        except Exception:
            state = handle.state
            error = f"its job {handle.job_id} ended as {state} (log: {handle.paths.stderr})"
            return Result(error=error, passing=not any(word in state for word in HOPELESS))
        return result

    def leave_out(self, node: str) -> bool:
        """Slurm chooses the nodes, and they share one checkout."""
        return False

    def stop(self) -> None:
        """Cancel every job; a cell whose run is closed ends itself, where Slurm takes its time."""
        self._stopped.set()
        for handle in list(self._handles):
            handle.cancel(check=False)
        self._threads.shutdown(cancel_futures=True)
