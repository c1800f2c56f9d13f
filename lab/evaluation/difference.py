"""By how much one row errs less than another: the effect of a study of alternatives."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lab.errors import LabError
from lab.evaluation.crossed import Effect, crossed_errors
from lab.evaluation.further_seeds import seeds_to_decide
from lab.evaluation.statistics import NUM_RESAMPLES, Interval, check_row, contrast_effect, interval_of


@dataclass(frozen=True, kw_only=True)
class Difference:
    """By how much row `candidate` errs less than row `baseline`: `interval` is of the baseline's error - its error."""

    baseline: str
    candidate: str
    metric: str
    rate_baseline: float
    rate_candidate: float
    interval: Interval
    p_value: float
    effect: Effect = field(repr=False, compare=False)

    def seeds_to_decide(self, smallest_effect: float = 0.0) -> tuple[int | None, str]:
        """As the function of that name."""
        return seeds_to_decide(self.effect, self.interval, self.metric, smallest_effect)


def difference(
    frame: pd.DataFrame,
    *,
    baseline: str,
    candidate: str,
    metric: str = "error_rate",
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    rng_seed: int = 0,
) -> Difference:
    """Compare two rows within each seed and item, so that whatever a seed does to both falls out.

    Raises:
        LabError: the rows are the same, or one is missing; or as `crossed_errors`.
    """
    if baseline == candidate:
        raise LabError(f"baseline and candidate are both {baseline!r}; name two rows")
    for row in (baseline, candidate):
        check_row(frame, row)
    crossed = crossed_errors(frame[frame["row"].isin([baseline, candidate])], metric)
    rng = np.random.default_rng(rng_seed)
    resampled, order = crossed.resampled_rates(num_resamples, rng), rng.permutation(num_resamples)
    weights = np.array([1.0 if row == baseline else -1.0 for row in crossed.rows])
    effect = contrast_effect(crossed, resampled, weights, False, order)
    rates = dict(zip(crossed.rows, crossed.rates().mean(axis=1), strict=True))
    return Difference(
        baseline=baseline,
        candidate=candidate,
        metric=metric,
        rate_baseline=float(rates[baseline]),
        rate_candidate=float(rates[candidate]),
        interval=interval_of(
            crossed, effect.estimate, *effect.interval(confidence), confidence, num_resamples, rng_seed
        ),
        p_value=effect.p_value(),
        effect=effect,
    )
