"""Sweeps at set times, as lines of the user's crontab: each runs `lab unattended`, which is safe to start at any time.

Paths are quoted for the shell, and python-crontab escapes what cron would read itself. A line is known by its comment.
"""

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lab import paths
from lab.errors import LabError
from lab.study.ablation import Ablation
from lab.study.cells import cells

if TYPE_CHECKING:
    from crontab import CronItem, CronTab

MARK = "omni-lab"
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


def check_when(when: str) -> str:
    """The five fields of a cron line, blanks made single.

    Raises:
        LabError: another number of fields, or one that is out of its range or never comes.
    """
    from cronsim import CronSim, CronSimError

    fields = when.split()
    try:
        if len(fields) != 5:
            raise CronSimError("another number of fields")
        next(CronSim(" ".join(fields), datetime.now().astimezone()))
    except (CronSimError, StopIteration) as error:  # the second: a day that never comes
        raise LabError(f"{when!r} is no time for cron; expected five fields: {FIELDS}") from error
    return " ".join(fields)


def next_start(when: str, now: datetime | None = None) -> datetime:
    """When a line starts next, in the user's time zone, which is cron's."""
    from cronsim import CronSim

    return next(CronSim(when, now or datetime.now().astimezone()))


def add(
    ablation: Ablation,
    when: str,
    *,
    rung: str,
    rows: str,
    seeds: str | None = None,
    options: Sequence[str] = (),
    tabfile: Path | None = None,
) -> Scheduled:
    """Add a line to the crontab (or to `tabfile`, for tests and other schedulers).

    Raises:
        LabError: a wrong time, an unknown rung or row, a sweep of this study at this rung that is there already, or no
            crontab on this machine.
    """
    when = check_when(when)
    chosen = [int(seed) for seed in seeds.split(",")] if seeds else None
    cells(ablation, rung, rows if rows in ("main", "all") else rows.split(","), chosen)
    tab = _open(tabfile)
    if any(_is(item, ablation.name, rung) for item in tab):
        raise LabError(
            f"{ablation.name} at rung {rung} is scheduled already; `lab schedule remove {ablation.name} --rung {rung}` "
            "takes it off"
        )
    command = command_of(ablation.name, rung, rows, seeds, options)
    item = tab.new(command=command, comment=_comment(ablation.name, rung))
    item.setall(when)
    tab.write()
    return _scheduled(item)


def entries(tabfile: Path | None = None) -> list[Scheduled]:
    """The sweeps of this checkout that are scheduled."""
    return [_scheduled(item) for item in _open(tabfile) if _is(item)]


def remove(name: str, rung: str, tabfile: Path | None = None) -> None:
    """Take a sweep off; every other line stays as it is.

    Raises:
        LabError: it is not scheduled; the message lists those that are.
    """
    tab = _open(tabfile)
    found = [item for item in tab if _is(item, name, rung)]
    if not found:
        there = ", ".join(f"{entry.name} at rung {entry.rung}" for entry in entries(tabfile)) or "nothing"
        raise LabError(f"{name} at rung {rung} is not scheduled; scheduled is: {there}")
    for item in found:
        tab.remove(item)
    tab.write()


def _open(tabfile: Path | None) -> "CronTab":
    from crontab import CronTab

    if tabfile is None and shutil.which("crontab") is None:
        raise LabError(
            "there is no crontab command on this machine; install cron, or have another scheduler run "
            f"`{Path(sys.executable).with_name('lab')} unattended NAME` in {paths.repository_root()}"
        )
    try:
        return CronTab(tabfile=str(tabfile)) if tabfile else CronTab(user=True)
    except OSError as error:
        raise LabError(f"the crontab cannot be read ({error})") from None


def _comment(name: str, rung: str) -> str:
    return f"{MARK} {name} {rung} {paths.repository_root()}"


def _is(item: "CronItem", name: str | None = None, rung: str | None = None) -> bool:
    words = item.comment.split(" ", 3)
    own = len(words) == 4 and words[0] == MARK and words[3] == str(paths.repository_root())
    return own and (name is None or words[1] == name) and (rung is None or words[2] == rung)


def _scheduled(item: "CronItem") -> Scheduled:
    _, name, rung, _ = item.comment.split(" ", 3)
    when = str(item.slices)
    return Scheduled(name=name, rung=rung, when=when, command=item.command, next_start=next_start(when))
