"""One worker of a sweep: a process that runs cells, one after another, with papermill.

It reads jobs as JSON lines and answers with events as JSON lines. The end of its input is the order to stop, so it
stops too when the sweep itself was killed. One process a notebook at a time, as papermill's `cwd=` changes the
directory of the whole process.
"""

import json
import os
import queue
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from lab.study import store


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


_events: Any = None


def emit(event: dict[str, Any]) -> None:
    """Tell the sweep; one that is gone is no reason to leave a run open."""
    with suppress(BrokenPipeError):
        _events.write(json.dumps(event) + "\n")
        _events.flush()


def keep_output_for_events() -> None:
    """Events go to the real output alone; whatever a library or a kernel prints goes to the log."""
    global _events
    _events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)


def main() -> None:
    """Work until the input ends."""
    keep_output_for_events()
    orders = Orders(0)
    store.quiet_mlflow()
    from lab.study.forked_kernels import use_forked_kernels

    template = use_forked_kernels(sys.argv[1:], spare=True)
    import papermill  # noqa: F401  (2.6 s, before the first cell's time counts)
    import psutil

    from lab.study.execution import Execution
    from lab.study.tracking import Recorder

    def kernels() -> list[psutil.Process]:
        below = psutil.Process().children(recursive=True)
        return [process for process in below if template is None or process.pid not in template.idle_pids()]

    recorder = Recorder()
    if template is not None:
        template.is_safe()  # the same: the first cell should not be the slow one
    with store.owner() as owner:
        orders.ready = True
        emit({"event": "ready"})
        while (job := orders.jobs.get()) is not None:
            emit(Execution(job, recorder, owner, orders.stopping, emit, kernels).run())
            if orders.stopping.is_set():
                break
    if template is not None:
        template.close()
    sys.stderr.flush()
    os._exit(0)  # the reading thread would kill nothing more, and exit handlers of the libraries cost 0.3 s


if __name__ == "__main__":
    main()
