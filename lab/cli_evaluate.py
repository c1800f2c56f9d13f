"""The command that evaluates real checkpoints on public benchmarks. As in `lab.cli`, no logic."""

import os
from typing import Annotated

import typer

from lab.errors import LabError

evaluate_app = typer.Typer()


@evaluate_app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="smollm2_135m, whisper_tiny_en, whisper_base, a folder, OWNER/NAME on the hub, openai:MODEL@URL, or "
            "a run that kept a model: its id, or the beginning."
        ),
    ] = "",
    tasks: Annotated[
        str,
        typer.Argument(
            help="Benchmarks separated by commas, --list shows them; of a run's model, corpora and sources of samples."
        ),
    ] = "",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Items at most of each, a sample that is always the same.")
    ] = None,
    as_row: Annotated[
        str, typer.Option("--as", metavar="ROW", help="The model of the paper's tables that this is: fills its cells.")
    ] = "",
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the benchmarks that have it; repeatable.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the processor (default: all).")] = None,
    show_list: Annotated[
        bool, typer.Option("--list", help="Show the benchmarks, the cells they fill, their data and options.")
    ] = False,
) -> None:
    """Evaluate a checkpoint on public benchmarks, or a trained cell on any corpus; nothing is trained.

    Every result is an MLflow run and a line of evaluations.csv.

    What was evaluated before is shown from there; a run that was stopped goes on where it was.
    """
    from lab.paper import evaluating
    from lab.paper.ledger.evaluated import check_row

    if show_list:
        evaluating.print_benchmarks()
        return
    if not model or not tasks:
        raise LabError("name a model and benchmarks, as in `lab evaluate smollm2_135m mmlu`; `lab evaluate --list`")
    named, benchmarks = evaluating.model_and_benchmarks(model, tasks)
    options = evaluating.options_of(benchmarks, option or ())
    check_row(benchmarks, as_row, limit)
    os.environ.setdefault("TQDM_DISABLE", "1")  # one bar is enough
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    for benchmark in benchmarks:  # all are refused before the first of them is asked
        benchmark.check(named, options=options[benchmark.name])
    from lab.study.evaluations import evaluate as run

    for benchmark in benchmarks:
        with evaluating.progress_bar(benchmark.name) as progress:
            done = run(benchmark, named, options=options[benchmark.name], limit=limit, as_row=as_row, progress=progress)
        evaluating.print_recorded(done)
