"""The loss of a cell while it trains, beside its run, for whoever looks meanwhile.

A notebook hands its curves over when its training has ended, and its code, like that of the training, is part of what
a cell is: changing either so that one can look would make every finished run stale. What training offers is `on_step`,
and no notebook asks for it. So here, in the kernel of a cell, `on_step` gets another default. Training that is given
an `on_step` of its own, as that of a scorer within a cell, is not the cell's curve and is left alone.
"""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

TRAINING = (
    ("lab.training.loop", "train"),
    ("lab.training.stage_loop", "train_stage"),
    ("lab.training.image_text_training", "train_image_text"),
)
"""Modules, and their functions that take `on_step`: what a notebook calls, and what it reaches by them."""

EVERY_SECONDS = 2.0
FILE = "live.jsonl"


class LiveCurve:
    """Told each step and its loss; adds them to a file now and then, or nowhere once its folder is gone."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._waiting: list[str] = []
        self._first, self._last = 0, -1
        self._due = 0.0

    def __call__(self, step: int, loss: float) -> None:
        """Steps that begin again are those of a next stage, and stand behind the last one's."""
        if self._first + step <= self._last:
            self._first = self._last + 1
        self._last = self._first + step
        self._waiting.append(json.dumps([self._last, loss]))
        if (now := time.monotonic()) >= self._due:
            self._due = now + EVERY_SECONDS
            # The record itself is kept by others: a full disk, or a run that is closed, is no reason to fail here.
            with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
                file.write("\n".join(self._waiting) + "\n")
            self._waiting.clear()


def watch(folder: Path) -> None:
    """Have the training of this process told to a new curve in that folder, in the place of any other."""
    _set_default(LiveCurve(folder))


def unwatch() -> None:
    """Have it told to nobody."""
    _set_default(None)


def _set_default(on_step: LiveCurve | None) -> None:
    for module, name in TRAINING:
        # What is not imported trains nothing, and importing torch here would make every `cell_run` wait for it.
        if module in sys.modules:
            getattr(sys.modules[module], name).__kwdefaults__["on_step"] = on_step


def read_live(folder: Path) -> list[tuple[int, float]]:
    """The points (step, loss) so far, by rising step; none where nothing trains."""
    points: dict[int, float] = {}
    with suppress(FileNotFoundError), (folder / FILE).open(encoding="utf-8") as lines:
        for line in lines:
            with suppress(ValueError):  # a line that is being written
                step, loss = json.loads(line)
                points[step] = loss
    return sorted(points.items())
