"""What a cell may use (time, memory, GPUs) and how often it is tried again, with the units that people write.

A limit is watched from another process: a notebook that hangs in native code answers no interrupt. A share of a GPU is
a promise between cells: two at 0.5 see the same device, and each must leave the other half of its memory.
"""

import os
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile

import psutil

from lab.errors import LabError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"MB": 1e6, "GB": 1e9, "TB": 1e12}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*")

GPUS = "CUDA_VISIBLE_DEVICES"
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


def check_gpus(gpus: float) -> None:
    """Refuse GPUs a cell that are neither 0 (cells see what there is), nor a share of one, nor a whole number."""
    if not (gpus == 0 or 0 < gpus <= 1 or (gpus > 1 and float(gpus).is_integer())):
        raise LabError(
            f"--gpus is {gpus:g}; expected GPUs of each cell's own: a whole number, or a share of one such as 0.5"
        )


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none where there is no driver.

    torch is not asked: it takes seconds to import, and must not initialise CUDA in a process that forks.
    """
    if (given := os.environ.get(GPUS)) is not None:
        # As CUDA does, which ignores whatever follows an invalid entry such as -1.
        devices = [part.strip() for part in given.split(",")]
        return list(takewhile(lambda device: device and not device.startswith("-"), devices))
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    try:
        told = subprocess.run([program, "-L"], capture_output=True, text=True, check=False, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in told.splitlines()))]


def shares(gpus: float, workers: int | None = None) -> list[str]:
    """What CUDA_VISIBLE_DEVICES is for each of `workers` cells at once (as many as fit where None).

    Two GPUs, 0.5 a cell: "0", "1", "0", "1", so that few cells spread out. Four GPUs, 2 a cell: "0,1", "2,3".
    A LabError where this machine has no GPU, or not enough for so many cells at once.
    """
    devices = visible_gpus()
    if not devices:
        raise LabError(f"--gpus is {gpus:g}, but this machine shows no GPU ({GPUS} and nvidia-smi were asked)")
    if gpus >= 1:
        size = int(gpus)
        slots = [",".join(devices[at : at + size]) for at in range(0, len(devices) - size + 1, size)]
    else:
        slots = devices * int(1 / gpus + 1e-9)
    if len(slots) < (workers or 1):
        raise LabError(
            f"{workers or 1} cell{'s' * ((workers or 1) > 1)} at once with {gpus:g} GPUs each need more than the "
            f"{len(devices)} of this machine, which hold {len(slots)}; lower --workers or --gpus"
        )
    return slots[:workers]
