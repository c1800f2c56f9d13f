from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lab.errors import LabError
from lab.evaluation.statistics import METRICS, bootstrap_interval, pairwise_comparisons, resampled
from lab.evaluation.verdict import MeasuredEffect, Verdict, difference, judge
from tests.evaluation.results import results

DIRECT, STAGED = "direct", "staged"


def answered(wrong: Mapping[str, Sequence[Sequence[int]]], of: int = 100, per_group: int = 1) -> pd.DataFrame:
    """Results with exactly these wrong answers of `of`, `wrong[row][seed][question]`."""
    lines = [
        (row, seed, f"q{q}", f"g{q // per_group}", count, of)
        for row, seeds in wrong.items()
        for seed, questions in enumerate(seeds)
        for q, count in enumerate(questions)
    ]
    return pd.DataFrame(lines, columns=["row", "seed", "id", "group", "wrong_answers", "num_questions"])


def alike(direct: Sequence[int], staged: Sequence[int], **options: float) -> MeasuredEffect:
    """Four questions that are answered alike: only seeds differ."""
    frame = answered({DIRECT: [[count] * 4 for count in direct], STAGED: [[count] * 4 for count in staged]})
    return difference(frame, baseline=DIRECT, candidate=STAGED, **options)


def by_chance(per_group: int, num_questions: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    hard = rng.uniform(0.1, 0.9, num_questions)
    wrong = {
        row: [rng.binomial(1, np.clip(hard + more, 0, 1)).tolist() for _ in range(3)]
        for row, more in ((DIRECT, 0.2), (STAGED, 0.0), ("mixed", 0.1))
    }
    return answered(wrong, of=1, per_group=per_group)


def test_advantage_is_what_the_baseline_errs_more_with_students_interval_over_seeds():
    result = alike([40, 42, 44], [30, 30, 30])
    assert result.found.startswith("of the questions direct gets 58.00% right and staged 70.00%")
    spread = stats.t.ppf(0.975, 2) * 0.02 / np.sqrt(3)
    assert result.interval.estimate == pytest.approx(0.12)
    assert (result.interval.low, result.interval.high) == pytest.approx((0.12 - spread, 0.12 + spread), abs=3e-4)
    assert (result.interval.num_seeds, result.interval.num_utterances, result.interval.num_sentences) == (3, 4, 4)
    other = alike([40, 42, 44], [30, 30, 30], confidence=0.8)
    narrower = stats.t.ppf(0.9, 2) * 0.02 / np.sqrt(3)
    assert other.interval.high == pytest.approx(0.12 + narrower, abs=3e-4)


def test_what_a_seed_does_to_both_rows_falls_out():
    result = alike([40, 50, 75], [30, 40, 65])
    assert (result.interval.low, result.interval.high) == pytest.approx((0.10, 0.10))


def test_the_other_way_round_is_its_mirror():
    frame = by_chance(2)
    one = difference(frame, baseline=DIRECT, candidate=STAGED)
    other = difference(frame, baseline=STAGED, candidate=DIRECT)
    assert other.interval.estimate == pytest.approx(-one.interval.estimate)
    assert (other.interval.low, other.interval.high) == pytest.approx((-one.interval.high, -one.interval.low), abs=1e-9)
    assert other.p_value == pytest.approx(one.p_value)


def test_it_is_the_pair_that_pairwise_comparisons_would_give_and_other_rows_do_not_enter():
    frame = by_chance(2)
    two = frame[frame["row"] != "mixed"]
    (line,) = pairwise_comparisons(two, [(DIRECT, STAGED)], metric="error_rate").to_dict("records")
    for given in (two, frame, frame.sample(frac=1.0, random_state=1)):
        found = difference(given, baseline=DIRECT, candidate=STAGED)
        assert found.interval.estimate == pytest.approx(line["difference"])
        assert (found.interval.low, found.interval.high) == pytest.approx((line["low"], line["high"]))
        assert found.p_value == pytest.approx(line["p_value"])


def test_questions_of_one_group_are_no_independent_witnesses():
    frame = by_chance(1).query("seed == 0")  # so that the interval is over questions alone
    # Each question three times over, once as twins of one group and once as if they were unrelated.
    twins = pd.concat([frame.assign(id=frame["id"] + f"-{i}") for i in range(3)])
    apart = twins.assign(group=twins["id"])
    widths = {}
    for name, given in (("once", frame), ("twins", twins), ("apart", apart)):
        interval = difference(given, baseline=DIRECT, candidate=STAGED).interval
        widths[name] = interval.high - interval.low
        assert interval.num_utterances == given["id"].nunique()
        assert interval.num_sentences == given["group"].nunique()
    assert widths["twins"] == pytest.approx(widths["once"])
    assert widths["apart"] == pytest.approx(widths["twins"] / np.sqrt(3), rel=0.05)


def test_the_error_rate_pools_questions_and_has_an_interval_of_its_own():
    frame = by_chance(4)
    crossed = resampled(frame, "error_rate", 10)
    for at, row in enumerate(crossed.rows):
        of_row = frame[frame["row"] == row]
        expected = of_row.groupby("seed")["wrong_answers"].mean()
        assert crossed.rates[at].tolist() == pytest.approx(expected.tolist())
        interval = bootstrap_interval(frame, row, metric="error_rate")
        assert interval.low < of_row["wrong_answers"].mean() < interval.high
    assert crossed.num_sentences == 10
    assert METRICS["error_rate"].items == "questions"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="group"), "results of single questions lack the columns group; needed: row, seed"),
        (lambda f: f.iloc[:0], "no results of row 'direct'"),
        (lambda f: pd.concat([f, f.iloc[:1]]), "row 'direct', seed 0, has two results for question 'q0'"),
        (lambda f: f.iloc[1:], "the same questions, but row 'direct', seed 0, lacks 1 that other cells have: 'q0'"),
        (lambda f: f.assign(group="g"), "over questions needs at least two groups of questions; all questions are of"),
        (lambda f: f.assign(num_questions=0), "num_questions is 0 in every result"),
        (lambda f: f.assign(group=f["group"] + f["seed"].map(str)), "question 'q0' has different references"),
        (lambda f: f[(f["row"] == STAGED) | (f["seed"] > 0)], "same seeds, but of seeds 0, 1, 2 row 'direct' lacks 0"),
    ],
)
def test_questions_that_cannot_be_compared_are_refused(change, message):
    with pytest.raises(LabError, match=message):
        difference(change(by_chance(2)), baseline=DIRECT, candidate=STAGED)


def test_rows_that_are_one_or_missing_and_unknown_metrics_are_refused():
    with pytest.raises(LabError, match="baseline and candidate are both 'direct'; name two rows"):
        difference(by_chance(2), baseline=DIRECT, candidate=DIRECT)
    with pytest.raises(LabError, match="no results of row 'stagd'; there are: 'direct', 'mixed', 'staged'"):
        difference(by_chance(2), baseline=DIRECT, candidate="stagd")
    with pytest.raises(LabError, match=r"unknown metric 'error_rat' .*error_rate"):
        difference(by_chance(2), baseline=DIRECT, candidate=STAGED, metric="error_rat")


def judged(direct: Sequence[int], staged: Sequence[int], **options: float) -> Verdict:
    return judge(alike(direct, staged), **options)


def test_the_claim_holds_where_the_candidate_errs_less():
    verdict = judged([40, 42, 44], [30, 30, 30])
    low, high = (100 * end for end in verdict.interval)
    p_value = 2 * stats.t.sf(0.12 / 0.02 * np.sqrt(3), df=2)
    assert verdict.outcome == "holds"
    assert verdict.sentence == (
        "Holds: of the questions direct gets 58.00% right and staged 70.00%, a difference in percentage points of "
        f"+12.00 (95% interval +{low:.2f} to +{high:.2f}; p = {p_value:.3f}; 3 seeds, 4 questions); staged is better."
    )


def test_the_claim_does_not_hold_where_it_errs_more_or_by_too_little():
    worse = judged([30, 30, 30], [40, 42, 44])
    assert (worse.outcome, worse.effect) == ("does not hold", pytest.approx(-0.12))
    assert worse.sentence.endswith("; staged is worse.")
    little = judged([30, 30, 30], [30, 30, 30], smallest_effect=0.02)
    assert little.outcome == "does not hold"
    assert little.sentence.endswith("; an advantage of 2.00 points, the smallest that would matter, is ruled out.")
    assert "-0.00" not in little.sentence


def test_an_open_claim_says_how_many_seeds_would_decide_it():
    # Advantages 0, 2, 4: as in test_verdict, t(K - 1) / sqrt(K) < 1 first at K = 7.
    verdict = judged([30, 32, 34], [30, 30, 30])
    assert (verdict.outcome, verdict.further_seeds) == ("undecided", 4)
    assert "; 4 further seeds would decide it if" in verdict.sentence
    one = judged([90], [10])
    assert (one.outcome, one.further_seeds) == ("undecided", None)
    assert not one.hopeless
    assert one.sentence.endswith("one seed does not show how much seeds differ: run at least three.")


def test_questions_alone_may_leave_it_open():
    rng = np.random.default_rng(0)
    direct, staged = ([rng.integers(0, 90, 12).tolist()] * 3 for _ in range(2))
    verdict = judge(difference(answered({DIRECT: direct, STAGED: staged}), baseline=DIRECT, candidate=STAGED))
    assert verdict.hopeless
    assert "; 12 questions leave it open however many seeds are run, unless more of them move" in verdict.sentence


def test_other_rates_than_of_questions_are_called_by_their_name():
    frame = results({("pool", 2): 0.4, ("conv", 2): 0.2})
    found = difference(frame, baseline="pool 2", candidate="conv 2", metric="character_error_rate", num_resamples=500)
    sentence = judge(found).sentence
    pool, conv = (100 * bootstrap_interval(frame, row, num_resamples=10).estimate for row in ("pool 2", "conv 2"))
    assert f"pool 2 has a character error rate of {pool:.2f}% and conv 2 one of {conv:.2f}%, a diff" in sentence
    assert "60 utterances" in sentence


def test_negative_smallest_effect_is_refused():
    with pytest.raises(LabError, match=r"the smallest effect of interest is -0\.01; it must be 0 or above"):
        judged([30, 31, 32], [30, 30, 30], smallest_effect=-0.01)
