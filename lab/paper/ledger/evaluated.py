"""Evaluations of real checkpoints beside the paper's cells: which they fill, and a table of all of them.

`lab evaluate MODEL TASKS --as ROW` says that MODEL is the model ROW of the paper's tables; its scores then stand for
the cells that the benchmarks declare. All others are shown as "Evaluated here", and count for no cell.
"""

import json
from collections.abc import Iterable, Mapping, Sequence

from lab.errors import LabError, choose
from lab.evaluation.benchmarks.benchmark import Benchmark, Fills
from lab.evaluation.benchmarks.registry import BENCHMARKS
from lab.paper.ledger.cells import PaperCell, table
from lab.paper.ledger.ours import Ours
from lab.study.evaluations import Evaluation, read_evaluations

HEAD = ("Benchmark", "Model", "Metric", "Score (95% interval)", "Items", "As", "Run")
TITLE = "Evaluated here"
NOTE = (
    "Real checkpoints (`lab evaluate`), with the 95% interval over the benchmark's items. What has no model of the "
    "paper's in the column As counts for no cell of its tables."
)
_RUN_LETTERS = 8


def rows_of(fills: Fills) -> list[str]:
    """The models of the table that a benchmark measures a place of."""
    found = table(fills.table)
    return found.rows if found.models == "rows" else found.columns


def cells_of(fills: Fills, row: str) -> list[PaperCell]:
    """The cells of a model that a benchmark fills: more than one where its owners report another number.

    Raises:
        LabError: the table has no such model or place.
    """
    found = table(fills.table)
    row_column = (row, fills.place) if found.models == "rows" else (fills.place, row)
    return [cell for cell in found.at(*row_column) if cell.metric == fills.metric]


def check_row(benchmarks: Iterable[Benchmark], row: str, limit: int | None) -> None:
    """Refuse what can stand for no cell.

    Raises:
        LabError: a limit, a benchmark that fills no cell, or a row that is none of its tables' models.
    """
    if not row:
        return
    if limit is not None:
        raise LabError(
            f"--as {row!r} fills cells of the paper, and a sample of {limit} items fills none; leave one out"
        )
    for benchmark in benchmarks:
        if not benchmark.cells:
            raise LabError(f"benchmark {benchmark.name!r} fills no cell of the paper's tables; leave --as out")
        for fills in benchmark.cells:
            choose(dict.fromkeys(rows_of(fills)), row, f"model in {table(fills.table).label}:")


def filling(keys: Iterable[str]) -> Mapping[str, list[Ours]]:
    """What evaluations stand for each of these cells, by the cell's key; whole ones of the benchmark's present version.

    Raises:
        LabError: the file of evaluations was changed by hand.
    """
    wanted = set(keys)
    found: dict[str, list[Ours]] = {}
    for line in read_evaluations():
        benchmark = BENCHMARKS.get(line.benchmark)
        if benchmark is None or not line.as_row or line.limit is not None or line.version != benchmark.version:
            continue
        for fills in benchmark.cells:
            if fills.score != line.metric or line.as_row not in rows_of(fills):
                continue
            for cell in cells_of(fills, line.as_row):
                if cell.key in wanted:
                    found.setdefault(cell.key, []).append(_ours(line, benchmark, cell))
    return found


def _ours(line: Evaluation, benchmark: Benchmark, cell: PaperCell) -> Ours:
    settings = ", ".join(f"{name} {value}" for name, value in json.loads(line.settings).items())
    scale = 100.0 if cell.unit == "%" and line.unit == "fraction" else 1.0
    return Ours(
        ablation=f"lab evaluate, {line.benchmark}",
        row=line.model,
        label=line.as_row,
        measure=f"{line.metric} of {line.model_key}",
        rung="paper",
        value=line.value * scale,
        low=None if line.low is None else line.low * scale,
        high=None if line.high is None else line.high * scale,
        seeds=(),
        run_ids=(line.run_id,),
        claim=None,
        told=f"Ours, {line.benchmark} on {line.model}: {line.metric} of {line.model_key}, the 95% interval over "
        f"{line.num_items} items; {benchmark.source}; {settings}.",
    )


def grid(lines: Sequence[Evaluation] | None = None) -> list[list[str]]:
    """A line for every score that was measured here, without the head; of the whole file where None.

    Raises:
        LabError: the file of evaluations was changed by hand.
    """
    return [
        [
            line.benchmark,
            line.model,
            line.metric,
            _score(line),
            f"{line.num_items}{'' if line.limit is None else ' (a sample)'}",
            line.as_row or "–",
            line.run_id[:_RUN_LETTERS],
        ]
        for line in (read_evaluations() if lines is None else lines)
    ]


def _score(line: Evaluation) -> str:
    scale, unit = (100.0, "%") if line.unit == "fraction" else (1.0, "")
    interval = ""
    if line.low is not None and line.high is not None:
        interval = f" ({line.low * scale:.1f} to {line.high * scale:.1f})"
    return f"{line.value * scale:.1f}{unit}{interval}"
