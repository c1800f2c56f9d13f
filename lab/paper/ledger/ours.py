"""What was measured for a cell of the paper's tables: by tracked runs, with their study's claim, and by `lab evaluate`.

Which row of which ablation stands for a cell, the ablation declares (`lab.paper.ledger.cells.reported`). Means and runs
come from the tracked results files, intervals and claims from the table that `lab tables` wrote of these very results,
so that the ledger and a study's own table never say two things.

`lab evaluate MODEL TASKS --as ROW` says that MODEL is the model ROW of the paper's tables; its scores then stand for
the cells that the benchmarks declare. All others are shown as "Evaluated here", and count for no cell.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lab.errors import LabError, choose
from lab.evaluation.benchmarks.benchmark import Benchmark, Fills
from lab.evaluation.benchmarks.registry import BENCHMARKS
from lab.evaluation.verdict import Outcome
from lab.paper.claims import load_contrasts
from lab.paper.ledger.cells import PaperCell, table
from lab.paper.tables import Written, read_written
from lab.study import results
from lab.study.ablation import Ablation, Column, Reported, ablation_files, load_ablation
from lab.study.evaluations import Evaluation, read_evaluations

HEAD = ("Benchmark", "Model", "Metric", "Score (95% interval)", "Items", "As", "Run")
TITLE = "Evaluated here"
NOTE = (
    "Real checkpoints (`lab evaluate`), with the 95% interval over the benchmark's items. What has no model of the "
    "paper's in the column As counts for no cell of its tables."
)
_RUN_LETTERS = 8


@dataclass(frozen=True, kw_only=True)
class JudgedClaim:
    """A claim of the ablation that the row takes part in, and what its runs at this rung say of it."""

    title: str
    outcome: Outcome | None
    """None where it could not be judged; the sentence says why."""
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Ours:
    """One row of an ablation at one rung, in the unit of its table (percent, not fractions)."""

    ablation: str
    row: str
    label: str
    measure: str
    """What was measured: label and unit of the ablation's column."""
    rung: str
    value: float
    """The mean over seeds."""
    low: float | None
    high: float | None
    """The ends of the 95% interval over new seeds and new test items; None where there is none."""
    seeds: tuple[int, ...]
    run_ids: tuple[str, ...]
    claim: JudgedClaim | None
    told: str = ""
    """Where it is no row of an ablation but an evaluation of a checkpoint: what it is, in one sentence."""


def tracked(keys: Iterable[str]) -> Mapping[str, list[Ours]]:
    """What was measured for each of these cells: by ablation, and by rung in the order of its declaration.

    A rung whose results are not recorded (`smoke`) is left out: its numbers say nothing.

    Raises:
        LabError: a file of results or looks was changed by hand, or `reported` names a metric that is no column of the
            ablation.
    """
    wanted = set(keys)
    found: dict[str, list[Ours]] = {}
    for ablation in map(load_ablation, ablation_files()):
        entries = [entry for entry in ablation.reported if entry.cell in wanted]
        for rung in (rung.name for rung in ablation.rungs if rung.recorded and entries):
            lines = [line for line in results.read_lines(ablation, rung) if line["rung"] == rung]
            written = read_written(ablation, rung, [line["run_id"] for line in lines])
            for entry in entries:
                columns = {column.metric: column for column in ablation.columns}
                column = choose(columns, entry.metric, f"metric in `reported` of {ablation.name!r}:")
                mine = [line for line in lines if line["row"] == entry.row and line.get(entry.metric)]
                if mine:
                    found.setdefault(entry.cell, []).append(_ours(ablation, rung, entry, column, mine, written))
    return found


def _ours(
    ablation: Ablation, rung: str, entry: Reported, column: Column, lines: list[results.Line], written: Written
) -> Ours:
    low, high = written.interval(entry.row, column)
    return Ours(
        ablation=ablation.name,
        row=entry.row,
        label=ablation.row(entry.row).label,
        measure=f"{column.label} ({column.unit})" if column.unit else column.label,
        rung=rung,
        value=fmean(float(line[entry.metric]) * column.scale for line in lines),
        low=low,
        high=high,
        seeds=tuple(int(line["seed"]) for line in lines),
        run_ids=tuple(line["run_id"] for line in lines),
        claim=_claim(ablation, rung, entry.row, written),
    )


def _claim(ablation: Ablation, rung: str, row: str, written: Written) -> JudgedClaim | None:
    """The first of the contrasts that the row takes part in."""
    for contrast in load_contrasts(ablation.name):
        if row in contrast.rows:
            outcome, sentence = written.claim(contrast.title)
            unwritten = f"Not judged yet: `lab tables {ablation.name} --rung {rung}` has not seen these results."
            return JudgedClaim(title=contrast.title, outcome=outcome, sentence=sentence or unwritten)
    return None


def rows_of(fills: Fills) -> list[str]:
    """The models of the table that a benchmark measures a place of."""
    found = table(fills.table)
    return found.rows if found.models == "rows" else found.columns


def cells_of(fills: Fills, row: str) -> list[PaperCell]:
    """The cells of a model that a benchmark fills: more than one where its owners report another number."""
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
    """What evaluations stand for each cell, by its key; whole ones of the benchmark's present version."""
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
                    found.setdefault(cell.key, []).append(_of_checkpoint(line, benchmark, cell))
    return found


def _of_checkpoint(line: Evaluation, benchmark: Benchmark, cell: PaperCell) -> Ours:
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
    """A line for every score that was measured here, without the head; of the whole file where None."""
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
