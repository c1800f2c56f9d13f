"""Whether the gap between two projectors grows with the downsample rate: the effect of a study of rates."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lab.errors import LabError
from lab.evaluation.crossed import Effect, crossed_errors, effect_of
from lab.evaluation.further_seeds import seeds_to_decide
from lab.evaluation.statistics import NUM_RESAMPLES, Interval, check_columns, contrast_effect, interval_of


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """By how much the gap (error of the baseline - error of the candidate) grows from `low_rate` to `high_rate`.

    `interval` is of that growth, `relative_growth` of the ratio (baseline's error at the high rate over its error at
    the low one) / (the same of the candidate): above 1, the candidate's error grows less in proportion too. None
    where a cell made no error at all. `seed_standard_deviation` is one seed's (None with one seed),
    `utterance_standard_error` that which would be left with seeds without end.
    """

    baseline: str
    candidate: str
    low_rate: int
    high_rate: int
    metric: str
    gap_low: float
    gap_high: float
    interval: Interval
    p_value: float
    relative_growth: Interval | None
    seed_standard_deviation: float | None
    utterance_standard_error: float
    effect: Effect = field(repr=False, compare=False)

    def seeds_to_decide(self, smallest_effect: float = 0.0) -> tuple[int | None, str]:
        """As the function of that name."""
        return seeds_to_decide(self.effect, self.interval, self.metric, smallest_effect)


def interaction(
    frame: pd.DataFrame,
    *,
    baseline: str,
    candidate: str,
    low_rate: int,
    high_rate: int,
    metric: str = "character_error_rate",
    pool_seed_variance: bool = False,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    rng_seed: int = 0,
) -> Interaction:
    """Test whether the gap between two projectors grows with the downsample rate.

    The effect, in error rate: (baseline[high] - candidate[high]) - (baseline[low] - candidate[low]), taken within each
    seed, so that whatever a seed does to all four cells falls out. With `pool_seed_variance` the variance between
    seeds is pooled over the four cells (3 x (seeds - 1) degrees of freedom rather than seeds - 1), which assumes that
    the four vary alike; without, nothing is assumed of them.

    Raises:
        LabError: `low_rate` is not below `high_rate`; the projectors are the same; one of the four cells is missing,
            or two rows fit it; or as `crossed_errors`.
    """
    if low_rate >= high_rate:
        raise LabError(f"the low downsample rate, {low_rate}, must be below the high one, {high_rate}")
    if baseline == candidate:
        raise LabError(f"baseline and candidate are both {baseline!r}; name two projectors")
    cells = [(p, rate) for rate in (high_rate, low_rate) for p in (baseline, candidate)]
    four = pd.concat([_cell(frame, *cell).assign(row=f"{cell[0]} n={cell[1]}") for cell in cells])
    crossed = crossed_errors(four, metric)
    position = [crossed.rows.index(f"{p} n={rate}") for p, rate in cells]
    signs = np.array([1.0, -1.0, -1.0, 1.0])
    weights = np.zeros(4)
    weights[position] = signs
    rng = np.random.default_rng(rng_seed)
    resampled, order = crossed.resampled_rates(num_resamples, rng), rng.permutation(num_resamples)
    effect = contrast_effect(crossed, resampled, weights, pool_seed_variance, order)
    rates = crossed.rates()
    baseline_high, candidate_high, baseline_low, candidate_low = rates[position].mean(axis=1)
    growth = None
    if (rates > 0).all():
        # Half an error where a resample has none: the logarithm needs something to hold on to.
        logs = np.log(np.maximum(resampled, 0.5 / crossed.lengths.sum()))
        of_logs = effect_of(weights @ np.log(rates), np.einsum("r,brs->bs", weights, logs), order)
        low, high = (float(np.exp(x)) for x in of_logs.interval(confidence))
        estimate = float(np.exp(of_logs.estimate))
        growth = interval_of(crossed, estimate, low, high, confidence, num_resamples, rng_seed)
    return Interaction(
        baseline=baseline,
        candidate=candidate,
        low_rate=low_rate,
        high_rate=high_rate,
        metric=metric,
        gap_low=float(baseline_low - candidate_low),
        gap_high=float(baseline_high - candidate_high),
        interval=interval_of(
            crossed, effect.estimate, *effect.interval(confidence), confidence, num_resamples, rng_seed
        ),
        p_value=effect.p_value(),
        relative_growth=growth,
        seed_standard_deviation=float(np.sqrt(effect.seed_variance)) if effect.num_seeds > 1 else None,
        utterance_standard_error=float(effect.deviations.std(ddof=1)),
        effect=effect,
    )


def _cell(frame: pd.DataFrame, projector: str, rate: int) -> pd.DataFrame:
    check_columns(frame, "row", "projector", "downsample_rate")
    cell = frame[(frame["projector"] == projector) & (frame["downsample_rate"] == rate)]
    if cell.empty:
        there = sorted(set(zip(frame["projector"], frame["downsample_rate"], strict=True)))
        named = ", ".join(f"{p} at {r}" for p, r in there)
        raise LabError(f"no results of projector {projector!r} at downsample rate {rate}; there are: {named}")
    if len(labels := sorted(cell["row"].unique())) > 1:
        raise LabError(
            f"projector {projector!r} at downsample rate {rate} is in {len(labels)} rows: "
            f"{', '.join(map(repr, labels))}; keep one of them"
        )
    return cell
