import numpy as np
import pytest
from scipy import stats

from lab.errors import LabError
from lab.evaluation.sequential import ALPHA, look_level, look_sizes, resamples_at
from lab.evaluation.statistics import drawn_rates, effect_of

SIZES = [3, 6, 12, 24]
SIGNS = np.array([1.0, -1.0, -1.0, 1.0])


def test_looks_double_the_seeds_and_stop_short_of_the_maximum() -> None:
    assert look_sizes(3, 24) == SIZES
    assert look_sizes(3, 23) == [3, 6, 12]
    assert look_sizes(5, 30) == [5, 10, 20]
    assert look_sizes(4, 4) == [4]


def test_a_raised_maximum_leaves_the_earlier_looks_where_they_were() -> None:
    for most in range(3, 200):
        assert look_sizes(3, 200)[: len(look_sizes(3, most))] == look_sizes(3, most)


@pytest.mark.parametrize("planned", [1, 2, 4, 7])
def test_the_levels_of_any_number_of_looks_add_up_to_less_than_alpha(planned: int) -> None:
    levels = [look_level(look, planned) for look in range(1, 2000)]
    assert sum(levels) < ALPHA
    assert sum(levels) == pytest.approx(ALPHA, rel=1e-3)
    assert levels[:planned] == [pytest.approx(0.045 / planned)] * planned
    assert levels[planned : planned + 3] == [pytest.approx(0.005 / share) for share in (2, 6, 12)]


def test_looks_that_cannot_be_are_refused() -> None:
    with pytest.raises(LabError, match="1 seed does not show how much seeds differ; looks begin with two or more"):
        look_sizes(1, 24)
    with pytest.raises(LabError, match="at most 2 seeds are wanted, but 3 were run or are asked for already"):
        look_sizes(3, 2)
    with pytest.raises(LabError, match="looks are counted from 1; got look 0 of 4"):
        look_level(0, 4)


def test_resamples_leave_500_draws_beyond_either_end_or_as_many_as_memory_allows() -> None:
    assert resamples_at(0.95) == 10_000
    for planned in (1, 2, 4):
        level = look_level(1, planned)
        assert 2 * resamples_at(1 - level) * level / 2 == pytest.approx(500, rel=1e-3)
    assert resamples_at(0.9999) == 100_000


def shares_of_sweeps(levels: list[float], truth: float = 0.0, repeats: int = 20_000) -> tuple[float, float]:
    """The shares of sweeps that ever say "the effect is above 0", and whose interval ever leaves the truth out.

    Utterances are alike, so that the interval is Student's: mean +- t x deviation / sqrt(seeds). Each sweep goes on
    until its interval has decided.
    """
    values = np.random.default_rng(0).normal(truth, 1.0, (repeats, SIZES[-1]))
    above, missed = np.zeros(repeats, bool), np.zeros(repeats, bool)
    for size, level in zip(SIZES, levels, strict=True):
        mean, spread = values[:, :size].mean(axis=1), values[:, :size].std(axis=1, ddof=1)
        half = stats.t.ppf(1 - level / 2, df=size - 1) * spread / np.sqrt(size)
        above |= mean - half > 0
        missed |= np.abs(mean - truth) > half
    return float(above.mean()), float(missed.mean())


# 20,000 sweeps: the standard error of a share of 0.05 is 0.0015.
def test_without_an_effect_the_corrected_looks_rarely_find_one_and_uncorrected_ones_often_do() -> None:
    corrected = [look_level(look, len(SIZES)) for look in range(1, len(SIZES) + 1)]
    holds, missed = shares_of_sweeps(corrected)
    assert holds < ALPHA / 2
    assert missed < ALPHA
    holds, missed = shares_of_sweeps([ALPHA] * len(SIZES))
    assert holds > ALPHA + 0.015
    assert missed > 2.5 * ALPHA


def test_the_price_of_the_correction_is_some_power_for_middling_effects_and_none_for_large_ones() -> None:
    corrected = [look_level(look, len(SIZES)) for look in range(1, len(SIZES) + 1)]
    # The docstring's choice: equal shares against 1 / (k (k + 1)).
    series = [ALPHA / (k * (k + 1)) for k in range(1, len(SIZES) + 1)]
    assert shares_of_sweeps(corrected, truth=0.8)[0] > shares_of_sweeps(series, truth=0.8)[0] + 0.1
    assert shares_of_sweeps(corrected, truth=2.0)[0] > 0.999


def shares_of_studies(confidences: list[float], repeats: int) -> tuple[float, float]:
    """As above by the study's own interval, with chance through seeds and sentences; no gap grows in truth."""
    rng = np.random.default_rng(1)
    above = missed = 0
    for _ in range(repeats):
        lengths = np.round(rng.lognormal(3, 0.4, 60)) + 5
        probabilities = 0.4 + 0.02 * rng.normal(size=(1, 4, 24)) + 0.06 * rng.normal(size=(60, 4, 1))
        errors = rng.binomial(lengths[:, None, None].astype(int), np.clip(probabilities, 0, 1)).astype(float)
        lows, highs = [], []
        for size, confidence in zip(SIZES, confidences, strict=True):
            of_seeds = errors[:, :, :size]
            resampled = np.einsum("r,brs->bs", SIGNS, drawn_rates(of_seeds, lengths, 1_500, rng))
            rates = of_seeds.sum(axis=0) / lengths.sum()
            low, high = effect_of(SIGNS @ rates, resampled, rng.permutation(1_500)).interval(confidence)
            lows.append(low)
            highs.append(high)
        above += max(lows) > 0
        missed += max(lows) > 0 or min(highs) < 0
    return above / repeats, missed / repeats


# 400 studies: the standard error of a share of 0.05 is 0.011, of one of 0.12 0.016.
@pytest.mark.slow
def test_the_studys_own_interval_holds_its_level_over_all_looks_and_would_not_without_the_correction() -> None:
    holds, missed = shares_of_studies([1 - look_level(look, 4) for look in (1, 2, 3, 4)], 400)
    assert holds <= ALPHA
    assert missed <= ALPHA + 0.01
    assert shares_of_studies([1 - ALPHA] * 4, 400)[1] > 0.08
