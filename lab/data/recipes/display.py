"""How far the build of a recipe is: bars in a terminal, a line a stage elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def showing() -> Iterator[Callable[[str, int, int], None]]:
    """A `Progress` for `lab.data.recipes.run.build`, shown as long as the context is open."""
    if not sys.stdout.isatty():
        yield _lines()
        return
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    with Progress(*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn()) as bars:
        known: dict[str, Any] = {}

        def progress(stage: str, number: int, total: int) -> None:
            if stage not in known:
                known[stage] = bars.add_task(stage, total=total)
            bars.update(known[stage], completed=number, total=total)

        yield progress


def _lines() -> Callable[[str, int, int], None]:
    begun: dict[str, float] = {}

    def progress(stage: str, number: int, total: int) -> None:
        begun.setdefault(stage, time.monotonic())
        if number == total:
            print(f"{stage}: {total} shards, {time.monotonic() - begun[stage]:.1f} s", flush=True)

    return progress
