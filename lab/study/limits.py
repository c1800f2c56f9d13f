"""What a cell may use (time, memory) and how often it is tried again, with the units that people write.

A limit is watched from another process: a notebook that hangs in native code answers no interrupt.
"""

import re
from contextlib import suppress
from dataclasses import dataclass

import psutil

from lab.errors import LabError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"MB": 1e6, "GB": 1e9, "TB": 1e12}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*")

PAUSES = (5.0, 30.0, 180.0)
"""Seconds before the first, second, third further try; the last from there on."""


def family(pid: int) -> list[psutil.Process]:
    """The process and all below it; none where it has ended."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def memory_of(processes: list[psutil.Process]) -> int:
    """Bytes that these processes have to themselves: a fork shares most of what was imported."""
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += process.memory_full_info().uss
    return total


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds and bytes that a cell may take (None: as it likes), and how often it is tried again."""

    seconds: float | None = None
    memory_bytes: int | None = None
    retries: int = 2

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise LabError(f"retries is how often a cell is tried again, from 0; got {self.retries}")

    def exceeded(self, pid: int, seconds: float) -> str:
        """Which limit a process that has run so long, with those below it, is over; empty where none."""
        if self.seconds is not None and seconds > self.seconds:
            return f"it ran longer than its limit of {self.seconds:g} s"
        if self.memory_bytes is not None and (used := memory_of(family(pid))) > self.memory_bytes:
            return f"it used {used / 1e9:.2f} GB of memory, more than its limit of {self.memory_bytes / 1e9:.2f} GB"
        return ""


DEFAULT_LIMITS = Limits()


def parse_seconds(text: str, what: str) -> float:
    """`90s`, `45m`, `2h`, `1h30m`, `1d` in seconds, or a LabError that names `what` and the units."""
    return _quantity(text, what, _SECONDS, "s, m, h or d, as in 90m or 1h30m")


def parse_bytes(text: str, what: str) -> int:
    """`500MB`, `8GB` in bytes, or a LabError that names `what` and the units."""
    return int(_quantity(text, what, _BYTES, "MB, GB or TB, as in 8GB"))


def _quantity(text: str, what: str, units: dict[str, float], choices: str) -> float:
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip() or any(unit not in units for _, unit in parts):
        raise LabError(f"{what} is {text!r}; expected a number with its unit: {choices}")
    total = sum(float(number) * units[unit] for number, unit in parts)
    if total <= 0:
        raise LabError(f"{what} is {text!r}; expected more than nothing")
    return total
