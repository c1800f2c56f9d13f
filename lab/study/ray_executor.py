"""Cells on a Ray cluster: one task a cell, placed and given its GPUs by Ray; what is done stands in our own store.

Ray tries nothing again by itself (`max_retries=0`): a task whose node died is a failed try, and the driver tries again.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from lab.errors import LabError
from lab.study.worker import Job, Result, run_once

CONNECT_SECONDS = 5.0
CHECK_SECONDS = 20.0  # importing Ray and connecting take 3 s on a quiet machine
WAIT_SECONDS = 0.5
AT_ONCE = 1000  # a thread waits for each task
EMPTY_SECONDS = 120.0  # how long a cluster may be without any node that can take a cell

_NOT_OURS = (
    "what is at {address} does not answer as a Ray cluster of which this machine is a node "
    "(a machine joins by: ray start --address {address})"
)

_CHECK = """
import json, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR", configure_logging=False)
print("nodes:" + json.dumps([node["Resources"] for node in ray.nodes() if node["Alive"]]), flush=True)
"""


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
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _CHECK, address], capture_output=True, text=True, check=False, timeout=CHECK_SECONDS
        )
    except subprocess.TimeoutExpired:  # Ray waits for a node on this machine, or for an answer
        raise LabError(f"{_NOT_OURS.format(address=address)}; {expected}") from None
    told = [line for line in asked.stdout.splitlines() if line.startswith("nodes:")]
    if not told:
        raise LabError(_refusal(address, asked.stderr, expected))
    nodes = json.loads(told[-1].removeprefix("nodes:"))
    slots = sum(_room(node, gpus) for node in nodes)
    if not slots:
        have = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise LabError(
            f"no node of the Ray cluster at {address} has 1 CPU and {gpus:g} GPUs for a cell; its nodes have {have}"
        )
    return slots


def _refusal(address: str, printed: str, expected: str) -> str:
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    start = next((number for number, line in enumerate(lines) if "Version mismatch" in line), None)
    if start is not None:
        told = " ".join(lines[start:])
        return f"the Ray cluster at {address} is another version ({told}); all machines need the same Ray and Python"
    last = lines[-1] if lines else "it said nothing"
    return f"{_NOT_OURS.format(address=address)} ({last}); {expected}"


def _run_task(job: Job, gpus: float) -> Result:
    """The task of one cell, on its node."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    return run_once(job, _name(node), max(1, _room(node["Resources"], gpus)))


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"


class RayExecutor:
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
        """How many cells the living nodes take at once; those that join later are counted too.

        Raises:
            LabError: there has been no node for a cell for some minutes.
        """
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

    def submit(self, job: Job) -> "Future[Result]":
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
        if isinstance(error, self._ray.exceptions.NodeDiedError):
            words = text.replace(",", " ").replace(".", " ").split()
            ids = [word for word in words if len(word) == 56]
            node = next((node for node in self._ray.nodes() if ids and node["NodeID"] == ids[0]), None)
            return f"its node {_name(node)} died" if node else "its node died"
        last = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
        return f"its Ray task ended ({type(error).__name__}: {last[-1]})"

    def leave_out(self, node: str) -> bool:
        """Give that node no more cells; False, and it stays, where no other would be left."""
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
