"""What tracked runs measured for a cell of the paper's tables: the mean, its interval, its runs, and its study's claim.

Which row of which ablation stands for a cell, the ablation declares (`lab.paper.ledger.cells.reported`). Means and
runs come from the tracked results files. Intervals and claims need every single answer, and those lie in the store of
the machine that ran the cells; elsewhere the table that `lab tables` wrote (`ablations/results/NAME.RUNG.md`) lends
them, unless its means and numbers of seeds are not those of the results file.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from lab.errors import LabError
from lab.evaluation.verdict import Outcome
from lab.paper.claims import Claim, capital, load_contrasts
from lab.paper.looking import at_last_look, unlooked
from lab.paper.measured import Measured, load_measured
from lab.paper.tables import table_path
from lab.study import results
from lab.study.ablation import Ablation, Column, Reported, ablation_files, load_ablation
from lab.study.looks import read_looks

if TYPE_CHECKING:
    from lab.evaluation.statistics import Interval

_VALUE = re.compile(r"(?P<mean>-?[\d.]+) \((?P<low>-?[\d.]+) to (?P<high>-?[\d.]+)\)(?P<single>¹?)")
_SAID = re.compile(r"^\*\*(?P<title>.+?)\.\*\* (?P<said>.+)$", re.MULTILINE)
_OUTCOMES: Mapping[str, Outcome] = {capital(outcome): outcome for outcome in get_args(Outcome)}


@dataclass(frozen=True, kw_only=True)
class Written:
    """The rows of a written table by key and heading, and what it says of each claim by title."""

    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)

    def interval(self, row: str, column: Column) -> tuple[float, float, bool] | None:
        """Its ends in the table's unit, and whether it is over seeds; None where none is written."""
        found = _VALUE.match(self.rows.get(row, {}).get(_heading(column), ""))
        return (float(found["low"]), float(found["high"]), not found["single"]) if found else None

    def claim(self, title: str) -> tuple[Outcome | None, str]:
        """Its outcome and its sentence; None and nothing where the table says nothing of it."""
        sentence = self.said.get(title, "")
        return _OUTCOMES.get(sentence.partition(":")[0]), sentence


def read_written(ablation: Ablation, rung: str, lines: Sequence[Mapping[str, str]]) -> Written:
    """What stands in the table of a rung; of nothing where none was written, or of other results than `lines`."""
    path = table_path(ablation, rung)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    grid = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    head = next((line for line in grid if line[0] == "Row"), [])
    by_label = {line[0]: dict(zip(head, line, strict=True)) for line in grid if len(line) == len(head)}
    rows = {row.key: by_label[row.label] for row in ablation.rows if row.label in by_label}
    counted = [column for column in ablation.columns if column.interval]
    if not all(_fits(rows.get(row, {}), lines, row, counted) for row in {line["row"] for line in lines}):
        return Written()
    return Written(rows=rows, said={found["title"]: found["said"] for found in _SAID.finditer(text)})


def _fits(cells: Mapping[str, str], lines: Iterable[Mapping[str, str]], row: str, counted: Iterable[Column]) -> bool:
    mine = [line for line in lines if line["row"] == row]
    if cells.get("Seeds", "").partition(" ")[0] != str(len(mine)):
        return False
    for column in counted:
        mean = sum(float(line[column.metric]) for line in mine) / len(mine) * column.scale
        if cells.get(_heading(column), "").partition(" ")[0] != f"{mean:.1f}":
            return False
    return True


def _heading(column: Column) -> str:
    return f"{capital(column.label)} ({column.unit})"


_NOT_HERE = "Not judged: its answers are not on this machine, and no table of these very results was written."
# Counted from the answers, though no study's table shows an interval of it.
_COUNTED = {"test_word_error_rate": "word_error_rate", "test_character_error_rate": "character_error_rate"}


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
    """What the row is called in the ablation's table."""
    measure: str
    """What was measured: label and unit of the ablation's column."""
    rung: str
    value: float
    """The mean over seeds."""
    low: float | None
    high: float | None
    """The ends of the 95% interval over new seeds and new test items; None where there is none."""
    over_seeds: bool
    """The interval is over seeds too, not over the test items of a single one."""
    seeds: tuple[int, ...]
    run_ids: tuple[str, ...]
    same_test: bool
    """Measured on the very test set of the paper's number, if the rung is `paper`."""
    claim: JudgedClaim | None
    told: str = ""
    """What it is, in one sentence, where it is no row of an ablation but an evaluation of a checkpoint."""


def tracked(keys: Iterable[str]) -> Mapping[str, list[Ours]]:
    """What was measured for each of these cells: by ablation, and by rung in the order of its declaration.

    A rung whose results are not recorded (`smoke`) is left out: its numbers say nothing.

    Raises:
        LabError: a file of results or looks was changed by hand, or `reported` names a metric that is no column of the
            ablation.
    """
    wanted = set(keys)
    found: dict[str, list[Ours]] = {}
    for name in ablation_files():
        ablation = load_ablation(name)
        entries = [entry for entry in ablation.reported if entry.cell in wanted]
        for rung in (rung.name for rung in ablation.rungs if rung.recorded and entries):
            for key, ours in _of_rung(ablation, rung, entries):
                found.setdefault(key, []).append(ours)
    return found


def _of_rung(ablation: Ablation, rung: str, entries: list[Reported]) -> list[tuple[str, Ours]]:
    lines = [line for line in results.read_lines(ablation, rung) if line["rung"] == rung]
    columns = {entry.metric: _column(ablation, entry.metric) for entry in entries}
    if not any(line["row"] == entry.row and line.get(entry.metric) for line in lines for entry in entries):
        return []
    seen = _Answers(ablation, rung, lines)
    found = []
    for entry in entries:
        mine = [line for line in lines if line["row"] == entry.row and line.get(entry.metric)]
        if not mine:
            continue
        column = columns[entry.metric]
        values = [float(line[entry.metric]) * column.scale for line in mine]
        interval = seen.interval(entry.row, column)
        ours = Ours(
            ablation=ablation.name,
            row=entry.row,
            label=ablation.row(entry.row).label,
            measure=f"{column.label} ({column.unit})" if column.unit else column.label,
            rung=rung,
            value=sum(values) / len(values),
            low=interval[0] if interval else None,
            high=interval[1] if interval else None,
            over_seeds=bool(interval and interval[2]),
            seeds=tuple(int(line["seed"]) for line in mine),
            run_ids=tuple(line["run_id"] for line in mine),
            same_test=entry.same_test,
            claim=seen.claim(entry.row),
        )
        found.append((entry.cell, ours))
    return found


def _column(ablation: Ablation, metric: str) -> Column:
    found = [column for column in ablation.columns if column.metric == metric]
    if not found:
        raise LabError(
            f"`reported` of {ablation.name!r} names the metric {metric!r}, which is no column of it; its columns: "
            f"{', '.join(column.metric for column in ablation.columns)}"
        )
    return found[0]


class _Answers:
    """The answers of a rung, read once, or where they are not on this machine what `lab tables` wrote of them."""

    def __init__(self, ablation: Ablation, rung: str, lines: Sequence[Mapping[str, str]]) -> None:
        self._ablation, self._rung = ablation, rung
        self._contrasts = load_contrasts(ablation.name)
        self._measured: Measured | None = None
        read_looks(ablation, rung)  # one changed by hand is no reason to believe a table
        try:
            self._measured = load_measured(ablation, rung)
        except LabError:  # the answers are on another machine
            self._written = read_written(ablation, rung, lines)

    def interval(self, row: str, column: Column) -> tuple[float, float, bool] | None:
        """Its ends in the table's unit, and whether it is over seeds; None where there is none."""
        if self._measured is None:
            return self._written.interval(row, column)
        if found := _interval(self._measured, row, column):
            return found.low * column.scale, found.high * column.scale, found.over_seeds
        return None

    def claim(self, row: str) -> JudgedClaim | None:
        """The first of the contrasts that the row takes part in."""
        for at, contrast in enumerate(self._contrasts):
            if row not in contrast.rows(self._ablation, self._rung):
                continue
            if self._measured is None:
                outcome, sentence = self._written.claim(contrast.title)
                return JudgedClaim(title=contrast.title, outcome=outcome, sentence=sentence or _NOT_HERE)
            return _judged(contrast, self._measured, first=at == 0)
        return None


def _interval(measured: Measured, row: str, column: Column) -> "Interval | None":
    if not column.interval and column.metric in _COUNTED:
        return measured.interval(row, _COUNTED[column.metric])
    return measured.column_interval(row, column)


def _judged(contrast: Claim, measured: Measured, *, first: bool) -> JudgedClaim:
    """As its table does: the first contrast at the level of the looks, others on the seeds that no look chose."""
    items, confidence = at_last_look(contrast, measured)[:2] if first else (unlooked(measured), 0.95)
    try:
        verdict = contrast.verdict(items, confidence)
    except LabError as error:
        return JudgedClaim(title=contrast.title, outcome=None, sentence=f"Not judged yet: {error}.")
    return JudgedClaim(title=contrast.title, outcome=verdict.outcome, sentence=verdict.sentence)
