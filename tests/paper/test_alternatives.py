"""The tables, claims and looks of a study of alternatives, in which questions are counted and more is better."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lab import paths
from lab.errors import LabError
from lab.evaluation.statistics import bootstrap_interval
from lab.paper import claims, tables
from lab.paper.claims import Comparison, common_seeds, judge, load_contrasts, question_of
from lab.paper.measured import Measured, load_measured, load_rows
from lab.paper.tables import comparisons
from lab.study.ablation import load_ablation
from lab.study.adaptive import Look, record_look
from tests.paper.fake_alternatives import BETTER, NAME, NUM_QUESTIONS, PER_GROUP, write_checkout, write_results


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    write_checkout(root)
    monkeypatch.setattr(paths, "repository_root", lambda: root)
    return root


def table() -> str:
    return tables.write_tables(NAME, "cpu").read_text()


def cells_of(text: str, *first: str) -> list[str]:
    found = next(line for line in text.splitlines() if line.startswith(f"| {' | '.join(first)} |"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def paragraph(text: str, title: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"**{title}.**"))


def measured() -> Measured:
    return load_measured(load_ablation(NAME), "cpu")


def test_accuracy_stands_beside_its_own_interval_and_not_that_of_the_errors():
    write_results(BETTER)
    text = table()
    assert cells_of(text, "Row")[1:4] == ["Seeds", "Accuracy (%)", "Tokens (M)"]
    assert cells_of(text, "Row")[-1] == "Reported (accuracy, %; 7B)"
    for row, label in (("direct", "Direct"), ("staged", "Staged"), ("mixed", "Mixed")):
        cells = cells_of(text, label)
        mean, low, high = (float(x) for x in re.fullmatch(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)", cells[2]).groups())
        of_row = measured().results.query("row == @row")["test_accuracy"]
        errors = bootstrap_interval(measured().utterances, row, metric="error_rate")
        assert mean == pytest.approx(100 * of_row.mean(), abs=0.051)
        assert (low, high) == pytest.approx((100 * (1 - errors.high), 100 * (1 - errors.low)), abs=0.051)
        assert low < mean < high
        assert cells[1] == "3"
    assert cells_of(text, "Staged")[-1] == "50.0"
    assert cells_of(text, "Direct")[-1] == "not in the paper"
    assert "Late" not in text
    assert "beside accuracy its 95% interval, over new seeds and new groups of questions at once" in text
    assert f"Corpus: scenes, {NUM_QUESTIONS} test questions ({NUM_QUESTIONS // PER_GROUP} groups of questions)" in text


def test_claim_and_control_are_judged_each_by_itself():
    write_results(BETTER)
    text = table()
    assert "**Claim.** Images first helps video." in text
    first, second = paragraph(text, "The order"), paragraph(text, "Order alone")
    assert first.startswith("**The order.** Holds: of the questions direct gets ")
    assert first.endswith("; staged is better.")
    assert "of the questions mixed gets" in second
    assert "Form and size" not in text
    right = {row: 100 * group.mean() for row, group in measured().results.groupby("row")["test_accuracy"]}
    assert f"direct gets {right['direct']:.2f}% right and staged {right['staged']:.2f}%" in first
    assert f"percentage points of {right['staged'] - right['direct']:+.2f} (95%" in first


def test_declared_pairs_are_compared_with_holms_correction():
    write_results(BETTER)
    text = table()
    assert cells_of(text, "Candidate") == ["Candidate", "Baseline", "Advantage (points)", "95% interval", "p (Holm)"]
    right = {row: 100 * group.mean() for row, group in measured().results.groupby("row")["test_accuracy"]}
    for baseline in ("direct", "mixed"):
        cells = cells_of(text, "Staged", baseline.capitalize())
        assert float(cells[2]) == pytest.approx(right["staged"] - right[baseline], abs=0.006)
        low, high = (float(end) for end in cells[3].split(" to "))
        assert low < float(cells[2]) < high
    assert "On the same questions and 3 seeds; above 0 the candidate makes fewer errors; p corrected for the 2 " in text


def test_pairs_that_were_not_run_or_have_no_seed_in_common_leave_the_rest():
    write_results({"direct": 0.4, "staged": 0.7})
    text = table()
    assert "p corrected for the 1 comparisons" in text
    assert cells_of(text, "Mixed")[1:3] == ["0 of 3 seeds", "–"]
    assert "**Order alone.** Not judged yet: no results of row 'mixed'; there are: 'staged'." in text
    write_results({"direct": 0.4}, seeds=(0,), more_seeds={"direct": (1,)})
    assert "Not judged yet: no results of row 'staged'" in table()
    write_results({"direct": 0.4, "staged": 0.7}, seeds=(), more_seeds={"direct": (0, 1), "staged": (2, 3)})
    text = table()
    assert "**The order.** Not judged yet: the rows to be compared have no seed in common." in text
    assert "Candidate" not in text


def test_a_pair_declared_twice_or_by_another_rate_is_not_compared_twice():
    write_results(BETTER)
    (first, second), found = load_contrasts(NAME), measured()
    whole = comparisons(found, [first, second])
    assert comparisons(found, [first, second, replace(first, label="again")]) == whole
    assert comparisons(found, [first, replace(second, metric="word_error_rate")]) == comparisons(found, [first])
    assert comparisons(found, []) == ""


def test_seeds_that_both_rows_have_are_what_a_comparison_rests_on():
    write_results(BETTER, more_seeds={"staged": (3, 4), "mixed": (3,)})
    contrast, other = load_contrasts(NAME)
    frame = measured().utterances
    assert sorted(contrast.items(frame)["seed"].unique()) == [0, 1, 2]
    assert sorted(other.items(frame)["seed"].unique()) == [0, 1, 2, 3]
    assert set(contrast.items(frame)["row"]) == {"direct", "staged"}
    assert "; 3 seeds, " in judge(contrast, frame)
    assert "; 4 seeds, " in judge(other, frame)
    with pytest.raises(LabError, match="the rows to be compared have no seed in common"):
        common_seeds(frame[(frame["row"] == "staged") == (frame["seed"] > 2)])


def test_the_question_of_a_comparison_is_decided_by_its_two_rows(monkeypatch):
    ablation = write_results(BETTER)
    question = question_of(ablation, "cpu")
    assert question.rows == ("direct", "staged")
    verdict = question.judge((0, 1, 2), 0.95)
    assert verdict.outcome == "holds"
    assert judge(load_contrasts(NAME)[0], measured().utterances) == verdict.sentence
    wider = question.judge((0, 1, 2), 0.99)
    assert wider.interval[1] - wider.interval[0] > verdict.interval[1] - verdict.interval[0]
    assert question.judge((0,), 0.95).outcome == "undecided"
    lost = (Comparison(baseline="direct", candidate="late_one"),)
    monkeypatch.setattr(claims, "load_contrasts", lambda name: lost)
    with pytest.raises(LabError, match=r"unknown row .*'late_one'"):
        question_of(ablation, "cpu")


def test_the_hash_of_a_comparison_is_of_its_answers_and_of_what_is_asked():
    ablation = write_results(BETTER)
    question = question_of(ablation, "cpu")
    before = question.data((0, 1, 2))
    assert re.fullmatch("[0-9a-f]{16}", before)
    write_results({**BETTER, "mixed": 0.1}, more_seeds={"staged": (7,)})
    assert question.data((0, 1, 2)) == before  # another row and another seed are none of its answers
    assert question.data((0, 1)) != before
    frame = load_rows(ablation, "cpu", question.rows)
    frame = frame[frame["seed"] < 3]
    first = question.contrast
    assert first.data(frame.sample(frac=1.0, random_state=0)) == before
    assert replace(first, label="other words").data(frame) == before
    assert replace(first, smallest_effect=0.02).data(frame) != before
    assert replace(first, baseline="staged", candidate="direct").data(frame) != before
    flipped = frame.copy()
    flipped.loc[flipped.index[0], "wrong_answers"] ^= 1
    assert first.data(flipped) != before
    swapped = frame.assign(row=np.where(frame["row"] == "staged", "direct", "staged"))
    assert first.data(swapped) != before


def test_a_looked_at_comparison_is_judged_at_the_level_of_its_last_look_and_its_neighbour_is_not():
    ablation = write_results(BETTER, more_seeds=dict.fromkeys(BETTER, (3, 4, 5)))
    question = question_of(ablation, "cpu")
    for number, size in enumerate((3, 6), 1):
        seeds = tuple(range(size))
        verdict = question.judge(seeds, 0.98875)
        low, high = verdict.interval
        look = Look(
            number=number,
            planned=4,
            seeds=seeds,
            confidence=0.98875,
            effect=verdict.effect,
            low=low,
            high=high,
            outcome=verdict.outcome,
            data=question.data(seeds),
            when="2026-01-02T03:04:05+00:00",
        )
        record_look(ablation, "cpu", look)
    text = table()
    claim = paragraph(text, "The order")
    assert "98.875% interval" in claim
    assert f"6 seeds, {NUM_QUESTIONS} questions" in claim
    assert "2 looks were taken (at 3, 6 seeds)" in claim
    assert "this one is the last one's" in claim
    assert f"3 seeds, {NUM_QUESTIONS} questions" in paragraph(text, "Order alone")
    assert "On the same questions and 3 seeds (0, 1, 2, which no look chose)" in text
    assert cells_of(text, "Staged")[1] == "6 (3 added²)"


@pytest.mark.parametrize(("label", "title"), [("", "Staged against direct"), ("the order", "The order")])
def test_a_comparison_is_titled_by_its_label_or_its_rows(label, title):
    assert Comparison(baseline="direct", candidate="staged", label=label).title == title


def test_a_column_that_no_cell_measured_stands_with_dashes():
    write_results(BETTER)
    path = paths.repository_root() / "ablations" / f"{NAME}.py"
    path.write_text(path.read_text().replace('"lm_tokens"', '"lm_tokenz"'))
    text = table()
    assert cells_of(text, "Row")[3] == "Tokens (M)"
    assert {cells_of(text, label)[3] for label in ("Direct", "Staged", "Mixed")} == {"–"}


def test_comparisons_by_two_measures_are_both_shown():
    write_results(BETTER)
    frame = measured().utterances
    doubled = frame.assign(character_errors=frame["wrong_answers"], num_characters=2)
    found = replace(measured(), utterances=doubled)
    declared = (
        Comparison(baseline="direct", candidate="staged"),
        Comparison(baseline="mixed", candidate="staged", metric="character_error_rate"),
    )
    text = comparisons(found, declared)
    assert text.count("| Candidate | Baseline |") == 2
    assert "| Staged | Direct |" in text
    assert "| Staged | Mixed |" in text
