"""The `lab` command: one function a sub-command, no logic, every import inside so that `lab --help` is immediate."""

import errno
import inspect
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli_data import data_app
from lab.cli_models import models_app
from lab.cli_options import (
    BudgetOption,
    Fit,
    Gpus,
    MaxSeeds,
    MemoryLimit,
    Name,
    RayOption,
    Retries,
    Rows,
    Rung,
    Seeds,
    SlurmOption,
    SlurmOptions,
    Study,
    TimeLimit,
    TrackingUri,
    UntilDecided,
    Workers,
    asked_sweep,
    rows_of,
    seeds_of,
)
from lab.cli_paper import follow_with_report, paper_app
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.study.ablation import Ablation

app = typer.Typer(
    help="Reproduce the ablations of the Baichuan-Omni report, cell by cell.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

schedule_app = typer.Typer(help="Sweeps at set times, on your crontab.", no_args_is_help=True)
app.add_typer(schedule_app, name="schedule")
app.add_typer(data_app, name="data")
app.add_typer(models_app)  # without a name: its commands stand beside the others
app.add_typer(paper_app)


@app.command()
def reproduce(
    ablation: Study,
    rung: Rung = "cpu",
    rows: Rows = "main",
    seeds: Seeds = None,
    workers: Workers = None,
    gpus: Gpus = 0.0,
    time_limit: TimeLimit = None,
    memory_limit: MemoryLimit = None,
    retries: Retries = 2,
    budget: BudgetOption = None,
    fit: Fit = False,
    until_decided: UntilDecided = False,
    max_seeds: MaxSeeds = None,
    ray: RayOption = "",
    slurm: SlurmOption = "",
    slurm_option: SlurmOptions = None,
    tracking_uri: TrackingUri = "",
) -> None:
    """Train and measure every cell that is missing or changed; a second call does nothing.

    Results go to ablations/results/NAME.csv, every run to MLflow (mlruns/), executed notebooks to mlruns/notebooks/.
    Ctrl-C stops cleanly; the next call goes on from there. Exits with 1 where a cell failed. With --until-decided,
    looks at the claim are kept in ablations/results/NAME.RUNG.looks.json; undecided is a result, and no failure.
    """
    sweep, arguments = asked_sweep(locals(), ask=True)
    from lab.study.plan import describe

    outcome = sweep(ablation, **arguments)
    typer.echo(describe(outcome.planned) + (f"; results: {outcome.results_file}" if outcome.results_file else ""))
    for title, reason in outcome.failed.items():
        typer.echo(f"failed: {title}: {reason}", err=True)
    if any(entry.to_do for entry in outcome.before):
        follow_with_report()
    if outcome.interrupted:
        raise typer.Exit(130)
    if outcome.failed:
        raise typer.Exit(1)


def _with_the_options_of_reproduce(command: "Callable[..., None]") -> "Callable[..., None]":
    """Typer reads options from a signature; two commands that take the same should not declare them twice."""
    command.__signature__ = inspect.signature(reproduce)  # type: ignore[attr-defined]
    command.__annotations__ = reproduce.__annotations__
    return command


@app.command()
@_with_the_options_of_reproduce
def unattended(**asked: Any) -> None:
    """As reproduce, for schedulers: under a lock, logged to a file, with a report in mlruns/unattended/ and in MLflow.

    Does nothing where the last one still runs. Exits with 1 where a cell failed.
    """
    sweep, arguments = asked_sweep(asked)
    from lab.study.unattended import run_unattended

    report = run_unattended(asked["ablation"], **arguments, sweep=sweep)
    if report is None:
        typer.echo(
            f"{asked['ablation'].name} ({asked['rung']}): left to the last unattended sweep, which is still running"
        )
        return
    typer.echo(report.text)
    follow_with_report()
    if report.outcome.failed:
        raise typer.Exit(1)


@schedule_app.command("add")
def schedule_add(
    ablation: Study,
    when: Annotated[str, typer.Argument(help="Five fields, as in '0 2 * * *': every night at two.")],
    rung: Rung = "cpu",
    rows: Rows = "main",
    seeds: Seeds = None,
    options: Annotated[
        str, typer.Option(help="Further options of lab unattended, as in '--time-limit 2h --until-decided'.")
    ] = "",
) -> None:
    """Add a line to your crontab that brings the study up to date at set times."""
    from lab.study import schedule

    seeds_of(seeds)
    more = _checked_options(ablation, rung, options)
    entry = schedule.add(ablation, when, rung=rung, rows=rows, seeds=seeds, options=more)
    typer.echo(f"{ablation.name} ({rung}) at {entry.when}; next: {entry.next_start:%Y-%m-%d %H:%M %Z}")


def _checked_options(ablation: "Ablation", rung: str, text: str) -> list[str]:
    """The words of a scheduled sweep's further options, read as its line will be, but now."""
    import shlex

    command: Any = typer.main.get_command(app)  # a class of click's, or of the copy that newer typers carry
    try:
        words = shlex.split(text)
        asked = command.commands["unattended"].make_context("lab unattended", [ablation.name, *words]).params
    except Exception as error:
        told = error.format_message() if hasattr(error, "format_message") else str(error)
        raise LabError(f"--options are {text!r}: {told}; `lab unattended --help` lists them") from None
    if given := [word for word in ("--rung", "--rows", "--seeds") if any(part.startswith(word) for part in words)]:
        raise LabError(f"{given[0]} is an option of `lab schedule add` itself; give it there")
    asked_sweep({**asked, "rung": rung})
    return words


@schedule_app.command("list")
def schedule_list() -> None:
    """List the scheduled sweeps of this checkout with their next start."""
    from lab.study import schedule

    for entry in schedule.entries():
        typer.echo(f"{entry.name} ({entry.rung}) at {entry.when}; next: {entry.next_start:%Y-%m-%d %H:%M %Z}")
        typer.echo(f"  {entry.command}")


@schedule_app.command("remove")
def schedule_remove(name: Name, rung: Rung = "cpu") -> None:
    """Take a scheduled sweep off your crontab."""
    from lab.study import schedule

    schedule.remove(name, rung)
    typer.echo(f"{name} ({rung}) is no longer scheduled")


@app.command()
def status(
    ablation: Study,
    rung: Rung = "cpu",
    rows: Rows = "all",
    seeds: Seeds = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: a JSON list of the cells.")] = False,
) -> None:
    """List the cells as done, running (where, since when), failed (why), stale (what changed) or missing.

    Starts nothing.
    """
    from lab.study.plan import describe, reason, record
    from lab.study.sweep import status as look

    planned = look(ablation, rung, rows_of(rows), seeds_of(seeds))
    if as_json:
        typer.echo(json.dumps([record(entry) for entry in planned], indent=1))
        return
    for entry in planned:
        typer.echo(f"{entry.state:8} {entry.cell.title:40} {entry.cell.key:16} {reason(entry)}".rstrip())
    typer.echo(describe(planned))


@app.command()
def adopt(ablation: Study, rung: Rung = "cpu", rows: Rows = "all", seeds: Seeds = None) -> None:
    """After a refactoring: keep the stale results whose golden run comes out bit for bit as it did.

    A golden run is the cell's notebook at a few steps and samples. Only where code alone has changed: a parameter's
    other value, other data, weights or packages leave a cell stale. Exits with 1 where a golden run differs.
    """
    from lab.study.adoption import adopt as take

    told, path = take(ablation, rung=rung, rows=rows_of(rows), seeds=seeds_of(seeds))
    for one in told:
        typer.echo(f"{one.outcome:8} {one.cell.title:40} {one.why}")
    adopted = sum(one.outcome == "adopted" for one in told)
    where = f"; results: {path}" if adopted and path else ""
    typer.echo(f"{len(told)} stale cell{'s' * (len(told) != 1)}, {adopted} adopted{where}")
    if any(one.outcome == "differs" for one in told):
        raise typer.Exit(1)


@app.command()
def results(
    ablation: Study,
    rung: Rung = "cpu",
    rebuild: Annotated[
        bool, typer.Option(help="Write the file anew from the tracked runs, whatever is in it.")
    ] = False,
) -> None:
    """Print the measured means by row, from ablations/results/NAME.csv."""
    from lab.study import results as files

    if rebuild:
        for path in files.rebuild_results(ablation):
            typer.echo(f"written: {path}")
    typer.echo(files.summary(ablation, rung).to_string(float_format="{:.4g}".format))


@app.command()
def prepare(ablation: Study, rung: Rung = "cpu", rows: Rows = "main") -> None:
    """Fetch and compute once what the cells need (data, features, language model), without running any."""
    from lab.study.sweep import prepare_cells

    _, prepared = prepare_cells(ablation, rung, rows_of(rows))
    for ingredient, value in prepared.items():
        typer.echo(f"{ingredient}: {value}")


@app.command()
def scale(
    ablation: Study,
    rung: Rung = "paper",
    rows: Rows = "main",
    seconds: Annotated[
        float | None, typer.Option(help="Of audio in each utterance (default: the encoder's 30); speech only.")
    ] = None,
    question_tokens: Annotated[
        int | None, typer.Option(help="Tokens of each question (default: 64); pictures and video only.")
    ] = None,
    answer_tokens: Annotated[int | None, typer.Option(help="Tokens of each answer (default: 128).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples at once (default: the rung's).")] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or bfloat16_weights (default: the rung's, as on a GPU).")
    ] = None,
) -> None:
    """Say what a rung needs before it is rented: parameters, tokens and memory, by row, part and stage.

    Fetches nothing and trains nothing.
    """
    from lab.study.scale import scale as count
    from lab.study.scale_table import table

    asked: dict[str, Any] = {
        "seconds": seconds,
        "question_tokens": question_tokens,
        "answer_tokens": answer_tokens,
        "batch_size": batch_size,
        "precision": precision,
    }
    typer.echo(table(count(ablation, rung, rows_of(rows), **asked)))


def main() -> None:
    """Run the command; a user's own mistake is one line on stderr and exit code 2."""
    try:
        app()
    except LabError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        if error.errno not in _THE_USERS:
            raise
        where = error.filename or "while writing"
        typer.echo(f"error: {_THE_USERS[error.errno]} ({where}); what was recorded is kept", err=True)
        sys.exit(2)


_THE_USERS = {
    errno.ENOSPC: "the disk is full: free some space and run it again",
    errno.EDQUOT: "your disk quota is used up: free some space and run it again",
    errno.EROFS: "the disk is read-only: make it writable, or name other folders (OMNI_LAB_MLRUNS, OMNI_LAB_CACHE)",
    errno.EACCES: "no permission to write: take the folder over, or name others (OMNI_LAB_MLRUNS, OMNI_LAB_CACHE)",
}
