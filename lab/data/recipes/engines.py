"""Where a recipe's shards are worked on, by name: on this machine, or on a Ray cluster.

An engine maps a function over tasks and gives the results as they come, in any order. The function is one of a module,
its tasks can be pickled; what it makes are files that are whole or not there, so that a task which is done twice, or
whose machine dies, does no harm.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from lab.errors import LabError

Function = Callable[[Any], dict[str, Any]]
Engine = Callable[[Function, Sequence[Any]], Iterator[dict[str, Any]]]
# Told: the stage, shards done, shards in all.
Progress = Callable[[str, int, int], None]

# How often Ray gives a task to another node after one that died with it.
RAY_RETRIES = 3


@contextmanager
def local(*, workers: int | None = None, address: str = "") -> Iterator[Engine]:
    """Processes on this machine, as many as it has cores, or as `workers` says; `address` is not looked at."""
    count = min(os.cpu_count() or 1, 8) if workers is None else workers
    # Not forked: Arrow's threads would be left behind in an unknown state. Processes start with the first task.
    pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))

    def run(function: Function, tasks: Sequence[Any]) -> Iterator[dict[str, Any]]:
        if count == 1 or len(tasks) == 1:  # a process takes a second to start
            yield from map(function, tasks)
            return
        try:
            for future in as_completed([pool.submit(function, task) for task in tasks]):
                yield future.result()
        except BrokenProcessPool:
            raise LabError(
                "a worker process was killed, by hand or for want of memory; the same command goes on from here "
                "(with fewer --workers, or a smaller shard_rows in the recipe, it needs less)"
            ) from None

    try:
        yield run
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def ray(*, workers: int | None = None, address: str = "") -> Iterator[Engine]:
    """Ray tasks on the cluster at `address`, or on one of this machine alone; all nodes see the same cache folder.

    A task whose node dies is done by another. `workers` bounds how many run at once (default: all that have a core).

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

    def run(function: Function, tasks: Sequence[Any]) -> Iterator[dict[str, Any]]:
        waiting: list[Any] = list(reversed(tasks))
        running: list[Any] = []
        try:
            while waiting or running:
                while waiting and len(running) < (workers or len(tasks)):
                    running.append(on_node.remote(function, waiting.pop()))
                done, running = package.wait(running)
                yield from package.get(done)
        except package.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, LabError) else error) from None
        except package.exceptions.RayError as error:
            last = next(iter(reversed(str(error).strip().splitlines())), type(error).__name__)
            raise LabError(
                f"the Ray cluster lost a task {RAY_RETRIES + 1} times ({last}); the same command goes on from here"
            ) from error

    try:
        yield run
    finally:
        if ours:
            with suppress(Exception):
                package.shutdown()


def _done(function: Function, task: Any) -> dict[str, Any]:
    return function(task)


def do_all(
    run: Engine, function: Function, tasks: Sequence[Any], ready: Callable[[Any], Any], what: str, progress: Progress
) -> list[dict[str, Any]]:
    """The results of all tasks in their order; those that are `ready` from a former attempt are not given out.

    Raises:
        LabError: what a task finds wrong, after the name of the stage.
    """
    accounts = {task.name: ready(task) for task in tasks}
    missing = [task for task in tasks if accounts[task.name] is None]
    progress(what, len(tasks) - len(missing), len(tasks))
    try:
        for number, account in enumerate(run(function, missing) if missing else (), len(tasks) - len(missing) + 1):
            accounts[account["name"]] = account
            progress(what, number, len(tasks))
    except LabError as error:
        raise LabError(f"{what}: {error}") from error
    return [accounts[task.name] for task in tasks]


ENGINES: Mapping[str, Callable[..., AbstractContextManager[Engine]]] = {"local": local, "ray": ray}
