"""Where the cells of a sweep run: on this machine, on a Ray cluster, or as Slurm jobs."""

from collections.abc import Sequence
from dataclasses import dataclass

from lab.errors import LabError
from lab.study.driver import Executor
from lab.study.gpus import check_gpus, shares
from lab.study.local_executor import LocalExecutor


@dataclass(frozen=True, kw_only=True)
class Machines:
    """The machines of a sweep; this one where neither `ray` nor `slurm` is given."""

    ray: str = ""
    """The address of a Ray cluster, HOST:PORT."""
    slurm: str = ""
    """`slurm`, or `local` for submitit's stand-in on this machine."""
    slurm_options: tuple[str, ...] = ()
    """submitit's parameters as key=value."""
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
        """Refuse what cannot be reached or is not there for `workers` cells at once, before anything is prepared.

        Returns how many cells run at once; None where nothing but this machine's cores says.

        Raises:
            LabError: the name, and what was expected.
        """
        if self.tracking_uri:
            from lab.study.tracking_server import check_server

            check_server(self.tracking_uri)
        if self.ray:
            from lab.study.ray_executor import check_ray

            return check_ray(self.ray, self.gpus)
        if self.slurm:
            from lab.study.slurm_executor import SlurmExecutor

            return SlurmExecutor(self.slurm, self.slurm_options, self.gpus).slots()
        return len(shares(self.gpus, workers)) if self.gpus else None

    def executor(self, workers: int | None, modules: Sequence[str]) -> Executor:
        """What runs the cells; workers of this machine import `modules` at once."""
        if self.ray:
            from lab.study.ray_executor import RayExecutor

            return RayExecutor(self.ray, self.gpus)
        if self.slurm:
            from lab.study.slurm_executor import SlurmExecutor

            return SlurmExecutor(self.slurm, self.slurm_options, self.gpus)
        return LocalExecutor(workers or 1, modules, self.gpus)


THIS_MACHINE = Machines()
