"""Which GPUs a cell sees: so many of its own, or a share of one, through CUDA_VISIBLE_DEVICES.

A share is a promise between cells, nothing enforces it: two cells at 0.5 GPUs see the same device and each must leave
the other half of its memory. GPU memory is freed with the cell, whose kernel is a process of its own.
"""

import os
import shutil
import subprocess
from itertools import takewhile

from lab.errors import LabError

VARIABLE = "CUDA_VISIBLE_DEVICES"


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
    if (given := os.environ.get(VARIABLE)) is not None:
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
        raise LabError(f"--gpus is {gpus:g}, but this machine shows no GPU ({VARIABLE} and nvidia-smi were asked)")
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
