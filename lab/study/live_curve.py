"""A curve of a run that can be seen while it grows: a training's loss, told step by step."""

import time
from collections.abc import Sequence

from lab.study.tracking import CellRun

SECONDS = 2.0  # between two writings: nobody looks more often, and a step of a small model takes milliseconds


class LiveCurve:
    """Hand it over as `on_step`, then give it all values once more with `finish`.

    Args:
        run: whose metric it is.
        name: of the metric.
        seconds: between two writings.
    """

    def __init__(self, run: CellRun, name: str, *, seconds: float = SECONDS) -> None:
        self.run = run
        self.name = name
        self._seconds = seconds
        self._written = time.monotonic()
        self._waiting: list[tuple[int, float]] = []
        self._told: set[int] = set()

    def __call__(self, step: int, value: float) -> None:
        """Note the value of a step; a step is told once."""
        self._waiting.append((step, value))
        self._told.add(step)
        if time.monotonic() - self._written >= self._seconds:
            self._write()

    def finish(self, values: Sequence[float]) -> None:
        """Write what waits, and of all steps' values those never told: the ones before a checkpoint's."""
        self._waiting += [(step, value) for step, value in enumerate(values) if step not in self._told]
        self._write()

    def _write(self) -> None:
        self.run.log_metrics({self.name: self._waiting})
        self._waiting = []
        self._written = time.monotonic()
