"""Ctrl-C and SIGTERM on a sweep: the first stops it, the second stops it at once, neither tears its end apart."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """A context in which the first SIGINT or SIGTERM raises KeyboardInterrupt, and the second only sets `again`.

    An exception that comes while runs are being closed would leave some open, wherever it struck; so the end looks at
    `again` instead. The third raises once more, for an end that hangs. A SIGINT that was ignored, as in a shell's
    background job, stays ignored. Outside the main thread, which alone hears signals, it does nothing.
    """

    def __init__(self) -> None:
        self._heard = 0
        self._former: dict[signal.Signals, Any] = {}

    @property
    def again(self) -> bool:
        """Whether a second one was heard."""
        return self._heard > 1

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard += 1
        if self._heard != 2:
            raise KeyboardInterrupt

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._former[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
