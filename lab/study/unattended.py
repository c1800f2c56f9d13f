"""A sweep that nobody watches: under a lock, logged to a file, with a report of what it did and what had changed.

Safe to start from cron, Airflow or any other scheduler at any time: where the last one still runs, it does nothing.
`mlruns/unattended/` holds NAME-RUNG.log (appended), NAME-RUNG.md (the last report) and the lock; reports are kept with
the study's run in MLflow too.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lab import paths
from lab.errors import LabError
from lab.study import tracking
from lab.study.ablation import Ablation
from lab.study.display import Display, clock
from lab.study.plan import describe, reason
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
    ablation: Ablation,
    *,
    rung: str,
    sweep: Callable[..., Outcome] = reproduce,
    **options: Any,
) -> Report | None:
    """Bring a study up to date and report; None where another unattended sweep of it is still running.

    Args:
        sweep: what brings it up to date; `lab.study.adaptive.until_decided` with its question in place of `reproduce`.
        options: the others of `sweep`.

    Raises:
        LabError: as `reproduce`; the report then says why, too.
    """
    stem = folder() / f"{ablation.name}-{rung}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    with stem.with_suffix(".log").open("a", encoding="utf-8", buffering=1) as log:
        begun = datetime.now().astimezone()
        print(f"{begun:%Y-%m-%d %H:%M:%S %Z} {ablation.name} ({rung}), process {os.getpid()}", file=log)
        lock = FileLock(stem.with_suffix(".lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            print("left to the last one, which is still running", file=log)
            return None
        try:
            display = Display(ablation, rung, file=log)
            outcome = sweep(ablation, rung=rung, display=display, **options)
            display.say(describe(outcome.planned))
            return _report(ablation, rung, outcome, begun, stem)
        except LabError as error:
            print(f"error: {error}", file=log)
            text = f"{_title(ablation, rung, begun)}\n\n**It could not start:** {error}\n"
            paths.write_whole(stem.with_suffix(".md"), text)
            raise
        finally:
            lock.release()


def _report(ablation: Ablation, rung: str, outcome: Outcome, begun: datetime, stem: Path) -> Report:
    """Write the report, beside the log and into the study's run."""
    ended = datetime.now().astimezone()
    text = compose(ablation, rung, outcome, begun, ended)
    path = paths.write_whole(stem.with_suffix(".md"), text)
    study = tracking.find_study(ablation.name, rung)
    if study is not None:
        recorder, name = tracking.Recorder(), f"{begun:%Y%m%d-%H%M%S}"
        recorder.keep(study.run_id, f"reports/{name}.md", text)
        recorder.tag(study.run_id, {"last_sweep": f"{name}: {describe(outcome.planned)}"})
    return Report(outcome=outcome, text=text, path=path)


def compose(ablation: Ablation, rung: str, outcome: Outcome, begun: datetime, ended: datetime) -> str:
    """The report: how the cells stood before and stand now, what had changed, what ran, what failed."""
    pairs = list(zip(outcome.before, outcome.planned, strict=True))
    ran = [(was, now) for was, now in pairs if now.run is not None and now.run != was.run and now.state != "running"]
    lines = [
        _title(ablation, rung, begun),
        "",
        f"Took {clock((ended - begun).total_seconds())}. Before: {describe(outcome.before)}. "
        f"Now: {describe(outcome.planned)}." + (" It was stopped." if outcome.interrupted else ""),
    ]
    changes = list(
        dict.fromkeys(change for entry in outcome.before if entry.state == "stale" for change in entry.changed)
    )
    lines += ["", "## Changed since the last sweep", ""]
    lines += [f"- {change}" for change in changes] or ["Nothing that a cell had been made from."]
    if ran:
        lines += ["", "## Run now", "", "| Cell | Was | Is | Took |", "| --- | --- | --- | ---: |"]
    for was, now in ran:
        took = clock(now.run.seconds or 0.0) if now.run else ""
        lines.append(f"| {now.cell.title} | {was.state} | {now.state} | {took} |")
    if outcome.notes:
        lines += ["", "## Looks at the claim", "", *(f"- {note}" for note in outcome.notes)]
    failed = [entry for entry in outcome.planned if entry.state in ("failed", "killed")]
    if failed:
        lines += ["", "## Failed", ""]
        lines += [f"- {entry.cell.title}: {reason(entry)}" for entry in failed]
    return "\n".join(lines) + "\n"


def _title(ablation: Ablation, rung: str, begun: datetime) -> str:
    return f"# {ablation.name} ({rung}), {begun:%Y-%m-%d %H:%M %Z}"
