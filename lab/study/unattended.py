"""A sweep that nobody watches: under a lock, logged to a file, with a report of what it did and what had changed.

Safe to start from cron, Airflow or any other scheduler at any time: where the last one still runs, it does nothing.
`mlruns/unattended/` holds NAME-RUNG.log (appended), NAME-RUNG.md (the last report) and the lock; reports are kept with
the study's run in MLflow too.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from lab import paths
from lab.errors import LabError
from lab.study import tracking
from lab.study.ablation import Ablation
from lab.study.plan import Display, clock, describe, reason
from lab.study.sweep import Outcome, reproduce


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
