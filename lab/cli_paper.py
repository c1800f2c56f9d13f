"""`lab paper` and `lab report`: the paper's tables, and all studies on one page. As in `lab.cli`, no logic."""

from pathlib import Path
from typing import Annotated

import typer

from lab.errors import choose

paper_app = typer.Typer()


@paper_app.command()
def paper(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TABLE]...", help="As in table_1 or figure_6; all where none is named."),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="terminal, markdown, latex (a fragment for booktabs) or json (every cell).")
    ] = "terminal",
) -> None:
    """Show the paper's tables: what it reports, what tracked runs measured, and a verdict on each cell.

    reproduced and direction only need runs at rung paper; what a smaller rung says is always other scale.
    """
    from lab.paper.ledger.cells import chosen
    from lab.paper.ledger.formats import FORMATS, print_terminal
    from lab.paper.ledger.pages import pages

    write = choose({"terminal": None, **FORMATS}, form, "format")
    shown = pages(chosen(names or ()))
    if write is None:
        print_terminal(shown)
    else:
        typer.echo(write(shown), nl=False)


@paper_app.command()
def report(
    out: Annotated[Path | None, typer.Option(help="Of the page; mlruns/report.html where left out.")] = None,
    mlflow: Annotated[
        str, typer.Option(help="Where `make mlflow` serves MLflow's page, which runs are linked to.")
    ] = "http://127.0.0.1:5000",
) -> None:
    """Write one HTML page with all studies, figures, tables, verdicts, runs, the log and the paper's tables."""
    from lab.paper.report import write_report

    typer.echo(f"report: {write_report(out, mlflow=mlflow)}")
