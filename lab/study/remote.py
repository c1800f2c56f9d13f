"""What a node of a cluster does with a cell: runs it in a process of its own and tells what happens to it.

The process (`lab.study.remote_worker`) does the work; whatever holds the node (a Ray task, a Slurm job) holds nothing
but a pipe to it, so that no memory, GPU or process of the cell survives the cell.
"""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from lab import paths
from lab.study.pool import Event, Job, worker_environment
from lab.study.worker import kill_children

STOP_SECONDS = 4.0  # what a cell has to deliver what it measured, before it is killed
TICK_SECONDS = 0.25


def node_name(detail: str = "") -> str:
    """How messages and runs name this machine."""
    return f"{socket.gethostname()} ({detail})" if detail else socket.gethostname()


def _death(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def run_cell(
    job: Job, node: str, cells_at_once: int = 1, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Event]:
    """Run the job's cell on this machine; yields its events, the last of them `finished` or `lost`.

    Closing the generator, or `stopped` becoming true, stops the cell. Its run is left RUNNING for the driver to close.

    Args:
        node: this machine's name.
        cells_at_once: how many cells share the machine's cores.
    """
    log = paths.mlruns_dir() / "logs" / f"cell-{job['cell']['key']}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab.study.remote_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=worker_environment(cells_at_once),
            start_new_session=True,
        )
    events: queue.Queue[Event] = queue.Queue()
    threading.Thread(target=_read, args=(process, events), daemon=True).start()
    try:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it died; its exit event follows
            process.stdin.write(json.dumps({**job, "node": node}).encode() + b"\n")
            process.stdin.flush()
        while not stopped():
            # A wait without an end would hold back the exception by which Ray cancels a task.
            with suppress(queue.Empty):
                event = events.get(timeout=TICK_SECONDS)
                if event["event"] == "exit":
                    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
                    error = f"its process on node {node} died ({_death(event['code'])}; log there: {log}): {lines[-1]}"
                    yield {"event": "lost", "error": error}
                    return
                yield event
                if event["event"] == "finished":
                    return
        yield {"event": "lost", "error": "it was stopped"}
    finally:
        _end(process)


def _read(process: "subprocess.Popen[bytes]", events: "queue.Queue[Event]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        events.put(json.loads(line))
    events.put({"event": "exit", "code": process.wait()})


def _end(process: "subprocess.Popen[bytes]") -> None:
    """The end of its input is the order to stop."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        kill_children(process.pid)
        process.kill()
        process.wait()
