import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from lab import paths
from lab.errors import LabError
from lab.evaluation import sequential
from lab.evaluation.sequential import look_level
from lab.evaluation.verdict import Verdict
from lab.paper.claims import ClaimQuestion, question_of
from lab.study import adaptive
from lab.study.ablation import Ablation, Cell, cells, load_ablation
from lab.study.adaptive import seeds_of, until_decided
from lab.study.forecast import Budget, OverBudget
from lab.study.plan import Display, PlannedCell
from lab.study.store import RunRecord
from lab.study.sweep import Outcome
from tests.paper.fakes import GROWING_GAP, NAME, Rates, write_checkout, write_results

FOUR = ("mean_pool_mlp_2", "conv_gmlp_2", "mean_pool_mlp_8", "conv_gmlp_8")
NO_GAP: Rates = dict.fromkeys(GROWING_GAP, 0.3)
# Growth of 7 points: clear with many seeds, not with three at a corrected level.
SOME_GAP: Rates = {**NO_GAP, ("mean_pool_mlp", 8): 0.37}


class Sweeps:
    """In place of `reproduce`: cells are done as soon as they are asked for, and what they measured is in the file."""

    def __init__(self, rates: Rates) -> None:
        self.rates = rates
        self.done: set[tuple[str, int]] = set()
        self.calls: list[tuple[Any, list[int], Budget | None]] = []
        self.new: list[list[tuple[str, int]]] = []
        self.becomes = "done"  # of cells from seed 3 on

    def __call__(
        self,
        ablation: Ablation,
        *,
        rung: str,
        rows: str | Sequence[str],
        seeds: Sequence[int],
        budget: Budget | None,
        display: Display | None,
        **options: Any,
    ) -> Outcome:
        chosen = cells(ablation, rung, rows, seeds)
        self.calls.append((rows, list(seeds), budget))
        new = [cell for cell in chosen if (cell.row, cell.seed) not in self.done]
        if new and budget is not None and not budget.fit and len(new) > budget.seconds:
            raise OverBudget(f"the {len(new)} cells would take too long")
        self.new.append([(cell.row, cell.seed) for cell in new])
        before = [self.entry(cell, "missing" if cell in new else "done", cell not in new) for cell in chosen]
        ended = {(c.row, c.seed): "done" if c not in new or c.seed < 3 else self.becomes for c in chosen}
        self.done |= {place for place, state in ended.items() if state == "done"}
        self.write(rung)
        return Outcome(
            before=tuple(before),
            planned=tuple(self.entry(cell, ended[cell.row, cell.seed]) for cell in chosen),
            failed={"a cell": "broke"} if "failed" in ended.values() else {},
            interrupted="killed" in ended.values(),
            results_file=None,
        )

    def write(self, rung: str) -> None:
        by_cell = {(p, n): {seed for row, seed in self.done if row == f"{p}_{n}"} for p, n in self.rates}
        there = {cell: rate for cell, rate in self.rates.items() if by_cell[cell]}
        write_results(there, rung, (), {cell: sorted(seeds) for cell, seeds in by_cell.items()})

    def entry(self, cell: Cell, state: Any, ran: bool = True) -> PlannedCell:
        """A cell takes ten seconds."""
        run = RunRecord(f"{cell.row} {cell.seed}", "FINISHED", 0.0, 10.0, {})
        return PlannedCell(cell=cell, state=state, run=run if ran else None)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that puts a checkout and fake sweeps with these rates in place, and gives the sweeps."""
    root = tmp_path / "checkout"
    write_checkout(root)
    monkeypatch.setattr(paths, "repository_root", lambda: root)
    monkeypatch.setattr(adaptive, "prepare_cells", lambda *given: ([], {}))
    monkeypatch.setattr(sequential, "resamples_at", lambda confidence: 2_000)

    def put(rates: Rates) -> Sweeps:
        sweeps = Sweeps(rates)
        monkeypatch.setattr(adaptive, "reproduce", sweeps)
        return sweeps

    return put


class Answered:
    """The claim of the study, with an answer that is fixed in part."""

    def __init__(self, question: ClaimQuestion, **fixed: Any) -> None:
        self.rows, self.data = question.rows, question.data
        self._question, self._fixed = question, fixed

    def judge(self, seeds: Sequence[int], confidence: float) -> Verdict:
        return replace(self._question.judge(seeds, confidence), **self._fixed)


def decide(rung: str = "cpu", fixed: Mapping[str, Any] = MappingProxyType({}), **options: Any) -> Outcome:
    ablation = load_ablation(NAME)
    display = Display(ablation, rung, file=io.StringIO())
    question = Answered(question_of(ablation, rung), **fixed)
    return until_decided(ablation, question, rung=rung, display=display, **options)


OPEN = {"outcome": "undecided", "further_seeds": 9}


def test_added_seeds_are_the_smallest_that_are_not_there() -> None:
    assert seeds_of([0, 1, 2], 6) == [0, 1, 2, 3, 4, 5]
    assert seeds_of([7, 1], 5) == [7, 1, 0, 2, 3]
    assert seeds_of([0, 1], 2) == [0, 1]


def test_a_clear_claim_is_decided_at_the_first_look_and_adds_no_seed(study: Any) -> None:
    sweeps = study(GROWING_GAP)
    outcome = decide()
    assert [call[:2] for call in sweeps.calls] == [("main", [0, 1, 2])]
    first, why = outcome.notes
    assert first.startswith("look 1 of 4: 3 seeds, effect +")
    assert "98.875% interval" in first
    assert first.endswith(": holds")
    assert why == "no more seeds: the claim is decided: it holds"
    assert len(outcome.planned) == 27


def test_seeds_are_doubled_in_the_four_deciding_rows_until_the_claim_is_decided(study: Any) -> None:
    sweeps = study(SOME_GAP)
    outcome = decide()
    taken = adaptive.read_looks(load_ablation(NAME), "cpu")
    sizes = [len(look.seeds) for look in taken]
    assert sizes == [3, 6, 12, 24][: len(sizes)]
    assert len(sizes) > 1
    assert [look.outcome for look in taken] == ["undecided"] * (len(taken) - 1) + ["holds"]
    assert [call[0] for call in sweeps.calls] == ["main"] + [FOUR] * (len(taken) - 1)
    assert sweeps.new[1] == [(row, seed) for row in sorted(FOUR) for seed in (3, 4, 5)]
    assert [look.confidence for look in taken] == [1 - look_level(k + 1, 4) for k in range(len(taken))]
    assert len(outcome.planned) == 27 + 4 * (sizes[-1] - 3)
    assert len(outcome.before) == len(outcome.planned)
    assert {entry.state for entry in outcome.before} == {"missing"}
    assert len(outcome.notes) == len(taken) + 1


def test_a_second_call_runs_nothing_and_takes_no_further_look(study: Any) -> None:
    sweeps = study(SOME_GAP)
    first = decide()
    taken = adaptive.read_looks(load_ablation(NAME), "cpu")
    sweeps.new.clear()
    again = decide()
    assert not any(sweeps.new)
    assert adaptive.read_looks(load_ablation(NAME), "cpu") == taken
    assert again.notes == first.notes[-2:]


def test_a_call_that_was_ended_by_its_maximum_goes_on_with_a_larger_one(study: Any) -> None:
    study(NO_GAP)
    ended = decide(fixed=OPEN, most_seeds=6)
    assert ended.notes[-1] == "no more seeds: the next look would be at 12 seeds, more than the 6 allowed"
    assert len(adaptive.read_looks(load_ablation(NAME), "cpu")) == 2
    decide(fixed=OPEN, most_seeds=12)
    taken = adaptive.read_looks(load_ablation(NAME), "cpu")
    assert [len(look.seeds) for look in taken] == [3, 6, 12]
    # Two were planned, so that the third has half of the tenth that is kept.
    assert [1 - look.confidence for look in taken] == [pytest.approx(level) for level in (0.0225, 0.0225, 0.0025)]
    assert "look 3, beyond the 2 planned: 12 seeds" in decide(fixed=OPEN, most_seeds=12).notes[0]


def test_cells_that_come_out_differently_when_run_anew_are_a_further_look(study: Any) -> None:
    study(NO_GAP)
    decide(fixed=OPEN, most_seeds=6)
    study({**NO_GAP, ("conv_gmlp", 8): 0.29})
    decide(fixed=OPEN, most_seeds=6)
    taken = adaptive.read_looks(load_ablation(NAME), "cpu")
    assert [len(look.seeds) for look in taken] == [3, 6, 6]
    assert taken[2].confidence > taken[1].confidence


def test_a_changed_claim_on_the_same_data_is_a_further_look(study: Any) -> None:
    study(NO_GAP)
    decide(fixed=OPEN, most_seeds=3)
    path = paths.repository_root() / "ablations" / f"{NAME}.py"
    path.write_text(
        path.read_text().replace("low_rate=2, high_rate=8)", "low_rate=2, high_rate=8, smallest_effect=0.5)")
    )
    decide(most_seeds=3)
    assert [look.outcome for look in adaptive.read_looks(load_ablation(NAME), "cpu")] == ["undecided", "does not hold"]


def test_rounds_share_one_budget_and_one_that_does_not_fit_is_not_begun(
    study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def monotonic() -> float:
        nonlocal now
        now += 1.0
        return now

    monkeypatch.setattr(adaptive.time, "monotonic", monotonic)
    sweeps = study(NO_GAP)
    outcome = decide(fixed=OPEN, budget=Budget(seconds=30.0))
    budgets = [call[2].seconds for call in sweeps.calls if call[2]]
    assert budgets == [29.0, 28.0, 27.0, 26.0]  # for 27, 12, 24 and 48 cells
    assert [len(look.seeds) for look in adaptive.read_looks(load_ablation(NAME), "cpu")] == [3, 6, 12]
    assert outcome.notes[-1] == "no more seeds: the budget ends here: the 48 cells would take too long"
    assert not outcome.failed


def test_rounds_share_gpu_hours_by_what_their_cells_took(study: Any) -> None:
    sweeps = study(NO_GAP)
    decide(fixed=OPEN, most_seeds=12, budget=Budget(seconds=10_000.0, gpus=2.0, ask=lambda above: True))
    # 27 cells, then 12, at 10 s on two GPUs each.
    assert [call[2].seconds for call in sweeps.calls] == [10_000.0, 10_000.0 - 540.0, 10_000.0 - 540.0 - 240.0]
    assert [call[2].ask is None for call in sweeps.calls] == [False, True, True]
    sweeps.calls.clear()
    decide(fixed=OPEN, most_seeds=12, budget=Budget(seconds=10_000.0, gpus=2.0))
    assert {call[2].seconds for call in sweeps.calls} == {10_000.0}  # nothing ran


def test_a_first_sweep_above_the_budget_is_refused_like_any(study: Any) -> None:
    study(NO_GAP)
    with pytest.raises(LabError, match="the 27 cells would take too long"):
        decide(fixed=OPEN, budget=Budget(seconds=20.0))


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("failed", "1 cell failed"),
        ("killed", "it was stopped"),
        ("running", "cells are left to another sweep, which has them; run it again when they are done"),
        ("missing", "the budget ended within a round, which is not looked at before it is complete"),
    ],
)
def test_a_round_that_is_not_complete_ends_it_and_is_not_looked_at(study: Any, state: str, why: str) -> None:
    sweeps = study(NO_GAP)
    sweeps.becomes = state
    outcome = decide(fixed=OPEN, budget=Budget(seconds=1.0, fit=True))
    assert outcome.notes[-1] == f"no more seeds: {why}"
    assert len(adaptive.read_looks(load_ablation(NAME), "cpu")) == 1
    assert outcome.interrupted == (state == "killed")
    sweeps.becomes = "done"
    decide(fixed=OPEN, most_seeds=6)
    assert len(adaptive.read_looks(load_ablation(NAME), "cpu")) == 2


def test_ctrl_c_between_rounds_ends_it_with_what_is_done(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    study(NO_GAP)

    def stopped(*given: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(ClaimQuestion, "data", stopped)
    outcome = decide(fixed=OPEN)
    assert outcome.interrupted
    assert outcome.notes == ("no more seeds: it was stopped",)


def test_it_ends_where_the_sentences_leave_it_open_whatever_seeds_are_added(study: Any) -> None:
    study(NO_GAP)
    none_said = {"outcome": "undecided", "further_seeds": None, "reason": "50 utterances leave it open"}
    outcome = decide(fixed={**none_said, "hopeless": True})
    assert len(outcome.notes) == 2
    assert outcome.notes[-1] == "no more seeds: no number of seeds would decide it: 50 utterances leave it open"


def test_it_goes_on_where_only_the_present_estimate_says_that_no_number_of_seeds_would_decide(study: Any) -> None:
    study(NO_GAP)
    outcome = decide(fixed={"outcome": "undecided", "further_seeds": None, "hopeless": False})
    assert len(outcome.notes) == 5
    assert outcome.notes[-1] == "no more seeds: the next look would be at 48 seeds, more than the 24 allowed"


def test_what_cannot_be_decided_is_refused_before_anything_runs(study: Any) -> None:
    sweeps = study(NO_GAP)
    with pytest.raises(
        LabError, match=r"decided by the rows mean_pool_mlp_2, .*, of which --rows leaves out conv_gmlp_8"
    ):
        decide(rows=["conv_gmlp_2", "mean_pool_mlp_2", "mean_pool_mlp_8"])
    with pytest.raises(LabError, match="1 seed does not show how much seeds differ"):
        decide(seeds=[0])
    with pytest.raises(LabError, match="at most 2 seeds are wanted, but 3 were run"):
        decide(fixed=OPEN, most_seeds=2)
    assert sweeps.calls == []
    decide(fixed=OPEN, most_seeds=6)
    with pytest.raises(LabError, match="at most 5 seeds are wanted, but 6 were looked at already"):
        decide(fixed=OPEN, most_seeds=5)
    with pytest.raises(LabError, match="began with seeds 0, 1, 2; go on with those rather than 0, 1, 2, 3"):
        decide(seeds=[0, 1, 2, 3])
    assert decide(fixed=OPEN, most_seeds=6, seeds=[0, 1, 2]).notes[-1].startswith("no more seeds: the next look")


def test_an_ablation_without_a_claim_or_without_its_rows_cannot_be_decided(study: Any) -> None:
    study(NO_GAP)
    path = paths.repository_root() / "ablations" / f"{NAME}.py"
    declared = path.read_text()
    path.write_text(declared.replace("contrasts = (", "others = ("))
    with pytest.raises(LabError, match="declares no `contrasts`, so that there is nothing to decide"):
        question_of(load_ablation(NAME), "cpu")
    path.write_text(declared.replace('baseline="mean_pool_mlp"', 'baseline="attention"'))
    with pytest.raises(LabError, match="unknown row of 'conv_gmlp_rate': 'attention_2'"):
        question_of(load_ablation(NAME), "cpu")


def test_the_file_of_looks_is_checked_and_left_as_it_is(study: Any) -> None:
    study(NO_GAP)
    decide(fixed=OPEN, most_seeds=6)
    ablation = load_ablation(NAME)
    path = adaptive.looks_path(ablation, "cpu")
    assert path == paths.repository_root() / "ablations" / "results" / f"{NAME}.cpu.looks.json"
    edited = path.read_text().replace("undecided", "holds")
    for text in (edited, "nonsense", json.dumps({"looks": []})):
        path.write_text(text)
        with pytest.raises(LabError, match=r"cpu\.looks\.json was changed by hand.*git checkout"):
            adaptive.read_looks(ablation, "cpu")
        assert path.read_text() == text
    assert adaptive.read_looks(ablation, "gpu") == ()


def test_looks_of_a_rung_that_is_not_recorded_stay_beside_the_store(study: Any) -> None:
    study(NO_GAP)
    decide(fixed=OPEN, rung="smoke", most_seeds=3)
    assert adaptive.looks_path(load_ablation(NAME), "smoke").parent == paths.mlruns_dir() / "results"
    assert not (paths.repository_root() / "ablations" / "results").exists()


def test_a_look_that_another_sweep_took_meanwhile_is_not_taken_twice(study: Any) -> None:
    study(NO_GAP)
    decide(fixed=OPEN, most_seeds=3)
    ablation = load_ablation(NAME)
    (look,) = adaptive.read_looks(ablation, "cpu")
    assert adaptive.record_look(ablation, "cpu", look) == (look,)
    with pytest.raises(LabError, match=r"another sweep looked at the claim .* meanwhile \(1 looks are recorded"):
        adaptive.record_look(ablation, "cpu", replace(look, data="other"))


@pytest.mark.slow
def test_the_store_keeps_a_copy_that_counts_where_the_file_is_older(study: Any, store_maker: Any) -> None:
    from lab.study import tracking

    store_maker()
    tracking.Recorder().study(NAME, "cpu", {})
    study(NO_GAP)
    decide(fixed=OPEN, most_seeds=3)
    ablation = load_ablation(NAME)
    path = adaptive.looks_path(ablation, "cpu")
    older = path.read_text()
    decide(fixed=OPEN, most_seeds=6)
    taken = adaptive.read_looks(ablation, "cpu")
    assert len(taken) == 2
    path.write_text(older)
    assert adaptive.read_looks(ablation, "cpu") == taken
    path.unlink()
    assert adaptive.read_looks(ablation, "cpu") == taken
