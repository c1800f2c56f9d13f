"""Cells on clusters: Ray tasks, placed and given their GPUs by Ray, or Slurm jobs through submitit; one a cell.

What is done stands in our own store, and neither tries anything again by itself: a task or job whose node died is a
failed try. For Slurm `mlruns/` has to lie on a disk that every node sees; submitit's `local` executor runs the same
jobs as processes of this machine.
"""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from lab import paths
from lab.errors import LabError, choose, name_values
from lab.study.driver import Executor
from lab.study.worker import Job, Result, available_cores, run_once

CONNECT_SECONDS = 5.0
CHECK_SECONDS = 20.0  # importing Ray and connecting take 3 s on a quiet machine
WAIT_SECONDS = 0.5
AT_ONCE = 1000  # a thread waits for each; the cluster's own queue has the order
EMPTY_SECONDS = 120.0  # how long a cluster may be without any node that can take a cell
ASK_SECONDS = 60.0  # between two calls of sacct, which is what tells of a node that died

_CHECK = """
import json, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR", configure_logging=False)
print("nodes:" + json.dumps([node["Resources"] for node in ray.nodes() if node["Alive"]]), flush=True)
"""

KINDS = {"slurm": "sbatch on this machine", "local": "processes of this machine"}
DEFAULT_MINUTES = 24 * 60  # submitit's own five would end every cell
HOPELESS = ("TIMEOUT", "OUT_OF_MEMORY", "CANCELLED")
"""How a job ends that would end the same way again, or that somebody wanted to end."""


def _import_ray() -> Any:
    # Asked when it has been left, it would start a cluster of its own.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        import ray
    except ImportError:
        raise LabError("--ray needs the package ray, which is missing: pip install -e '.[ray]'") from None
    return ray


def _room(resources: dict[str, float], gpus: float) -> int:
    """How many cells of `gpus` GPUs and one CPU a node with these resources takes at once."""
    cpus = int(resources.get("CPU", 0))
    if not gpus:
        return cpus
    have = resources.get("GPU", 0.0)
    return min(cpus, int(have / gpus) if gpus >= 1 else int(have) * int(1 / gpus))


def check_ray(address: str, gpus: float) -> int:
    """Refuse an address where no Ray cluster is that this sweep could use; returns how many cells run there at once.

    Ray is asked in a process of its own: at what is not Ray its client waits long, or ends its process.

    Raises:
        LabError: no package, nothing at the address, no Ray, another version, or no node with enough GPUs.
    """
    _import_ray()
    expected = "expected HOST:PORT of the head node, as `ray start --head` prints it, such as 10.0.0.1:6379"
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise LabError(f"the Ray address is {address!r}; {expected}")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise LabError(f"no Ray cluster can be reached at {address} ({error}); {expected}") from None
    command, told, printed = [sys.executable, "-c", _CHECK, address], "", ""
    with suppress(subprocess.TimeoutExpired):  # Ray waits for a node on this machine, or for an answer
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CHECK_SECONDS)
        told, printed = asked.stdout, asked.stderr
    found = [line for line in told.splitlines() if line.startswith("nodes:")]
    if not found:
        raise LabError(
            f"what is at {address} does not answer as a Ray cluster of which this machine is a node "
            f"({_said(printed)}); a machine joins by: ray start --address {address}, with the same Ray and Python; "
            f"{expected}"
        )
    nodes = json.loads(found[-1].removeprefix("nodes:"))
    slots = sum(_room(node, gpus) for node in nodes)
    if not slots:
        have = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise LabError(
            f"no node of the Ray cluster at {address} has 1 CPU and {gpus:g} GPUs for a cell; its nodes have {have}"
        )
    return slots


def _said(printed: str) -> str:
    """The end of what Ray printed: from where it tells two versions apart, else the last line."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()] or ["it said nothing"]
    start = next((number for number, line in enumerate(lines) if "Version mismatch" in line), -1)
    return " ".join(lines[start:])


def _run_task(job: Job, gpus: float) -> Result:
    """The task of one cell, on its node."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    return run_once(job, _name(node), max(1, _room(node["Resources"], gpus)))


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"


class RayExecutor(Executor):
    """A cluster that was checked; connecting takes a second."""

    def __init__(self, address: str, gpus: float) -> None:
        self._ray, self._address, self._gpus = _import_ray(), address, gpus
        main = threading.current_thread() is threading.main_thread()
        former = signal.getsignal(signal.SIGTERM)
        self._ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        if main:  # Ray puts a handler of its own there
            signal.signal(signal.SIGTERM, former)
        self.host: str = self._ray.util.get_node_ip_address()
        self._task = self._ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_run_task)
        self._threads, self._stopped = ThreadPoolExecutor(AT_ONCE), threading.Event()
        self._tasks: list[Any] = []
        self._left_out: set[str] = set()
        self._room_at = self._room_since = time.monotonic()
        self._slots = self._count()

    def _nodes(self) -> list[dict[str, Any]]:
        """The nodes that can take a cell."""
        return [
            node
            for node in self._ray.nodes()
            if node["Alive"] and node["NodeID"] not in self._left_out and _room(node["Resources"], self._gpus)
        ]

    def _count(self) -> int:
        return min(AT_ONCE, sum(_room(node["Resources"], self._gpus) for node in self._nodes()))

    def slots(self) -> int:
        """Those of the living nodes, of which some may have joined later."""
        now = time.monotonic()
        if now - self._room_at > 1.0:
            self._slots, self._room_at = self._count(), now
        if self._slots:
            self._room_since = now
        elif now - self._room_since > EMPTY_SECONDS:
            raise LabError(
                f"no node of the Ray cluster at {self._address} is left that could take a cell; start one (ray start "
                f"--address {self._address}) and run the same command again"
            )
        return self._slots

    def submit(self, job: Job) -> Future[Result]:
        """Queue the cell's task; nodes that run cells already come last."""
        options: dict[str, Any] = {"name": f"{job['cell']['row']}, seed {job['cell']['seed']}"}
        if self._left_out:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(self._left_out))})"}
        else:
            options["scheduling_strategy"] = "SPREAD"
        task = self._task.options(**options).remote(job, self._gpus)
        self._tasks.append(task)
        return self._threads.submit(self._wait, task)

    def _wait(self, task: Any) -> Result:
        # Not without an end: of a task that is cancelled before it has begun, Ray may never say that it has ended.
        while not self._ray.wait([task], timeout=WAIT_SECONDS)[0]:
            if self._stopped.is_set():
                return Result(error="it was stopped")
        self._tasks.remove(task)
        try:
            result: Result = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            return Result(error=self._what_died(error), passing=True)
        return result

    def _what_died(self, error: Exception) -> str:
        text = str(error)
        if not isinstance(error, self._ray.exceptions.NodeDiedError):
            return f"its Ray task ended ({type(error).__name__}: {_said(text)})"
        node = next((node for node in self._ray.nodes() if node["NodeID"] in text), None)
        return f"its node {_name(node)} died" if node else "its node died"

    def leave_out(self, node: str) -> bool:
        """Give that node no more cells, where another is left."""
        nodes = self._nodes()
        others = [entry for entry in nodes if node != _name(entry)]
        if others:
            self._left_out |= {entry["NodeID"] for entry in nodes if entry not in others}
        return bool(others)

    def stop(self) -> None:
        """Take every task's process from it, which ends the cell's."""
        self._stopped.set()
        for task in list(self._tasks):
            with suppress(self._ray.exceptions.RayError):
                self._ray.cancel(task, force=True)
        # A thread that asks Ray while it shuts down would end this process, with status 1.
        self._threads.shutdown(cancel_futures=True)
        self._ray.shutdown()


def _parameters(options: tuple[str, ...]) -> dict[str, Any]:
    """`slurm_partition=gpu` and the like as submitit's parameters; numbers, true and false become such."""
    parsed: dict[str, Any] = {}
    for name, value in name_values(options, "--slurm-option", "slurm_partition=gpu").items():
        try:
            parsed[name] = json.loads(value)
        except ValueError:
            parsed[name] = value
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
    own = {"name": "omni-lab", "timeout_min": DEFAULT_MINUTES, **({"gpus_per_node": math.ceil(gpus)} if gpus else {})}
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


class SlurmExecutor(Executor):
    """Slurm, or submitit's local executor in its place; a LabError where submitit or Slurm refuses."""

    def __init__(self, kind: str, options: tuple[str, ...], gpus: float) -> None:
        self._executor = _submitit_executor(kind, _parameters(options), gpus)
        self._local = kind == "local"
        self.host = "127.0.0.1" if self._local else _address()
        self._threads = ThreadPoolExecutor(AT_ONCE)
        self._stopped = threading.Event()
        self._handles: list[Any] = []

    def slots(self) -> int:
        """One a core where this machine stands in for Slurm."""
        return available_cores() if self._local else AT_ONCE

    def submit(self, job: Job) -> Future[Result]:
        """Submit the cell's job; a job that was lost is a failure that can pass, but for a limit of Slurm's."""
        handle = self._executor.submit(run_job, job, available_cores() if self._local else 1)
        self._handles.append(handle)
        return self._threads.submit(self._wait, handle)

    def _wait(self, handle: Any) -> Result:
        from submitit.core.utils import UncompletedJobError

        asked = time.monotonic()
        # submitit by itself asks Slurm every ten minutes; one question is for all jobs.
        while not handle.done(force_check=(ask := time.monotonic() - asked > ASK_SECONDS)):
            asked = time.monotonic() if ask else asked
            if self._stopped.wait(WAIT_SECONDS):
                return Result(error="it was stopped")
        self._handles.remove(handle)
        try:
            result: Result = handle.result()  # waits a little, as a shared disk may show it late
        except UncompletedJobError:  # it failed, or left nothing
            state = handle.state
            error = f"its job {handle.job_id} ended as {state} (log: {handle.paths.stderr})"
            return Result(error=error, passing=not any(word in state for word in HOPELESS))
        return result

    def stop(self) -> None:
        """Cancel every job; a cell whose run is closed ends itself, where Slurm takes its time."""
        self._stopped.set()
        for handle in list(self._handles):
            handle.cancel(check=False)
        self._threads.shutdown(cancel_futures=True)
