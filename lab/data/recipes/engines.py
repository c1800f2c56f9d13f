"""Where a recipe's shards are worked on, by name: on this machine, or on a Ray cluster.

A task writes files that are whole or not there, and then the account of them; so it does no harm that a task is done
twice or that its machine dies, and a task whose account is there is not done again.
"""

import json
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lab.errors import LabError
from lab.paths import write_whole

Account = dict[str, Any]
# Writes the files whose names begin with a path, and returns their account; it can be pickled.
Task = Callable[[Path], Account]
Submit = Callable[[Callable[[], None]], Future[None]]

# How often Ray gives a task to another node after one that died with it.
RAY_RETRIES = 3


def read_json(path: Path) -> Any:
    """What `write_json` wrote; None where it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def do_all(submit: Submit, what: str, tasks: Mapping[Path, Task]) -> list[Account]:
    """The accounts of all tasks in their order, with a bar; those of a former build are not done again.

    Raises:
        LabError: what a task finds wrong, after `what`, the name of the stage.
    """
    futures = [submit(partial(_done, task, path)) for path, task in tasks.items() if not _account_of(path).exists()]
    there = len(tasks) - len(futures)
    try:
        with tqdm(desc=what, total=len(tasks), initial=there, unit=" shards", mininterval=1) as bar:
            for future in as_completed(futures):
                future.result()
                bar.update()
    except LabError as error:
        # Of a Ray task, the error is told with its traceback; the cause is what the task raised.
        raise LabError(f"{what}: {getattr(error, 'cause', error)}") from error
    return [read_json(_account_of(path)) for path in tasks]


def _account_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _done(task: Task, path: Path) -> None:
    if not path.parent.is_dir():
        raise LabError(
            f"{socket.gethostname()} does not see the folder {path.parent}; all nodes of a cluster need the same cache "
            "folder, on storage that they share (OMNI_LAB_CACHE names it)"
        )
    write_json(_account_of(path), task(path))


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
    on_node = package.remote(num_cpus=1, max_retries=RAY_RETRIES)(_called)
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


def _called(task: Callable[[], None]) -> None:
    task()


ENGINES: Mapping[str, Callable[..., AbstractContextManager[Submit]]] = {"local": local, "ray": ray}
