"""Where a recipe's shards are worked on, by name: on this machine, or on a Ray cluster.

An engine maps a function over tasks and gives the results as they come, in any order. The function is one of a module,
its tasks can be pickled, its results are JSON; what it makes are files that are whole or not there, so that a task
which is done twice, or whose machine dies, does no harm.
"""

import json
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from lab.errors import LabError

Function = Callable[[Any], dict[str, Any]]
Engine = Callable[[Function, Sequence[Any]], Iterator[dict[str, Any]]]
# Told: the stage, shards done, shards in all.
Progress = Callable[[str, int, int], None]

# How often what is left is given to a cluster again after it lost a node that Ray itself could not make up for.
RAY_ATTEMPTS = 3


@contextmanager
def local(*, workers: int | None = None, address: str = "") -> Iterator[Engine]:
    """Processes on this machine, as many as it has cores, or as `workers` says; `address` is not looked at."""
    count = min(os.cpu_count() or 1, 8) if workers is None else workers
    pools: list[ProcessPoolExecutor] = []

    def run(function: Function, tasks: Sequence[Any]) -> Iterator[dict[str, Any]]:
        if count == 1 or len(tasks) == 1:  # a process takes a second to start
            yield from map(function, tasks)
            return
        if not pools:
            # Not forked: Arrow's threads would be left behind in an unknown state.
            pools.append(ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")))
        waiting = list(reversed(tasks))
        running: set[Future[dict[str, Any]]] = set()
        try:
            while waiting or running:
                while waiting and len(running) < 2 * count:
                    running.add(pools[0].submit(function, waiting.pop()))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise LabError(
                "a worker process was killed, by hand or for want of memory; the same command goes on from here "
                "(with fewer --workers, or a smaller shard_rows in the recipe, it needs less)"
            ) from None

    try:
        yield run
    finally:
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def ray(*, workers: int | None = None, address: str = "") -> Iterator[Engine]:
    """Ray Data on the cluster at `address`, or on one of this machine alone; all nodes see the same cache folder.

    A task whose node dies is done by another. `workers` bounds how many run at once (default: all that have a core).

    Raises:
        LabError: Ray is not installed, or the cluster loses its nodes time and again.
    """
    try:
        import ray as package
        import ray.data as ray_data
    except ImportError:
        raise LabError("--engine ray needs the package ray, which is missing: pip install -e '.[ray]'") from None
    ours = not package.is_initialized()
    if ours:
        alone: dict[str, Any] = {} if address else {"include_dashboard": False, "num_cpus": workers}
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
        package.init(address=address or None, **quiet, **alone)
    context = ray_data.DataContext.get_current()
    context.enable_progress_bars = False

    def run(function: Function, tasks: Sequence[Any]) -> Iterator[dict[str, Any]]:
        left = {number: pickle.dumps((function, task)) for number, task in enumerate(tasks)}
        for attempt in range(RAY_ATTEMPTS):
            rows = [{"number": number, "task": task} for number, task in left.items()]
            dataset = ray_data.from_items(rows, override_num_blocks=len(rows)).map(
                _on_node, num_cpus=1, concurrency=workers
            )
            try:
                for row in dataset.iter_rows():
                    if left.pop(row["number"], None) is not None:
                        yield json.loads(row["result"])
            except package.exceptions.RayTaskError:  # a fault of ours, which another attempt would not mend
                raise
            except package.exceptions.RayError as error:
                if attempt == RAY_ATTEMPTS - 1:
                    last = str(error).strip().splitlines() or [type(error).__name__]
                    raise LabError(
                        f"the Ray cluster failed {RAY_ATTEMPTS} times ({last[-1]}); the same command goes on from here"
                    ) from error
            if not left:
                return

    try:
        yield run
    finally:
        if ours:
            with suppress(Exception):
                package.shutdown()


def _on_node(row: dict[str, Any]) -> dict[str, Any]:
    """One task on its node; what is the user's to mend comes back as a result, because Ray would try it again."""
    function, task = pickle.loads(row["task"])
    try:
        result = function(task)
    except LabError as error:
        result = {"error": str(error)}
    return {"number": row["number"], "result": json.dumps(result)}


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
            if "error" in account:
                raise LabError(account["error"])
            accounts[account["name"]] = account
            progress(what, number, len(tasks))
    except LabError as error:
        raise LabError(f"{what}: {error}") from error
    return [accounts[task.name] for task in tasks]


ENGINES: Mapping[str, Callable[..., AbstractContextManager[Engine]]] = {"local": local, "ray": ray}
