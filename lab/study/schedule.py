"""Sweeps at set times: lines of the user's crontab, each of which runs `lab unattended`.

A line ends with a comment, by which it is known: omni-lab, the study, the rung, the checkout. What it runs is safe to
start from any other scheduler at any time: where the last one still runs, it does nothing. `mlruns/unattended/` holds
NAME-RUNG.log (appended), NAME-RUNG.md (the last report) and the lock; reports are kept with the study's run in MLflow
too.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from cronsim import CronSim, CronSimError
from filelock import FileLock, Timeout

from lab import paths
from lab.errors import LabError
from lab.study import tracking
from lab.study.ablation import Ablation, cells
from lab.study.plan import Display, clock, describe, reason
from lab.study.sweep import Outcome, reproduce

_LINE = re.compile(
    r"\s*(?P<when>@\w+|[^\s#]\S*(?:\s+\S+){4})\s+(?P<command>.*)"
    r" # omni-lab (?P<name>\S+) (?P<rung>\S+) (?P<checkout>.*)"
)
_ONE = r"(?:\d+|[A-Za-z]{3})"
_ITEM = rf"(?:\*(?:/\d+)?|{_ONE}(?:-{_ONE}(?:/\d+)?)?)"
_FIELD = re.compile(rf"{_ITEM}(?:,{_ITEM})*")  # CronSim reads more, as L, fri#2 and 5/15, which crons refuse or misread
FIELDS = (
    "minute hour day-of-month month day-of-week, as in '0 2 * * *' (every night at two) or '30 1 * * mon-fri'; a step "
    "follows * or a range, as in '5-59/15 * * * *'"
)


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """One line: which sweep of which checkout, when, and its next start in the user's time zone.

    None where the line was changed by hand to what cron alone reads, as @daily.
    """

    name: str
    rung: str
    when: str
    command: str
    next_start: datetime | None

    def __str__(self) -> str:
        told = f"{self.next_start:%Y-%m-%d %H:%M %Z}" if self.next_start else "as cron reads it"
        return f"{self.name} ({self.rung}) at {self.when}; next: {told}"


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
        if len(when.split()) != 5 or not all(map(_FIELD.fullmatch, when.split())):
            raise CronSimError("another number of fields, or a sign that not every cron knows")
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
    """What a line of this checkout's schedules; None for any other line, and for one that is commented out."""
    found = _LINE.fullmatch(line)
    if found is None or found["checkout"] != str(paths.repository_root()):
        return None
    start = None
    with suppress(LabError):
        start = next_start(found["when"])
    command = found["command"].replace(r"\%", "%")
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


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a sweep left: its outcome, and the Markdown of its report."""

    outcome: Outcome
    text: str
    path: Path


def folder() -> Path:
    """Where logs and reports of unattended sweeps lie."""
    return paths.mlruns_dir() / "unattended"


def run_unattended(
    ablation: Ablation, *, rung: str, sweep: Callable[..., Outcome] = reproduce, **options: Any
) -> Report | None:
    """Bring a study up to date and report; None where another unattended sweep of it is still running.

    `sweep` brings it up to date with the other options: `reproduce`, or `lab.study.adaptive.until_decided` with its
    question.
    """
    stem = folder() / f"{ablation.name}-{rung}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    with stem.with_suffix(".log").open("a", encoding="utf-8", buffering=1) as log:
        begun = datetime.now().astimezone()
        print(f"{begun:%Y-%m-%d %H:%M:%S %Z} {ablation.name} ({rung}), process {os.getpid()}", file=log)
        try:
            with FileLock(stem.with_suffix(".lock"), timeout=0):
                return _sweep_and_report(ablation, rung, partial(sweep, **options), begun, stem, log)
        except Timeout:
            print("left to the last one, which is still running", file=log)
            return None


def _sweep_and_report(
    ablation: Ablation, rung: str, sweep: Callable[..., Outcome], begun: datetime, stem: Path, log: TextIO
) -> Report:
    path = stem.with_suffix(".md")
    display = Display(ablation, rung, file=log)
    try:
        outcome = sweep(ablation, rung=rung, display=display)
    except LabError as error:
        print(f"error: {error}", file=log)
        paths.write_whole(path, f"{_title(ablation, rung, begun)}\n\n**It could not start:** {error}\n")
        raise
    display.say(describe(outcome.planned))
    text = compose(ablation, rung, outcome, begun, datetime.now().astimezone())
    paths.write_whole(path, text)
    study = tracking.find_study(ablation.name, rung)
    if study is not None:
        recorder, name = tracking.Recorder(), f"{begun:%Y%m%d-%H%M%S}"
        recorder.keep(study.run_id, f"reports/{name}.md", text)
        recorder.tag(study.run_id, {"last_sweep": f"{name}: {describe(outcome.planned)}"})
    return Report(outcome=outcome, text=text, path=path)


def compose(ablation: Ablation, rung: str, outcome: Outcome, begun: datetime, ended: datetime) -> str:
    """The report: how the cells stood before and stand now, what had changed, what ran, what failed."""
    stopped = " It was stopped." if outcome.interrupted else ""
    lines = [
        _title(ablation, rung, begun),
        "",
        f"Took {clock((ended - begun).total_seconds())}. Before: {describe(outcome.before)}. "
        f"Now: {describe(outcome.planned)}.{stopped}",
    ]
    stale = [entry for entry in outcome.before if entry.state == "stale"]
    changes = dict.fromkeys(f"- {change}" for entry in stale for change in entry.changed)
    lines += ["", "## Changed since the last sweep", ""]
    lines += list(changes) or ["Nothing that a cell had been made from."]
    ran = [
        f"| {now.cell.title} | {was.state} | {now.state} | {clock(now.run.seconds or 0.0)} |"
        for was, now in zip(outcome.before, outcome.planned, strict=True)
        if now.run is not None and now.run != was.run and now.state != "running"
    ]
    if ran:
        lines += ["", "## Run now", "", "| Cell | Was | Is | Took |", "| --- | --- | --- | ---: |", *ran]
    if outcome.notes:
        lines += ["", "## Looks at the claim", "", *(f"- {note}" for note in outcome.notes)]
    if failed := [entry for entry in outcome.planned if entry.state in ("failed", "killed")]:
        lines += ["", "## Failed", "", *(f"- {entry.cell.title}: {reason(entry)}" for entry in failed)]
    return "\n".join(lines) + "\n"


def _title(ablation: Ablation, rung: str, begun: datetime) -> str:
    return f"# {ablation.name} ({rung}), {begun:%Y-%m-%d %H:%M %Z}"
