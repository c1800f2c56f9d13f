"""Slow calls a few at a time, each result as it comes; when one fails, what is under way is not lost."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TypeVar

from lab.errors import LabError

T = TypeVar("T")


def in_parallel(call: Callable[[int], T], count: int, num_parallel: int) -> Iterator[tuple[int, T]]:
    """Yield each index below `count` with its result, in the order in which they finish.

    Raises:
        LabError: the first that a call raised, after those under way have been given; no further one is begun.
    """
    pool = ThreadPoolExecutor(num_parallel)
    futures: dict[Future[T], int] = {pool.submit(call, index): index for index in range(count)}
    failed: LabError | None = None
    try:
        for future in as_completed(futures):
            if future.cancelled():
                continue
            try:
                result = future.result()
            except LabError as error:
                if failed is None:
                    failed = error
                    for waiting in futures:
                        waiting.cancel()
                continue
            yield futures[future], result
    finally:
        # Also where who asked has stopped listening, or was interrupted.
        pool.shutdown(wait=True, cancel_futures=True)
    if failed is not None:
        raise failed
