"""Sweeps at set times, as lines of the user's crontab: each runs `lab unattended`, which is safe to start at any time.

A line ends with a comment, by which it is known: omni-lab, the study, the rung, the checkout.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cronsim import CronSim, CronSimError

from lab import paths
from lab.errors import LabError
from lab.study.ablation import Ablation, cells

_LINE = re.compile(r"(?P<when>(?:\S+ ){4}\S+) (?P<command>.*) # omni-lab (?P<name>\S+) (?P<rung>\S+) (?P<checkout>.*)")
FIELDS = "minute hour day-of-month month day-of-week, as in '0 2 * * *' (every night at two) or '30 1 * * mon-fri'"


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """One line: which sweep of which checkout, when, and its next start in the user's time zone."""

    name: str
    rung: str
    when: str
    command: str
    next_start: datetime


def command_of(name: str, rung: str, rows: str, seeds: str | None, options: Sequence[str] = ()) -> str:
    """The shell command of a scheduled sweep of this checkout, in this environment."""
    lab = Path(sys.executable).with_name("lab")
    words = [str(lab), "unattended", name, "--rung", rung, "--rows", rows]
    words += ["--seeds", seeds] if seeds else []
    folder = shlex.quote(str(paths.repository_root()))
    where = f"OMNI_LAB_MLRUNS={shlex.quote(str(paths.mlruns_dir().resolve()))} "
    where += f"OMNI_LAB_CACHE={shlex.quote(str(paths.cache_dir().resolve()))}"
    return f"cd {folder} && {where} {shlex.join([*words, *options])}"


def next_start(when: str, now: datetime | None = None) -> datetime:
    """When a line of these five fields starts next, in the user's time zone, which is cron's; a LabError if never."""
    try:
        if len(when.split()) != 5:
            raise CronSimError("another number of fields")
        return next(CronSim(when, now or datetime.now().astimezone()))
    except (CronSimError, StopIteration) as error:  # the second: a day that never comes
        raise LabError(f"{when!r} is no time for cron; expected five fields: {FIELDS}") from error


def add(
    ablation: Ablation,
    when: str,
    *,
    rung: str,
    rows: str,
    seeds: str | None = None,
    options: Sequence[str] = (),
) -> Scheduled:
    """Add a line to the user's crontab.

    Raises:
        LabError: a wrong time, an unknown rung or row, a sweep that is there already, or no crontab on this machine.
    """
    when = " ".join(when.split())
    start = next_start(when)
    chosen = [int(seed) for seed in seeds.split(",")] if seeds else None
    cells(ablation, rung, rows if rows in ("main", "all") else rows.split(","), chosen)
    if any((entry.name, entry.rung) == (ablation.name, rung) for entry in entries()):
        raise LabError(
            f"{ablation.name} at rung {rung} is scheduled already; `lab schedule remove {ablation.name} --rung {rung}` "
            "takes it off"
        )
    command = command_of(ablation.name, rung, rows, seeds, options)
    escaped = command.replace("%", r"\%")  # cron reads a bare one as the end of the line
    line = f"{when} {escaped} # omni-lab {ablation.name} {rung} {paths.repository_root()}"
    _write([*_read(), line])
    return Scheduled(name=ablation.name, rung=rung, when=when, command=command, next_start=start)


def entries() -> list[Scheduled]:
    """The sweeps of this checkout that are scheduled."""
    return [found for line in _read() if (found := _scheduled(line))]


def remove(name: str, rung: str) -> None:
    """Take a sweep off; every other line stays as it is. A LabError lists what is scheduled where this is not."""
    lines = [(line, _scheduled(line)) for line in _read()]
    left = [line for line, found in lines if not found or (found.name, found.rung) != (name, rung)]
    if len(left) == len(lines):
        there = ", ".join(f"{found.name} at rung {found.rung}" for _, found in lines if found) or "nothing"
        raise LabError(f"{name} at rung {rung} is not scheduled; scheduled is: {there}")
    _write(left)


def _scheduled(line: str) -> Scheduled | None:
    """What a line of this checkout's schedules; None for any other line."""
    found = _LINE.fullmatch(line)
    if found is None or found["checkout"] != str(paths.repository_root()):
        return None
    command, start = found["command"].replace(r"\%", "%"), next_start(found["when"])
    return Scheduled(name=found["name"], rung=found["rung"], when=found["when"], command=command, next_start=start)


def _read() -> list[str]:
    if shutil.which("crontab") is None:
        raise LabError(
            "there is no crontab command on this machine; install cron, or have another scheduler run "
            f"`{Path(sys.executable).with_name('lab')} unattended NAME` in {paths.repository_root()}"
        )
    told = subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=False)
    if told.returncode and "no crontab" not in told.stderr.lower():
        raise LabError(f"the crontab cannot be read ({told.stderr.strip()})")
    return told.stdout.splitlines()


def _write(lines: Sequence[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(["crontab", "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"the crontab cannot be written ({done.stderr.strip()})")
