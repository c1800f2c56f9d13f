"""The `lab` command: one function a sub-command, no logic, every import inside so that `lab --help` is immediate."""

import errno
import json
import sys
from typing import Annotated

import typer

from lab.cli_data import data_app
from lab.cli_models import models_app
from lab.cli_paper import paper_app
from lab.cli_sweep import Rows, Rung, Seeds, Study, rows_of, seeds_of, sweep_app
from lab.errors import LabError

app = typer.Typer(
    help="Reproduce the ablations of the Baichuan-Omni report, cell by cell.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
study_app = typer.Typer()
for commands in (sweep_app, study_app, models_app, paper_app):  # without a name: side by side
    app.add_typer(commands)
app.add_typer(data_app, name="data")


@study_app.command()
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


@study_app.command()
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


@study_app.command()
def results(
    ablation: Study,
    rung: Rung = "cpu",
    rebuild: Annotated[bool, typer.Option(help="Write the file anew from the tracked runs.")] = False,
) -> None:
    """Print the measured means by row, from ablations/results/NAME.csv."""
    from lab.study import results as files

    if rebuild:
        for path in files.rebuild_results(ablation):
            typer.echo(f"written: {path}")
    typer.echo(files.summary(ablation, rung).to_string(float_format="{:.4g}".format))


@study_app.command()
def prepare(ablation: Study, rung: Rung = "cpu", rows: Rows = "main") -> None:
    """Fetch and compute once what the cells need (data, features, language model), without running any."""
    from lab.study.sweep import prepare_cells

    _, prepared = prepare_cells(ablation, rung, rows_of(rows))
    for ingredient, value in prepared.items():
        typer.echo(f"{ingredient}: {value}")


@study_app.command()
def scale(
    ablation: Study,
    rung: Rung = "paper",
    rows: Rows = "main",
    seconds: Annotated[float | None, typer.Option(help="Of each sound (30).")] = None,
    question_tokens: Annotated[int | None, typer.Option(help="Of each question (64); not of speech.")] = None,
    answer_tokens: Annotated[int | None, typer.Option(help="Of each answer (128).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples at once (the rung's).")] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or bfloat16_weights (the rung's, as on a GPU).")
    ] = None,
) -> None:
    """Say what a rung needs before it is rented: parameters, tokens and memory, by row, part and stage.

    Fetches nothing and trains nothing.
    """
    from lab.study.scale import scale as count
    from lab.study.scale import table

    found = count(
        ablation,
        rung,
        rows_of(rows),
        seconds=seconds,
        question_tokens=question_tokens,
        answer_tokens=answer_tokens,
        batch_size=batch_size,
        precision=precision,
    )
    typer.echo(table(found))


def main() -> None:
    """Run the command; a user's own mistake is one line on stderr and exit code 2."""
    try:
        app()
    except LabError as error:
        told = str(error)
    except OSError as error:
        if error.errno not in _THE_USERS:
            raise
        told = f"{_THE_USERS[error.errno]} ({error.filename or 'while writing'}); what was recorded is kept"
    typer.echo(f"error: {told}", err=True)
    sys.exit(2)


_THE_USERS = {
    errno.ENOSPC: "the disk is full: free some space and run it again",
    errno.EDQUOT: "your disk quota is used up: free some space and run it again",
    errno.EROFS: "the disk is read-only: make it writable, or name other folders (OMNI_LAB_MLRUNS, OMNI_LAB_CACHE)",
    errno.EACCES: "no permission to write: take the folder over, or name others (OMNI_LAB_MLRUNS, OMNI_LAB_CACHE)",
}
