"""Cells in workers of this machine, each with GPUs of its own where the sweep deals them out."""

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress

from lab.errors import LabError
from lab.study.gpus import VARIABLE, shares
from lab.study.worker import Job, Result, Worker


class LocalExecutor:
    """A thread for each worker, which takes the next job as soon as its worker is ready for one.

    `concurrent.futures` and loky have pools of processes of their own, but give up the whole pool when one of its
    processes is killed, and know nothing of the kernels below it.
    """

    host = "127.0.0.1"

    def __init__(self, workers: int, modules: Sequence[str] = (), gpus: float = 0.0) -> None:
        devices = [{VARIABLE: device} for device in shares(gpus, workers)] if gpus else [{}] * workers
        self._jobs: queue.SimpleQueue[tuple[Job, Future[Result]]] = queue.SimpleQueue()
        self._workers = [Worker(workers, modules, own) for own in devices]
        for worker in self._workers:
            threading.Thread(target=self._serve, args=(worker,), daemon=True).start()

    def _serve(self, worker: Worker) -> None:
        with suppress(LabError):  # a job will start it anew, or say why that cannot be
            worker.wait()
        while True:
            job, future = self._jobs.get()
            try:
                future.set_result(worker.run(job))
            except Exception as error:  # the driver's to judge; nobody hears of one in a thread
                future.set_exception(error)

    def slots(self) -> int:
        """One a worker."""
        return len(self._workers)

    def submit(self, job: Job) -> "Future[Result]":
        """Give the cell to the next worker that is free."""
        future: Future[Result] = Future()
        self._jobs.put((job, future))
        return future

    def leave_out(self, node: str) -> bool:
        """There is no other machine."""
        return False

    def stop(self) -> None:
        """End the workers, all at once."""
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            worker.end()
