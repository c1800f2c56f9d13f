"""The commands that show what was measured: tables, figures, ledger and report. As in `lab.cli`, no logic."""

from pathlib import Path
from typing import Annotated

import typer

from lab.cli_sweep import Name, Rung
from lab.errors import LabError, choose

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
    from lab.paper.ledger.ours import grid
    from lab.paper.ledger.pages import pages

    write = choose({"terminal": None, **FORMATS}, form, "format")
    shown = pages(chosen(names or ()))
    evaluated = [] if names else grid()
    if write is None:
        print_terminal(shown, evaluated)
    else:
        typer.echo(write(shown, evaluated), nl=False)


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


@paper_app.command()
def tables(name: Name, rung: Rung = "cpu") -> None:
    """Write the Markdown table of an ablation."""
    from lab.paper.tables import write_tables

    write_tables(name, rung)


@paper_app.command()
def figures(
    name: Annotated[
        str | None, typer.Argument(help="The ablation, or another figure; none for all with --check.")
    ] = None,
    rung: Rung = "cpu",
    check: Annotated[
        bool, typer.Option("--check", help="Say which tables and figures no longer match the runs behind them.")
    ] = False,
    of: Annotated[str, typer.Option(metavar="RUN", help="Say which tables and figures rest on that MLflow run.")] = "",
) -> None:
    """Draw figures/NAME.svg and .png from the tracked results, or say what rests on which runs.

    With --check, exits with 1 where one no longer matches.
    """
    from lab.paper.figures import draw_figure, drawn, figure_scripts, resting_on

    if check or of:
        found = resting_on(of) if of else drawn([name] if name else None)
        for one in found:
            behind = f"{one.ablation}, {one.rung}, {len(one.run_ids)} runs" if one.ablation else "no run"
            typer.echo(f"{one.state:17}  {one.path.name:40} {behind}")
        if check and any(one.state == "no longer matches" for one in found):
            raise typer.Exit(1)
        return
    if name is None:
        raise LabError("which figure? `lab figures NAME` draws it; --check and --of RUN need no name")
    draw_figure(choose(figure_scripts(), name, "figure"), rung)
