"""Where a recipe's shards are worked on, by name: on this machine, or on a Ray cluster.

An engine takes a task and gives a future. What a task makes are files that are whole or not there, so that a task which
is done twice, or whose machine dies, does no harm.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from lab.errors import LabError

# A task is a function without arguments that can be pickled.
Submit = Callable[[Callable[[], dict[str, Any]]], Future[dict[str, Any]]]

# How often Ray gives a task to another node after one that died with it.
RAY_RETRIES = 3


@contextmanager
def local(*, workers: int | None = None, address: str = "") -> Iterator[Submit]:
    """Processes on this machine, as many as it has cores, or as `workers` says; one works in this process."""
    count = min(os.cpu_count() or 1, 8) if workers is None else workers
    # Not forked: Arrow's threads would be left behind in an unknown state. Processes start with the first task.
    spawned = multiprocessing.get_context("spawn")
    pool: Executor = ThreadPoolExecutor(1) if count == 1 else ProcessPoolExecutor(count, mp_context=spawned)
    try:
        yield pool.submit
    except BrokenProcessPool:
        raise LabError(
            "a worker process was killed, by hand or for want of memory; the same command goes on from here (with "
            "fewer --workers, or a smaller shard_rows in the recipe, it needs less)"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def ray(*, workers: int | None = None, address: str = "") -> Iterator[Submit]:
    """Ray tasks on the cluster at `address`, or on one of this machine alone; all nodes see the same cache folder.

    A task whose node dies is done by another. `workers` are those of the cluster of this machine.

    Raises:
        LabError: Ray is not installed, or the cluster loses its nodes time and again.
    """
    try:
        import ray as package
    except ImportError:
        raise LabError("--engine ray needs the package ray, which is missing: pip install -e '.[ray]'") from None
    ours = not package.is_initialized()
    if ours:
        alone: dict[str, Any] = {} if address else {"include_dashboard": False, "num_cpus": workers}
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
        package.init(address=address or None, **quiet, **alone)
    on_node = package.remote(num_cpus=1, max_retries=RAY_RETRIES)(_done)
    try:
        yield lambda task: on_node.remote(task).future()
    except package.exceptions.RayTaskError:
        raise
    except package.exceptions.RayError as error:
        last = next(iter(reversed(str(error).strip().splitlines())), type(error).__name__)
        raise LabError(
            f"the Ray cluster lost a task {RAY_RETRIES + 1} times ({last}); the same command goes on from here"
        ) from error
    finally:
        if ours:
            with suppress(Exception):
                package.shutdown()


def _done(task: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return task()


ENGINES: Mapping[str, Callable[..., AbstractContextManager[Submit]]] = {"local": local, "ray": ray}
