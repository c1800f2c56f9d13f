"""What tracked runs measured for a cell of the paper's tables: the mean, its interval, its runs, and its study's claim.

Which row of which ablation stands for a cell, the ablation declares (`lab.paper.ledger.cells.reported`). Means and runs
come from the tracked results files, intervals and claims from the table that `lab tables` wrote of these very results,
so that the ledger and a study's own table never say two things.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from lab.errors import choose
from lab.evaluation.verdict import Outcome
from lab.paper.claims import load_contrasts
from lab.paper.tables import Written, read_written
from lab.study import results
from lab.study.ablation import Ablation, Column, Reported, ablation_files, load_ablation


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
