"""`--until-decided`: seeds added, round by round, to the rows that decide the claim, with a look after each round.

Levels and numbers of seeds are those of `lab.evaluation.sequential`; the looks are kept by `lab.study.looks`. A second
call goes on from the last look: what was looked at is not looked at again, and a claim that was decided stays so
without a cell being run. Where the cells have changed since (code, data, another machine) and came out differently,
looking at them is a further look of the same sequence. What nothing here can count is the interval of a table that was
written before: who adds seeds because that was open has looked once more.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from lab.errors import LabError
from lab.evaluation.sequential import look_level, look_sizes
from lab.study.ablation import Ablation
from lab.study.cells import cells
from lab.study.display import Display
from lab.study.forecast import Budget, OverBudget
from lab.study.looks import Look, read_looks, record_look
from lab.study.sweep import Outcome, prepare_cells, reproduce

if TYPE_CHECKING:
    from lab.evaluation.verdict import Verdict

DEFAULT_MOST_SEEDS = 24
"""Three seeds doubled three times."""


class Question(Protocol):
    """A claim that can be looked at (`lab.paper.claims.question_of` makes one of an ablation's first contrast)."""

    @property
    def rows(self) -> tuple[str, ...]:
        """The keys of the rows that decide it."""

    def data(self, seeds: Sequence[int]) -> str:
        """A hash of these rows' results at these seeds, and of what is asked of them."""

    def judge(self, seeds: Sequence[int], confidence: float) -> "Verdict":
        """What they say of the claim."""


def seeds_of(first: Sequence[int], count: int) -> list[int]:
    """`first` and the smallest other seeds, `count` in all."""
    others = (seed for seed in range(count + len(first)) if seed not in set(first))
    return [*first, *(seed for seed, _ in zip(others, range(count - len(first)), strict=False))]


@dataclass
class _Sweeps:
    """The sweeps of one call: run with the same options under one budget, and put together to one outcome."""

    ablation: Ablation
    rung: str
    budget: Budget | None
    options: dict[str, Any]
    begun: float
    gpu_seconds: float = 0.0
    outcome: Outcome | None = None

    def run(self, rows: str | Sequence[str], seeds: Sequence[int]) -> Outcome:
        left = self.budget
        if left is not None:
            spent = self.gpu_seconds if left.gpus else time.monotonic() - self.begun
            # Whoever was asked was asked once, for the study itself.
            ask = left.ask if self.outcome is None else None
            left = replace(left, seconds=max(0.0, left.seconds - spent), ask=ask)
        now = reproduce(self.ablation, rung=self.rung, rows=rows, seeds=seeds, budget=left, **self.options)
        if left is not None:
            ran = [is_.run for was, is_ in zip(now.before, now.planned, strict=True) if is_.run not in (None, was.run)]
            self.gpu_seconds += left.gpus * sum(run.seconds or 0.0 for run in ran if run is not None)
        if self.outcome is None:
            self.outcome = now
            return now
        before = {(entry.cell.row, entry.cell.seed): entry for entry in now.before}
        before |= {(entry.cell.row, entry.cell.seed): entry for entry in self.outcome.before}
        planned = {(entry.cell.row, entry.cell.seed): entry for entry in self.outcome.planned}
        planned |= {(entry.cell.row, entry.cell.seed): entry for entry in now.planned}
        self.outcome = replace(
            now,
            before=tuple(before[place] for place in planned),
            planned=tuple(planned.values()),
            failed={**self.outcome.failed, **now.failed},
        )
        return now


def until_decided(
    ablation: Ablation,
    question: Question,
    *,
    most_seeds: int | None = None,
    rung: str = "cpu",
    rows: str | Sequence[str] = "main",
    seeds: Sequence[int] | None = None,
    budget: Budget | None = None,
    display: Display | None = None,
    **options: Any,
) -> Outcome:
    """Bring a study up to date, then add seeds to the rows of `question` until it is decided or something ends it.

    Args:
        most_seeds: of a row; 24 where None, or as many as were looked at already.
        seeds: those to begin with: of the first look where one was taken, else the ablation's own where None.
        budget: for all rounds together. A round that does not fit is not begun, unless what fits is to be run; a
            round that is not complete is not looked at.
        options: the others of `reproduce`, which every round gets.

    It ends where the claim is decided, a cell failed, the budget or the seeds are used up, the forecast says that no
    number of seeds would decide, or with Ctrl-C. `notes` of the outcome has a line a look, and why it ended.

    Raises:
        LabError: the chosen rows leave out one that decides; a single seed; fewer seeds allowed than were run; other
            seeds than the first look's; else as `reproduce`.
    """
    taken = read_looks(ablation, rung)
    first = list(seeds if seeds is not None else taken[0].seeds if taken else ablation.seeds)
    chosen = {cell.row for cell in cells(ablation, rung, rows, first)}
    if lacking := [row for row in question.rows if row not in chosen]:
        raise LabError(
            f"the claim of {ablation.name!r} is decided by the rows {', '.join(question.rows)}, of which --rows leaves "
            f"out {', '.join(lacking)}"
        )
    if taken and set(first) != set(taken[0].seeds):
        raise LabError(
            f"the looks at the claim of {ablation.name!r} began with seeds {', '.join(map(str, taken[0].seeds))}; "
            f"go on with those rather than {', '.join(map(str, first))}"
        )
    run = max((len(look.seeds) for look in taken), default=len(first))
    most = max(DEFAULT_MOST_SEEDS, run) if most_seeds is None else most_seeds
    sizes = look_sizes(len(first), most)
    if most < run:
        raise LabError(f"at most {most} seeds are wanted, but {run} were looked at already; allow more")
    plan = taken[0].planned if taken else len(sizes)
    # Data, features and weights come before the clock starts, as they do for a sweep.
    prepare_cells(ablation, rung, rows, first, options.get("prepare"))
    sweeps = _Sweeps(ablation, rung, budget, {**options, "display": display}, time.monotonic())
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        (display or Display(ablation, rung)).say(line)

    try:
        why = _ended(sweeps.run(rows, first)) or _rounds(
            sweeps, question, first, [size for size in sizes if size >= run], plan, most, note
        )
    except KeyboardInterrupt:
        if sweeps.outcome is None:
            raise
        sweeps.outcome = replace(sweeps.outcome, interrupted=True)
        why = "it was stopped"
    note(f"no more seeds: {why}")
    assert sweeps.outcome is not None
    return replace(sweeps.outcome, notes=tuple(notes))


def _rounds(
    sweeps: _Sweeps,
    question: Question,
    first: Sequence[int],
    sizes: Sequence[int],
    plan: int,
    most: int,
    note: Callable[[str], None],
) -> str:
    """Look, add seeds, look again; returns why it ended."""
    for size in sizes:
        seeds = seeds_of(first, size)
        if size > len(first):
            try:
                if why := _ended(sweeps.run(question.rows, seeds)):
                    return why
            except OverBudget as error:
                return f"the budget ends here: {error}"
        look, hopeless = _look(sweeps.ablation, sweeps.rung, question, seeds, plan)
        note(describe_look(look))
        if look.outcome != "undecided":
            return f"the claim is decided: it {look.outcome}"
        if hopeless:
            return f"if the effect stays as estimated no number of seeds would decide it: {hopeless}"
    return f"the next look would be at {2 * len(seeds)} seeds, more than the {most} allowed"


def _ended(outcome: Outcome) -> str:
    """Why a round cannot be looked at; empty where all of its cells are done."""
    if outcome.interrupted:
        return "it was stopped"
    if outcome.failed:
        return f"{len(outcome.failed)} cell{'s' * (len(outcome.failed) != 1)} failed"
    if outcome.complete:
        return ""
    if any(entry.state == "running" for entry in outcome.planned):
        return "cells are left to another sweep, which has them; run it again when they are done"
    return "the budget ended within a round, which is not looked at before it is complete"


def _look(ablation: Ablation, rung: str, question: Question, seeds: Sequence[int], plan: int) -> tuple[Look, str]:
    """Look at the claim, or take the last look again where the data are its own; also why no number of seeds would
    decide it, empty where one may."""
    taken = read_looks(ablation, rung)
    data = question.data(seeds)
    if taken and taken[-1].data == data:
        look = taken[-1]
        verdict = question.judge(seeds, look.confidence)
    else:
        confidence = 1 - look_level(len(taken) + 1, plan)
        verdict = question.judge(seeds, confidence)
        look = record_look(
            ablation,
            rung,
            Look(
                number=len(taken) + 1,
                planned=plan,
                seeds=tuple(seeds),
                confidence=confidence,
                effect=verdict.effect,
                low=verdict.interval[0],
                high=verdict.interval[1],
                outcome=verdict.outcome,
                data=data,
                when=datetime.now(UTC).isoformat(timespec="seconds"),
            ),
        )[-1]
    hopeless = verdict.reason if verdict.outcome == "undecided" and verdict.further_seeds is None else ""
    return look, hopeless


def describe_look(look: Look) -> str:
    """One line: number, seeds, effect, interval, level, verdict."""
    effect, low, high = (f"{round(100 * value, 2) + 0.0:+.2f}" for value in (look.effect, look.low, look.high))
    beyond = "" if look.number <= look.planned else f", beyond the {look.planned} planned"
    of = f" of {look.planned}" if look.number <= look.planned else ""
    return (
        f"look {look.number}{of}{beyond}: {len(look.seeds)} seeds, effect {effect} points, "
        f"{percent(look.confidence)} interval {low} to {high}: {look.outcome}"
    )


def percent(confidence: float) -> str:
    """`98.875%`, without digits that say nothing."""
    return f"{round(100 * confidence, 3):g}%"
