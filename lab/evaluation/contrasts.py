"""What a study claims as one effect of rows: by how much one errs less than another, or a gap grows with the rate.

An effect is a sum of rows' error rates with weights that add up to 0, taken within each seed and item, so that
whatever a seed does to all of the rows falls out.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lab.errors import LabError
from lab.evaluation.crossed import METRICS, Effect
from lab.evaluation.statistics import NUM_RESAMPLES, Interval, check_columns, check_row, resampled

MOST_SEEDS = 1_000
"""Beyond this many the answer to "how many would decide it?" is no plan any more."""


@dataclass(frozen=True, kw_only=True)
class MeasuredEffect:
    """An effect between `baseline` and `candidate`, above 0 where it speaks for the candidate."""

    baseline: str
    candidate: str
    metric: str
    interval: Interval
    p_value: float
    effect: Effect = field(repr=False, compare=False)

    def seeds_to_decide(self, smallest_effect: float = 0.0) -> tuple[int | None, str]:
        """How many further seeds would decide it if the effect and both variances stay what they seem, and why.

        Decided means: the interval is above 0, or below `smallest_effect`. More seeds shrink the seeds' part of the
        interval and free more degrees of freedom; the items' part stays. None where that part alone leaves it open,
        where more than 1,000 seeds would be needed, or where one seed shows no variance to plan with. A number to plan
        with, no promise: new seeds move the effect as well, so it decides in about half of all cases.
        """

        def decided(num_seeds: float) -> bool:
            low, high = self.effect.interval(self.interval.confidence, num_seeds)
            return low > 0 or high < smallest_effect

        run = self.effect.num_seeds
        if run == 1:
            return None, "one seed does not show how much seeds differ"
        if decided(run):
            return 0, "decided"
        if not decided(np.inf):
            items = f"{self.interval.num_utterances} {METRICS[self.metric].items}"
            return None, f"{items} leave it open however many seeds are run"
        if not decided(MOST_SEEDS):
            return None, f"more than {MOST_SEEDS} seeds would be needed"
        low, high = run, MOST_SEEDS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if decided(middle) else (middle, high)
        return high - run, "if the effect and the spread between seeds stay as estimated"


@dataclass(frozen=True, kw_only=True)
class Difference(MeasuredEffect):
    """By how much row `candidate` errs less than row `baseline`: `interval` is of the baseline's error - its error."""

    rate_baseline: float
    rate_candidate: float


@dataclass(frozen=True, kw_only=True)
class Interaction(MeasuredEffect):
    """By how much the gap (error of the baseline - error of the candidate) grows from `low_rate` to `high_rate`."""

    low_rate: int
    high_rate: int
    gap_low: float
    gap_high: float


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
    """Compare two rows: the effect of a study of alternatives.

    Raises:
        LabError: the rows are the same, or one is missing; or as `crossed_errors`.
    """
    if baseline == candidate:
        raise LabError(f"baseline and candidate are both {baseline!r}; name two rows")
    for row in (baseline, candidate):
        check_row(frame, row)
    two = resampled(frame[frame["row"].isin([baseline, candidate])], metric, num_resamples, rng_seed)
    effect = two.contrast(np.array([1.0 if row == baseline else -1.0 for row in two.crossed.rows]))
    rates = dict(zip(two.crossed.rows, two.crossed.rates().mean(axis=1), strict=True))
    return Difference(
        baseline=baseline,
        candidate=candidate,
        metric=metric,
        rate_baseline=float(rates[baseline]),
        rate_candidate=float(rates[candidate]),
        interval=two.interval(effect, confidence),
        p_value=effect.p_value(),
        effect=effect,
    )


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
    """Test whether the gap between two projectors grows with the downsample rate: the effect of a study of rates.

    The effect, in error rate: (baseline[high] - candidate[high]) - (baseline[low] - candidate[low]). With
    `pool_seed_variance` the variance between seeds is pooled over the four cells (3 x (seeds - 1) degrees of freedom
    rather than seeds - 1), which assumes that the four vary alike; without, nothing is assumed of them.

    Raises:
        LabError: `low_rate` is not below `high_rate`; the projectors are the same; one of the four cells is missing,
            or two rows fit it; or as `crossed_errors`.
    """
    if low_rate >= high_rate:
        raise LabError(f"the low downsample rate, {low_rate}, must be below the high one, {high_rate}")
    if baseline == candidate:
        raise LabError(f"baseline and candidate are both {baseline!r}; name two projectors")
    cells = [(p, rate) for rate in (high_rate, low_rate) for p in (baseline, candidate)]
    four = resampled(
        pd.concat([_cell(frame, *cell).assign(row=f"{cell[0]} n={cell[1]}") for cell in cells]),
        metric,
        num_resamples,
        rng_seed,
    )
    position = [four.crossed.rows.index(f"{p} n={rate}") for p, rate in cells]
    weights = np.zeros(4)
    weights[position] = [1.0, -1.0, -1.0, 1.0]
    effect = four.contrast(weights, pool_seed_variance=pool_seed_variance)
    baseline_high, candidate_high, baseline_low, candidate_low = four.crossed.rates()[position].mean(axis=1)
    return Interaction(
        baseline=baseline,
        candidate=candidate,
        low_rate=low_rate,
        high_rate=high_rate,
        metric=metric,
        gap_low=float(baseline_low - candidate_low),
        gap_high=float(baseline_high - candidate_high),
        interval=four.interval(effect, confidence),
        p_value=effect.p_value(),
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
