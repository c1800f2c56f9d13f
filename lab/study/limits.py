"""What a cell may use (time, memory) and how often it is tried again, with the units that people write.

A limit is watched from outside the kernel: a notebook that hangs in native code answers no interrupt.
"""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from lab.errors import LabError

WATCH_SECONDS = 1.0

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"MB": 1_000_000, "GB": 1_000_000_000, "TB": 1_000_000_000_000}
_PARTS = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*")

# What can pass by itself. A wrong parameter or a loss that is not finite would come again.
PASSING = frozenset(
    {
        "ConnectionError",
        "ConnectionResetError",
        "ConnectTimeout",
        "ReadTimeout",
        "HTTPError",
        "HfHubHTTPError",
        "TimeoutError",
        "Timeout",
        "OperationalError",
        "DeadKernelError",
    }
)
PAUSES = (5.0, 30.0, 180.0)
"""Seconds before the first, second, third further try; the last from there on."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds and bytes that a cell may take (None: as it likes), and how often it is tried again."""

    seconds: float | None = None
    memory_bytes: int | None = None
    retries: int = 2

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise LabError(f"retries is how often a cell is tried again, from 0; got {self.retries}")


DEFAULT_LIMITS = Limits()


def parse_seconds(text: str, what: str) -> float:
    """`90s`, `45m`, `2h`, `1h30m`, `1d` in seconds.

    Raises:
        LabError: no number, no unit, an unknown one, or nothing left of it.
    """
    return _quantity(text, what, _SECONDS, "s, m, h or d, as in 90m or 1h30m")


def parse_bytes(text: str, what: str) -> int:
    """`500MB`, `8GB` in bytes.

    Raises:
        LabError: no number, no unit, an unknown one, or nothing left of it.
    """
    return int(_quantity(text, what, _BYTES, "MB, GB or TB, as in 8GB"))


def _quantity(text: str, what: str, units: dict[str, float] | dict[str, int], choices: str) -> float:
    parts = _PARTS.findall(text)
    whole = "".join(_PARTS.split(text)[::3]).strip() == ""
    if not parts or not whole or any(unit not in units for _, unit in parts):
        raise LabError(f"{what} is {text!r}; expected a number with its unit: {choices}")
    total = sum(float(number) * units[unit] for number, unit in parts)
    if total <= 0:
        raise LabError(f"{what} is {text!r}; expected more than nothing")
    return total


def memory_of(processes: list[psutil.Process]) -> int:
    """Bytes that these processes have to themselves: a forked kernel shares most of what it imported."""
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().uss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


class Watch:
    """Watches the processes of one cell from a thread, and kills them when they are over a limit.

    `processes` gives them anew at every look; `why` says afterwards which limit it was, and is empty where none was.
    """

    def __init__(self, limits: Limits, processes: Callable[[], list[psutil.Process]]) -> None:
        self.why = ""
        self._limits, self._processes = limits, processes
        self._done = threading.Event()
        self._begun = time.monotonic()
        self._thread = threading.Thread(target=self._look, daemon=True)
        if limits.seconds is not None or limits.memory_bytes is not None:
            self._thread.start()

    def _look(self) -> None:
        while not self._done.wait(WATCH_SECONDS):
            processes = self._processes()
            self.why = self.why or self._over(processes)
            if self.why:  # again and again: a kernel may just be starting
                for process in processes:
                    try:
                        process.kill()
                    except psutil.NoSuchProcess:
                        continue

    def _over(self, processes: list[psutil.Process]) -> str:
        limits = self._limits
        if limits.seconds is not None and time.monotonic() - self._begun > limits.seconds:
            return f"it ran longer than its limit of {limits.seconds:g} s"
        if limits.memory_bytes is not None and (used := memory_of(processes)) > limits.memory_bytes:
            return f"it used {used / 1e9:.2f} GB of memory, more than its limit of {limits.memory_bytes / 1e9:.2f} GB"
        return ""

    def stop(self) -> None:
        """Look no more."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
