"""What `lab evaluate` reads of its options and prints: the benchmarks there are, a bar, the scores with intervals."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from lab.errors import LabError, choose, name_values
from lab.evaluation.benchmarks import benchmark as contract
from lab.evaluation.benchmarks.benchmark import Benchmark, Options
from lab.evaluation.benchmarks.registry import BENCHMARKS
from lab.evaluation.benchmarks.samples import SampleBenchmark
from lab.paper.ledger.cells import table
from lab.paper.ledger.formats import WORDS, put, terminal_table
from lab.paper.ledger.ours import HEAD, grid
from lab.study.evaluations import Recorded
from lab.study.store import find_model, kept_models

_ID = re.compile(r"[0-9a-f]{4,32}")


def model_and_benchmarks(model: str, tasks: str) -> tuple[str, Sequence[Benchmark]]:
    """What the model is called, and what it is asked: of a run that kept it or a saved folder, sources by name.

    Raises:
        LabError: no or an unknown benchmark (the choices are listed), a run without a model, or a name that is neither.
    """
    names = list(dict.fromkeys(part.strip() for part in tasks.split(",") if part.strip()))
    if not names:
        raise LabError(f"no benchmark was named; choose from: {', '.join(sorted(BENCHMARKS))}")
    if (kept := find_model(model)) is not None:
        asked = []
        for name in names:
            known = BENCHMARKS.get(name)
            usual = SampleBenchmark(name=name, data=name, source=name)
            asked.append(replace(known if isinstance(known, SampleBenchmark) else usual, folder=kept.folder))
        return kept.title, asked
    benchmarks = [choose(BENCHMARKS, name, "benchmark") for name in names]
    if _ID.fullmatch(model):
        raise LabError(f"no run's id begins with {model!r}; {kept_models()}")
    return model, benchmarks


def options_of(benchmarks: Sequence[Benchmark], given: Sequence[str]) -> dict[str, Options]:
    """What was given as NAME=VALUE, by benchmark: each gets those that it has.

    Raises:
        LabError: one is of another form, given twice, or none of these benchmarks has it.
    """
    values = name_values(given, "--option", "batch_size=4")
    known = sorted({name for benchmark in benchmarks for name in benchmark.options})
    for name in values:
        if name not in known:
            names = ", ".join(benchmark.name for benchmark in benchmarks)
            raise LabError(
                f"unknown option {name!r} of {names}; choose one of: {', '.join(known) or 'none, they have none'}"
            )
    return {
        benchmark.name: {name: value for name, value in values.items() if name in benchmark.options}
        for benchmark in benchmarks
    }


@contextmanager
def progress_bar(title: str) -> Iterator[contract.Progress]:
    """A bar on the terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_recorded(done: Recorded) -> None:
    """The scores of one evaluation, and where they stand."""
    console, first = Console(), done.lines[0]
    put(console, terminal_table(HEAD, grid(done.lines), left=WORDS))
    said = "there already" if done.was_there else "evaluated now"
    stands = f", stands for {first.as_row}" if first.as_row else ""
    line = f"{said} ({first.date}), run {first.run_id}{stands}; in ablations/results/evaluations.csv"
    console.print(Text(line), highlight=False, soft_wrap=True)


def print_benchmarks() -> None:
    """All benchmarks, by kind: the models they take, the cells they fill, their data; then the options of the kind."""
    console = Console()
    for kind in dict.fromkeys(one.kind for one in BENCHMARKS.values()):
        of_kind = [one for one in BENCHMARKS.values() if one.kind == kind]
        console.print(Text.assemble((f"{kind}: ", "bold"), of_kind[0].models), highlight=False)
        data = [one.source for one in of_kind]
        told = [where if where != before else "as above" for where, before in zip(data, ["", *data], strict=False)]
        lines = [[one.name, _cells(one), where] for one, where in zip(of_kind, told, strict=True)]
        head = ("Benchmark", "Fills", "Data")
        put(console, terminal_table(head, lines, left=head))
        for name, what in of_kind[0].options.items():
            console.print(Text(f"--option {name}= {what}"), highlight=False)
        console.print()


def _cells(benchmark: Benchmark) -> str:
    metrics: dict[str, list[str]] = {}
    for fills in benchmark.cells:
        metrics.setdefault(f"{table(fills.table).label}: {fills.place}", []).append(fills.metric)
    return "; ".join(f"{place}, {' and '.join(found)}" for place, found in metrics.items()) or "–"
