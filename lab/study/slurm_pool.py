"""Cells as Slurm jobs through submitit: one job a cell, its events a file in the folder that the nodes share.

`mlruns/` has to lie on a disk that every node sees. submitit's `local` executor runs the same jobs as processes of
this machine.
"""

import json
import math
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import paths
from lab.errors import LabError, choose
from lab.study.pool import Event, Job, available_cores

KINDS = {"slurm": "sbatch on this machine", "local": "processes of this machine"}
LATE_SECONDS = 10.0  # what a shared disk may take to show the last words of a job that has ended
ASK_SECONDS = 60.0  # between two calls of sacct, which is what tells of a node that died
UNLIMITED = 1_000_000  # cells that Slurm's own queue takes
DEFAULT_MINUTES = 24 * 60  # submitit's own five would end every cell
HOPELESS = ("TIMEOUT", "OUT_OF_MEMORY", "CANCELLED")
"""How a job ends that would end the same way again, or that somebody wanted to end."""


def parse_options(options: tuple[str, ...]) -> dict[str, Any]:
    """`slurm_partition=gpu` and the like as submitit's parameters; numbers, true and false become such.

    Raises:
        LabError: one is not of the form key=value.
    """
    parsed: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key.strip():
            raise LabError(f"--slurm-option is {option!r}; expected key=value, such as slurm_partition=gpu")
        try:
            parsed[key.strip()] = json.loads(value)
        except ValueError:
            parsed[key.strip()] = value
    return parsed


def _executor(kind: str, options: Mapping[str, Any], gpus: float) -> Any:
    """submitit's executor with these options.

    Raises:
        LabError: no package, no Slurm on this machine, or an option that submitit does not know.
    """
    choose(KINDS, kind, "cluster for --slurm:")
    try:
        import submitit
    except ImportError:
        raise LabError("--slurm needs the package submitit, which is missing: pip install -e '.[slurm]'") from None
    if kind == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise LabError("--slurm slurm needs Slurm's sbatch and srun, which this machine has not; run it where they are")
    executor = submitit.AutoExecutor(folder=paths.mlruns_dir().resolve() / "slurm", cluster=kind)
    own: dict[str, Any] = {"name": "omni-lab", "timeout_min": DEFAULT_MINUTES}
    if gpus:
        own["gpus_per_node"] = math.ceil(gpus)
    try:
        executor.update_parameters(**{**own, **options})
    except (NameError, TypeError, ValueError, AssertionError) as error:
        raise LabError(f"submitit does not take these Slurm options: {' '.join(str(error).split())}") from None
    return executor


def check_slurm(kind: str, options: tuple[str, ...], gpus: float) -> int:
    """Refuse what submitit could not submit; returns how many cells run at once.

    Raises:
        LabError: see `parse_options` and `_executor`.
    """
    _executor(kind, parse_options(options), gpus)
    return _slots(kind)


def _slots(kind: str) -> int:
    """All cells at once, as Slurm has a queue; one a core where this machine stands in for it."""
    return available_cores() if kind == "local" else UNLIMITED


def _address() -> str:
    """This machine's address on the way to others; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("10.255.255.255", 1))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def run_job(job: Job, events: str, stop: str, cells_at_once: int) -> None:
    """A Slurm job: run the cell, write its events to a file, stop it when the file `stop` is there."""
    from lab.study.remote import node_name, run_cell

    number = os.environ.get("SLURM_JOB_ID", "")
    node = node_name(f"job {number}" if number else "")
    with Path(events).open("a", encoding="utf-8") as file:
        for event in [{"event": "placed", "node": node}]:
            file.write(json.dumps(event) + "\n")
            file.flush()
        for event in run_cell(job, node, cells_at_once, stopped=Path(stop).exists):
            file.write(json.dumps(event) + "\n")
            file.flush()


@dataclass
class _Submitted:
    number: int
    handle: Any
    events: Path
    read: int = 0
    ended_at: float | None = None


class SlurmCluster:
    """Slurm, or submitit's local executor in its place."""

    def __init__(self, kind: str, options: tuple[str, ...], gpus: float) -> None:
        self._kind = kind
        self._executor = _executor(kind, parse_options(options), gpus)
        self.host = "127.0.0.1" if kind == "local" else _address()
        self._folder = paths.mlruns_dir().resolve() / "slurm" / f"events-{uuid.uuid4().hex[:8]}"
        self._folder.mkdir(parents=True)
        self._stop = self._folder / "stop"
        self._submitted: list[_Submitted] = []
        self._count = 0
        self._asked = time.monotonic()

    def slots(self) -> int:
        """How many cells are submitted at once."""
        return _slots(self._kind)

    def submit(self, job: Job) -> None:
        """Submit the cell's job."""
        self._count += 1
        events = self._folder / f"{self._count}.jsonl"
        at_once = available_cores() if self._kind == "local" else 1
        handle = self._executor.submit(run_job, job, str(events), str(self._stop), at_once)
        self._submitted.append(_Submitted(job["id"], handle, events))

    def events(self, seconds: float) -> list[tuple[int, Event]]:
        """What the jobs have written since the last look."""
        found = []
        asked = time.monotonic()
        if self._submitted and asked - self._asked > ASK_SECONDS:  # submitit by itself asks every ten minutes
            self._submitted[0].handle.done(force_check=True)
            self._asked = asked
        for entry in list(self._submitted):
            ended = entry.handle.done()
            own = self._read(entry)
            found += [(entry.number, event) for event in own]
            if any(event["event"] in ("finished", "lost") for event in own):
                self._submitted.remove(entry)
            elif ended and own == []:
                entry.ended_at = entry.ended_at or time.monotonic()
                if time.monotonic() - entry.ended_at > (LATE_SECONDS if self._kind == "slurm" else 1.0):
                    self._submitted.remove(entry)
                    found.append((entry.number, self._death(entry)))
        if not found:
            time.sleep(seconds)
        return found

    def _read(self, entry: _Submitted) -> list[Event]:
        if not entry.events.exists():
            return []
        with entry.events.open("rb") as file:
            file.seek(entry.read)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]  # the last line may be half written
        entry.read += len(data)
        return [json.loads(line) for line in data.splitlines()]

    def _death(self, entry: _Submitted) -> Event:
        state = entry.handle.state
        error = f"its job {entry.handle.job_id} ended as {state} (log: {entry.handle.paths.stderr})"
        return {"event": "lost", "error": error, "passing": not any(word in state for word in HOPELESS)}

    def leave_out(self, node: str) -> bool:
        """Slurm chooses the nodes, and they share one checkout."""
        return False

    def stop(self, seconds: float, at_once: Callable[[], bool] = lambda: False) -> None:
        """Tell every job by the file `stop`, cancel those that have not begun, and after that the rest."""
        self._stop.touch()
        for entry in self._submitted:
            if not entry.events.exists():
                entry.handle.cancel(check=False)
        deadline = time.monotonic() + seconds
        while self._submitted and time.monotonic() < deadline and not at_once():
            self.events(0.1)
            self._submitted = [entry for entry in self._submitted if not entry.handle.done()]
        for entry in self._submitted:
            entry.handle.cancel(check=False)
        self._submitted.clear()
