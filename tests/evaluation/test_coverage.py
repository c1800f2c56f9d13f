"""Does an interval said to hold in 95 of 100 cases do so? Known models are drawn from, and the hits counted."""

import numpy as np
import pytest

from lab.evaluation.statistics import drawn_rates, effect_of

SIGNS = np.array([1.0, -1.0, -1.0, 1.0])
MEANS = np.array([0.7, 0.6, 0.5, 0.45])
TRUTH = float(SIGNS @ MEANS)


def coverage(
    seed_spread: float, utterance_spread: float, both_spread: float, repeats: int = 300
) -> tuple[float, float]:
    """Shares of hits of ours and of seeds drawn with replacement, for an interaction with 3 seeds and 120 sentences.

    The three spreads are of one cell's error rate: between seeds, between utterances, and of an utterance with a seed.
    """
    rng = np.random.default_rng(0)
    hits = hits_of_resampled = 0
    for _ in range(repeats):
        lengths = np.round(rng.lognormal(3, 0.5, 120)) + 5
        probabilities = (
            MEANS[:, None]
            + seed_spread * rng.normal(size=(1, 4, 3))
            + utterance_spread * rng.normal(size=(120, 4, 1))
            + both_spread * rng.normal(size=(120, 4, 3))
        )
        errors = rng.binomial(lengths[:, None, None].astype(int), np.clip(probabilities, 0, 1)).astype(float)
        rates = errors.sum(axis=0) / lengths.sum()
        resampled = np.einsum("r,brs->bs", SIGNS, drawn_rates(errors, lengths, 800, rng))
        effect = effect_of(SIGNS @ rates, resampled, rng.permutation(800))
        low, high = effect.interval(0.95)
        hits += low <= TRUTH <= high
        drawn = np.take_along_axis(resampled, rng.integers(3, size=resampled.shape), axis=1).mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        hits_of_resampled += low <= TRUTH <= high
    return hits / repeats, hits_of_resampled / repeats


# A share of 300 hits has a standard error of 0.013, so a true 0.95 falls below 0.91 once in a thousand times.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed_spread", "utterance_spread", "both_spread"),
    [(0.0, 0.15, 0.0), (0.0, 0.0, 0.15), (0.01, 0.1, 0.1), (0.03, 0.1, 0.0), (0.04, 0.0, 0.0)],
)
def test_interval_with_three_seeds_holds_its_level(
    seed_spread: float, utterance_spread: float, both_spread: float
) -> None:
    assert coverage(seed_spread, utterance_spread, both_spread)[0] >= 0.91


@pytest.mark.slow
def test_three_seeds_drawn_with_replacement_do_not_hold_the_level() -> None:
    assert coverage(0.04, 0.0, 0.0)[1] < 0.85
