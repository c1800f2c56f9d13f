"""Where the cells of a sweep run: on this machine, on a Ray cluster, or as Slurm jobs."""

import queue
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from lab.errors import LabError
from lab.study.driver import Executor
from lab.study.limits import GPUS, check_gpus, shares
from lab.study.worker import Job, Result, Worker


class LocalExecutor(Executor):
    """Workers of this machine, each with GPUs of its own where the sweep deals them out.

    `concurrent.futures` and loky have pools of processes of their own, but give up the whole pool when one of its
    processes is killed, and know nothing of the processes below it.
    """

    def __init__(self, workers: int, modules: Sequence[str] = (), gpus: float = 0.0) -> None:
        devices = [{GPUS: device} for device in shares(gpus, workers)] if gpus else [{}] * workers
        self._workers = [Worker(workers, modules, own) for own in devices]
        self._threads = ThreadPoolExecutor(workers)
        self._free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._free.put(worker)

    def _run(self, job: Job) -> Result:
        worker = self._free.get()
        try:
            return worker.run(job)
        finally:
            self._free.put(worker)

    def slots(self) -> int:
        """One a worker."""
        return len(self._workers)

    def submit(self, job: Job) -> Future[Result]:
        """Give the cell to the next worker that is free."""
        return self._threads.submit(self._run, job)

    def stop(self) -> None:
        """End the workers, all at once."""
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            worker.end()


@dataclass(frozen=True, kw_only=True)
class Machines:
    """The machines of a sweep; this one where neither `ray` nor `slurm` is given."""

    ray: str = ""
    """The address of a Ray cluster, HOST:PORT."""
    slurm: str = ""
    """`slurm`, or `local` for submitit's stand-in on this machine."""
    slurm_options: tuple[str, ...] = ()
    """submitit's parameters as NAME=VALUE."""
    tracking_uri: str = ""
    """A tracking server that serves this machine's store already; else a sweep on others starts one."""
    gpus: float = 0.0
    """GPUs of each cell's own: a share of one, or whole ones; Slurm gives whole ones."""

    def __post_init__(self) -> None:
        if self.ray and self.slurm:
            raise LabError("--ray and --slurm exclude each other; give one of them")
        if self.slurm_options and not self.slurm:
            raise LabError("--slurm-option is for --slurm; give that too, as in --slurm slurm")
        if self.tracking_uri and not self.remote:
            raise LabError("--tracking-uri is for cells on other machines; give --ray ADDRESS or --slurm slurm too")
        check_gpus(self.gpus)

    @property
    def remote(self) -> bool:
        """Whether the cells run elsewhere than in this machine's own workers."""
        return bool(self.ray or self.slurm)

    def check(self, workers: int | None = None) -> int | None:
        """Refuse what is not there, or has no room for `workers` cells at once, before anything is prepared.

        Returns how many cells run at once; None where nothing but this machine's cores says.
        """
        if self.tracking_uri:
            from lab.study.tracking_server import check_server

            check_server(self.tracking_uri)
        if self.ray:
            from lab.study.clusters import check_ray

            return check_ray(self.ray, self.gpus)
        if self.slurm:
            return self.executor(None, ()).slots()
        return len(shares(self.gpus, workers)) if self.gpus else None

    def executor(self, workers: int | None, modules: Sequence[str]) -> Executor:
        """What runs the cells; workers of this machine import `modules` at once."""
        if self.ray:
            from lab.study.clusters import RayExecutor

            return RayExecutor(self.ray, self.gpus)
        if self.slurm:
            from lab.study.clusters import SlurmExecutor

            return SlurmExecutor(self.slurm, self.slurm_options, self.gpus)
        return LocalExecutor(workers or 1, modules, self.gpus)


THIS_MACHINE = Machines()
