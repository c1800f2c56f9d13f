from dataclasses import replace

import pytest

from lab.paper.ledger.cells import table
from lab.paper.ledger.ours import JudgedClaim, Ours
from lab.paper.ledger.pages import Judged, judge_one

CELL = table("table_9").cell("AnyRes", "InfographicVQA")  # printed as 62.80
HOLDS = JudgedClaim(title="The claim", outcome="holds", sentence="Holds: it does.")
OURS = Ours(
    ablation="anyres",
    row="anyres",
    label="AnyRes",
    measure="test accuracy (%)",
    rung="paper",
    value=61.0,
    low=59.0,
    high=63.0,
    seeds=(0, 1, 2),
    run_ids=("a" * 32, "b" * 32, "c" * 32),
    claim=HOLDS,
)
EVALUATED = replace(OURS, claim=None, told="Ours, a benchmark on a checkpoint.")


@pytest.mark.parametrize("rung", ["cpu", "espeak", "gpu"])
def test_a_small_rung_never_counts_as_the_papers_number(rung: str) -> None:
    exact = replace(OURS, rung=rung, value=62.80, low=62.7, high=62.9)
    assert judge_one(CELL, exact) == "other scale"
    assert Judged(cell=CELL, ours=[exact]).verdict == "other scale"


def test_an_evaluation_within_one_in_a_hundred_reproduces() -> None:
    assert judge_one(CELL, replace(EVALUATED, value=62.80 * 1.0099)) == "reproduced"
    assert judge_one(CELL, replace(EVALUATED, value=62.80 * 1.0101)) == "not reproduced"


def test_half_the_last_printed_digit_is_near_enough_for_a_small_value() -> None:
    small = table("table_5").cell("Baichuan-Omni 7B", "ActivityNet-QA", metric="score")  # printed as 3.7
    assert judge_one(small, replace(EVALUATED, value=3.749)) == "reproduced"
    assert judge_one(small, replace(EVALUATED, value=3.751)) == "not reproduced"


def test_a_study_reproduces_no_value_however_near() -> None:
    assert judge_one(CELL, replace(OURS, value=62.80)) == "direction only"


def test_without_a_claim_that_holds_there_is_no_direction() -> None:
    far = replace(OURS, value=40.0, low=39.0, high=41.0)
    assert judge_one(CELL, far) == "direction only"
    for outcome in ("does not hold", "undecided", None):
        assert judge_one(CELL, replace(far, claim=replace(HOLDS, outcome=outcome))) == "not reproduced"
    assert judge_one(CELL, replace(far, claim=None)) == "not reproduced"


def test_a_value_that_was_not_found_can_be_right_in_direction_alone() -> None:
    missing = table("visual_projector").cell("Concat", "Every column")
    assert judge_one(missing, OURS) == "direction only"
    assert judge_one(missing, replace(OURS, claim=None)) == "not reproduced"


def test_a_cell_without_runs_is_not_attempted_and_a_dash_has_no_verdict() -> None:
    assert Judged(cell=CELL, ours=[]).verdict == "not attempted"
    dash = table("table_2").cell("GPT-4o", "SEED-IMG")
    assert Judged(cell=dash, ours=[]).verdict is None
    assert Judged(cell=dash, ours=[OURS]).verdict is None


def test_the_paper_rung_decides_where_there_are_several() -> None:
    small = replace(OURS, rung="cpu")
    failed = replace(OURS, value=40.0, low=39.0, high=41.0, claim=None)
    assert Judged(cell=CELL, ours=[small, failed]).verdict == "not reproduced"
    assert Judged(cell=CELL, ours=[failed, OURS, small]).verdict == "direction only"
    assert Judged(cell=CELL, ours=[failed, replace(EVALUATED, value=62.8), small]).verdict == "reproduced"
