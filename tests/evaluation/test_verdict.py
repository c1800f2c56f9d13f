import numpy as np
import pandas as pd
import pytest

from lab.errors import LabError
from lab.evaluation.statistics import Interval, effect_of
from lab.evaluation.verdict import MeasuredEffect, Verdict, interaction, judge
from tests.evaluation.results import exact, results

POOL, CONV = "mean_pool_mlp", "conv_gmlp"


def growth(high_baseline: list[int], length: int = 100) -> MeasuredEffect:
    """Utterances are alike; both projectors make 20 errors of 100 at n = 2, the candidate 30 at n = 8."""
    seeds = len(high_baseline)
    cells = {
        (POOL, 2): [[20] * 4] * seeds,
        (CONV, 2): [[20] * 4] * seeds,
        (POOL, 8): [[errors] * 4 for errors in high_baseline],
        (CONV, 8): [[30] * 4] * seeds,
    }
    return interaction(exact(cells, length), baseline=POOL, candidate=CONV, low_rate=2, high_rate=8)


def judged(high_baseline: list[int], **options: float) -> Verdict:
    return judge(growth(high_baseline), **options)


def test_claim_holds_where_the_interval_is_above_zero() -> None:
    verdict = judged([41, 42, 43])  # growth 11, 12, 13: 12 +- 4.303 / sqrt(3) = 9.52 to 14.48
    assert verdict.outcome == "holds"
    assert verdict.further_seeds == 0
    assert verdict.effect == pytest.approx(0.12)
    assert verdict.interval == (pytest.approx(0.0952, abs=2e-4), pytest.approx(0.1448, abs=2e-4))
    assert verdict.sentence == (
        "Holds: from n = 2 to n = 8 the gap between mean_pool_mlp and conv_gmlp goes from 0.00 to 12.00 percentage "
        f"points of character error rate, a change of +12.00 (95% interval +{100 * verdict.interval[0]:.2f} to "
        f"+{100 * verdict.interval[1]:.2f}; p = 0.002; 3 seeds, 4 utterances); the gap grows."
    )


def test_claim_does_not_hold_where_the_interval_is_below_zero() -> None:
    verdict = judged([19, 18, 17])
    assert (verdict.outcome, verdict.further_seeds) == ("does not hold", 0)
    assert verdict.interval[1] < 0
    assert verdict.sentence.startswith("Does not hold: from n = 2")
    assert verdict.sentence.endswith("; the gap shrinks.")


def test_claim_does_not_hold_where_the_smallest_effect_of_interest_is_ruled_out() -> None:
    verdict = judged([29, 30, 31], smallest_effect=0.03)  # 0 +- 2.48 points
    assert verdict.outcome == "does not hold"
    assert verdict.sentence.endswith("growth of 3.00 points, the smallest that would matter, is ruled out.")
    assert judged([29, 30, 31], smallest_effect=0.02).outcome == "undecided"


def test_growth_above_zero_but_below_the_smallest_effect_is_not_what_is_claimed() -> None:
    result = growth([31, 31, 31])  # one point, in every seed
    assert judge(result, smallest_effect=0.0).outcome == "holds"
    assert judge(result, smallest_effect=0.02).outcome == "does not hold"


def test_undecided_says_how_many_further_seeds_would_decide() -> None:
    # Growth 0, 2, 4 points: mean 2, deviation 2. The interval leaves 0 out at the first K with t(K - 1) / sqrt(K) < 1,
    # which is K = 7 (2.447 / 2.646; at 6, 2.571 / 2.449).
    verdict = judged([30, 32, 34])
    assert (verdict.outcome, verdict.further_seeds) == ("undecided", 4)
    assert verdict.sentence.endswith(
        "; 4 further seeds would decide it if the effect and the spread between seeds stay as estimated."
    )


def test_one_further_seed_is_singular() -> None:
    # Growth 1, 4, 7 x 10/7: mean / deviation = 4 / 3 of 1.59 (K = 4: 3.182 / 2) but not of 2.48 (K = 3).
    verdict = judged([32, 36, 36], smallest_effect=0.01)  # mean 4.67, deviation 2.31, ratio 2.02
    assert (verdict.outcome, verdict.further_seeds) == ("undecided", 1)
    assert "; 1 further seed would decide it" in verdict.sentence


def test_undecided_by_utterances_alone_says_so() -> None:
    rng = np.random.default_rng(0)
    cells = {cell: [rng.integers(0, 9, 12).tolist()] * 3 for cell in [(POOL, 2), (CONV, 2), (POOL, 8), (CONV, 8)]}
    result = interaction(exact(cells), baseline=POOL, candidate=CONV, low_rate=2, high_rate=8)
    verdict = judge(result)
    assert (verdict.outcome, verdict.further_seeds) == ("undecided", None)
    assert verdict.hopeless
    assert verdict.sentence.endswith(
        "; 12 utterances leave it open however many seeds are run, unless more of them move the effect further than "
        "the spread of these 3 allows."
    )


def test_open_at_the_present_estimate_is_not_hopeless_where_the_seeds_allow_another() -> None:
    # Four utterances differ, so that 0 and 5 points at the two seeds leave 2.5 open for ever, but the truth may be 34.
    cells = {
        (POOL, 2): [[20] * 4] * 2,
        (CONV, 2): [[20] * 4] * 2,
        (POOL, 8): [[10, 50, 20, 40], [15, 55, 25, 45]],
        (CONV, 8): [[30] * 4] * 2,
    }
    result = interaction(exact(cells, 100), baseline=POOL, candidate=CONV, low_rate=2, high_rate=8)
    verdict = judge(result)
    assert (verdict.outcome, verdict.further_seeds, verdict.hopeless) == ("undecided", None, False)
    assert verdict.sentence.endswith(
        "; up to 1000 seeds would not decide it if the effect and the spread between seeds stay as estimated, but "
        "more may move both."
    )


def simulated(truth: float, first: int, seed_spread: float, repeats: int = 250) -> tuple[int, int, int, int]:
    """How many studies the estimate at `first` seeds leaves open for ever and are hopeless, each with those decided.

    Of 400 utterances that differ by 0.12, and by 0.12 more in each seed; decided is what 24 seeds decide.
    """
    rng = np.random.default_rng(0)
    weights = rng.multinomial(400, np.full(400, 1 / 400), 1_000) / 400
    order = rng.permutation(1_000)

    def measured(values: np.ndarray) -> MeasuredEffect:
        effect = effect_of(values.mean(axis=0), weights @ values, order)
        low, high = effect.interval(0.95)
        sizes = {"num_seeds": values.shape[1], "num_utterances": 400, "num_sentences": 400}
        interval = Interval(estimate=effect.estimate, low=low, high=high, confidence=0.95, **sizes)
        words = ("grows", "shrinks", "growth")
        return MeasuredEffect(metric="error_rate", interval=interval, p_value=0.5, found="", words=words, effect=effect)

    told, hopeless, decided = np.zeros((3, repeats), bool)
    for study in range(repeats):
        of_seeds, of_utterances = seed_spread * rng.normal(size=24), 0.12 * rng.normal(size=(400, 1))
        values = truth + of_seeds + of_utterances + 0.12 * rng.normal(size=(400, 24))
        result = measured(values[:, :first])
        verdict = judge(result)
        low, high = result.effect.interval(0.95, np.inf)
        told[study] = verdict.outcome == "undecided" and low <= 0 and high >= 0.01
        hopeless[study] = verdict.hopeless
        decided[study] = judge(measured(values)).outcome != "undecided"
    return told.sum(), (told & decided).sum(), hopeless.sum(), (hopeless & decided).sum()


@pytest.mark.slow
@pytest.mark.parametrize("truth", [0.02, 0.03])
def test_no_study_that_24_seeds_decide_is_called_hopeless_at_three(truth: float) -> None:
    told, decided, hopeless, _ = simulated(truth, 3, 0.028)
    assert decided > told / 3 > 8  # told "never" by the present estimate alone
    assert hopeless == 0


@pytest.mark.slow
def test_what_is_hopeless_without_an_effect_is_still_told_and_stays_open() -> None:
    _, _, hopeless, decided = simulated(0.0, 12, 0.006)
    assert hopeless > 20
    assert decided == 0


def test_one_seed_never_decides() -> None:
    verdict = judged([90])
    assert (verdict.outcome, verdict.further_seeds) == ("undecided", None)
    assert (
        "1 seed, 4 utterances); one seed does not show how much seeds differ: run at least three." in verdict.sentence
    )


def test_sentence_is_one_line_of_plain_text_without_negative_zero() -> None:
    frame = results({(POOL, 2): 0.3, (CONV, 2): 0.3, (POOL, 8): 0.5, (CONV, 8): 0.4})
    result = interaction(frame, baseline=POOL, candidate=CONV, low_rate=2, high_rate=8, num_resamples=500)
    sentence = judge(result).sentence
    assert "\n" not in sentence
    assert "|" not in sentence
    assert "-0.00" not in judged([30, 30, 30], smallest_effect=0.0).sentence
    assert sentence.endswith(".")


def test_at_another_level_the_sentence_names_it_and_what_the_p_value_is_to_be_held_against() -> None:
    frame = exact({(POOL, 2): [[20] * 4] * 3, (CONV, 2): [[20] * 4] * 3, (CONV, 8): [[30] * 4] * 3}, 100)
    high = exact({(POOL, 8): [[errors] * 4 for errors in (41, 42, 43)]}, 100)
    result = interaction(
        pd.concat([frame, high]), baseline=POOL, candidate=CONV, low_rate=2, high_rate=8, confidence=1 - 0.045 / 4
    )
    verdict = judge(result)
    # 12 +- t(0.994375; 2) / sqrt(3), t = 9.37: 6.59 to 17.41.
    assert verdict.interval == (pytest.approx(0.0659, abs=5e-4), pytest.approx(0.1741, abs=5e-4))
    assert "98.875% interval +6." in verdict.sentence
    assert "; p = 0.002, to be compared with 0.0112; 3 seeds" in verdict.sentence
    assert verdict.sentence.endswith(f"; {verdict.reason}.")


def test_negative_smallest_effect_is_refused() -> None:
    with pytest.raises(LabError, match=r"the smallest effect of interest is -0\.01; it must be 0 or above"):
        judged([30, 31, 32], smallest_effect=-0.01)
