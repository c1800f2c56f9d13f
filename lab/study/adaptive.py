"""`--until-decided`: seeds added, round by round, to the rows that decide the claim, with a look after each round.

Levels and numbers of seeds are those of `lab.evaluation.sequential`. A second call goes on from the last look: what was
looked at is not looked at again, and a claim that was decided stays so without a cell being run. Where the cells have
changed since and came out differently, looking at them is a further look of the same sequence. What nothing here can
count is the interval of a table that was written before: who adds seeds because that was open has looked once more.

Looks are kept in `ablations/results/NAME.RUNG.looks.json`, beside the results, because a claim decided at the third
look must not be read as one that was looked at once. The file is written whole or not at all, with a SHA-256 of what it
holds. A copy is kept with the study's run in MLflow; where the two differ the longer counts, since a look that was
taken stays taken, whatever an older checkout holds.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lab import paths
from lab.errors import LabError
from lab.evaluation.sequential import look_level, look_sizes
from lab.study import tracking
from lab.study.ablation import Ablation, cells
from lab.study.forecast import Budget, OverBudget
from lab.study.plan import Display
from lab.study.results import changed_by_hand, lock, results_path
from lab.study.sweep import Outcome, prepare_cells, reproduce

if TYPE_CHECKING:
    from lab.evaluation.verdict import Verdict

DEFAULT_MOST_SEEDS = 24
"""Three seeds doubled three times."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at the first contrast of an ablation; effects are fractions."""

    number: int  # from 1, over all looks that were ever taken at this claim
    planned: int  # how many were meant to be taken when the first was
    seeds: tuple[int, ...]
    confidence: float  # of the interval: 1 - this look's share of the level
    effect: float
    low: float
    high: float
    outcome: str  # holds, does not hold, or undecided
    data: str  # a hash of what was looked at: looking at the same once more is no new look
    when: str  # ISO 8601, UTC


def looks_path(ablation: Ablation, rung: str) -> Path:
    """The tracked file, or for a rung that is not recorded one beside the store."""
    return results_path(ablation, rung).with_name(f"{ablation.name}.{rung}.looks.json")


def read_looks(ablation: Ablation, rung: str) -> tuple[Look, ...]:
    """Every look that was taken, in order; a LabError where the file was changed by hand, which is left as it is."""
    path = looks_path(ablation, rung)
    in_file = _parse(path)
    if in_file is None:
        raise changed_by_hand(path, ", or remove it where the study's run in MLflow has the looks as well")
    study = tracking.find_study(ablation.name, rung)
    kept = _parse(study.artifact("looks.json")) if study else None
    return max(in_file, kept or (), key=len)


def _checksum(looks: Sequence[Mapping[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(list(looks), sort_keys=True).encode()).hexdigest()


def _parse(path: Path) -> tuple[Look, ...] | None:
    """The looks of a file, none where there is none; None where it is not what `lab` wrote."""
    if not path.exists():
        return ()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["sha256"] != _checksum(content["looks"]):
            return None
        return tuple(Look(**{**entry, "seeds": tuple(entry["seeds"])}) for entry in content["looks"])
    except (ValueError, KeyError, TypeError):
        return None


def record_look(ablation: Ablation, rung: str, look: Look) -> tuple[Look, ...]:
    """Add a look to the file and to the copy in the store; returns all.

    One of the same data that stands there already is not added: another sweep took it meanwhile. Where that took
    another one, and this is not the next, it is a LabError.
    """
    path = looks_path(ablation, rung)
    with lock(f"looks-{ablation.name}-{rung}"):
        taken = read_looks(ablation, rung)
        if taken and taken[-1].data == look.data:
            return taken
        if look.number != len(taken) + 1:
            raise LabError(
                f"another sweep looked at the claim of {ablation.name!r} meanwhile ({len(taken)} looks are recorded, "
                f"this was to be look {look.number}); run it again to go on from there"
            )
        looks = (*taken, look)
        entries = [asdict(one) for one in looks]
        text = json.dumps({"sha256": _checksum(entries), "looks": entries}, indent=1) + "\n"
        paths.write_whole(path, text)
        if (study := tracking.find_study(ablation.name, rung)) is not None:
            tracking.Recorder().keep(study.run_id, "looks.json", text)
    return looks


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


class _Sweeps:
    """The sweeps of one call: run with the same options under one budget, and put together to one outcome."""

    def __init__(self, ablation: Ablation, rung: str, budget: Budget | None, options: dict[str, Any]) -> None:
        self.ablation, self.rung = ablation, rung
        self._budget, self._options = budget, options
        self._begun, self._gpu_seconds = time.monotonic(), 0.0
        self.outcome: Outcome | None = None

    def run(self, rows: str | Sequence[str], seeds: Sequence[int]) -> Outcome:
        left = self._budget
        if left is not None:
            # Whoever was asked was asked once, for the study itself.
            left = replace(left, ask=left.ask if self.outcome is None else None)
            left = left.less(self._gpu_seconds if left.gpus else time.monotonic() - self._begun)
        now = reproduce(self.ablation, rung=self.rung, rows=rows, seeds=seeds, budget=left, **self._options)
        if left is not None:
            ran = [is_.run for was, is_ in zip(now.before, now.planned, strict=True) if is_.run not in (None, was.run)]
            self._gpu_seconds += left.gpus * sum(run.seconds or 0.0 for run in ran if run is not None)
        past, self.outcome = self.outcome, now
        if past is not None:
            before, planned = ({(e.cell.row, e.cell.seed): e for e in es} for es in (now.before, past.planned))
            before |= {(entry.cell.row, entry.cell.seed): entry for entry in past.before}
            planned |= {(entry.cell.row, entry.cell.seed): entry for entry in now.planned}
            self.outcome = replace(
                now,
                before=tuple(before[place] for place in planned),
                planned=tuple(planned.values()),
                failed={**past.failed, **now.failed},
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

    It ends where the claim is decided, a cell failed, the budget or the seeds are used up, no number of seeds would
    decide it wherever those that were run allow the effect to be, or with Ctrl-C. `notes` of the outcome has a line a
    look, and why it ended.

    Args:
        most_seeds: of a row; 24 where None, or as many as were looked at already.
        seeds: those to begin with: of the first look where one was taken, else the ablation's own where None.
        budget: for all rounds together. A round that does not fit is not begun, unless what fits is to be run; a
            round that is not complete is not looked at.

    Raises:
        LabError: the chosen rows leave out one that decides; a single seed; fewer seeds allowed than were run; other
            seeds than the first look's; else as `reproduce`, which gets the other options.
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
    sweeps = _Sweeps(ablation, rung, budget, {**options, "display": display})
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        (display or Display(ablation, rung)).say(line)

    def rounds() -> str:
        """Look, add seeds, look again; returns why it ended."""
        if why := _ended(sweeps.run(rows, first)):
            return why
        for size in (size for size in sizes if size >= run):
            seeds = seeds_of(first, size)
            if size > len(first):
                try:
                    if why := _ended(sweeps.run(question.rows, seeds)):
                        return why
                except OverBudget as error:
                    return f"the budget ends here: {error}"
            look, hopeless = _look(ablation, rung, question, seeds, plan)
            note(describe_look(look))
            if look.outcome != "undecided":
                return f"the claim is decided: it {look.outcome}"
            if hopeless:
                return f"no number of seeds would decide it: {hopeless}"
        return f"the next look would be at {2 * len(seeds)} seeds, more than the {most} allowed"

    try:
        why = rounds()
    except KeyboardInterrupt:
        if sweeps.outcome is None:
            raise
        sweeps.outcome = replace(sweeps.outcome, interrupted=True)
        why = "it was stopped"
    note(f"no more seeds: {why}")
    assert sweeps.outcome is not None
    return replace(sweeps.outcome, notes=tuple(notes))


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
    decide it, empty where one may: what the present estimate alone leaves open, more seeds may decide."""
    taken = read_looks(ablation, rung)
    data = question.data(seeds)
    if taken and taken[-1].data == data:
        look = taken[-1]
        verdict = question.judge(seeds, look.confidence)
    else:
        confidence = 1 - look_level(len(taken) + 1, plan)
        verdict = question.judge(seeds, confidence)
        look = Look(
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
        )
        look = record_look(ablation, rung, look)[-1]
    return look, verdict.reason if verdict.hopeless else ""


def describe_look(look: Look) -> str:
    """One line: number, seeds, effect, interval, level, verdict."""
    effect, low, high = (f"{round(100 * value, 2) + 0.0:+.2f}" for value in (look.effect, look.low, look.high))
    of = f" of {look.planned}" if look.number <= look.planned else f", beyond the {look.planned} planned"
    return (
        f"look {look.number}{of}: {len(look.seeds)} seeds, effect {effect} points, "
        f"{percent(look.confidence)} interval {low} to {high}: {look.outcome}"
    )


def percent(confidence: float) -> str:
    """`98.875%`, without digits that say nothing."""
    return f"{round(100 * confidence, 3):g}%"
