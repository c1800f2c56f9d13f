"""What a study claims as one effect of rows, and what the numbers say of it, in words.

An effect is a sum of rows' error rates with weights that add up to 0, taken within each seed and item, so that
whatever a seed does to all of the rows falls out: one row errs less than another, or their gap grows with the rate.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from lab.errors import LabError
from lab.evaluation.statistics import METRICS, NUM_RESAMPLES, Effect, Interval, Resampled, check_row, resampled

MOST_SEEDS = 1_000
"""Beyond this many the answer to "how many would decide it?" is no plan any more."""

_AS_ESTIMATED = "if the effect and the spread between seeds stay as estimated"

Outcome = Literal["holds", "does not hold", "undecided"]


@dataclass(frozen=True, kw_only=True)
class MeasuredEffect:
    """An effect between two rows or projectors, above 0 where it speaks for the claim.

    `found` is what was measured, in words, up to its interval; `words` are how an effect above 0 is called, one below
    0, and one that is too small.
    """

    metric: str
    interval: Interval
    p_value: float
    found: str
    words: tuple[str, str, str]
    effect: Effect = field(repr=False, compare=False)

    def seeds_to_decide(self, smallest_effect: float = 0.0) -> tuple[int | None, str]:
        """How many further seeds would decide it if the effect and both variances stay what they seem, and why.

        Decided means: the interval is above 0, or below `smallest_effect`. More seeds shrink the seeds' part of the
        interval and free more degrees of freedom; the items' part stays. None where it is `hopeless`, where up to 1,000
        seeds are not enough, or where one seed shows no variance to plan with. A number to plan with, no promise: new
        seeds move the effect as well, so it decides in about half of all cases.
        """

        def decided(num_seeds: float) -> bool:
            return self._decided(self.effect, smallest_effect, num_seeds)

        run = self.effect.num_seeds
        if run == 1:
            return None, "one seed does not show how much seeds differ"
        if decided(run):
            return 0, "decided"
        if self.hopeless(smallest_effect):
            items = f"{self.interval.num_utterances} {METRICS[self.metric].items}"
            return None, (
                f"{items} leave it open however many seeds are run, unless more of them move the effect further than "
                f"the spread of these {run} allows"
            )
        if not decided(MOST_SEEDS):
            return None, f"up to {MOST_SEEDS} seeds would not decide it {_AS_ESTIMATED}, but more may move both"
        low, high = run, MOST_SEEDS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if decided(middle) else (middle, high)
        return high - run, _AS_ESTIMATED

    def hopeless(self, smallest_effect: float = 0.0) -> bool:
        """Whether the items leave it open with seeds without end, wherever those that were run allow their mean to be.

        The present estimate alone would not tell: of simulated studies that it leaves open for ever at three seeds, 24
        decide about half where the effect is two points and nine in ten at three (tests/evaluation/test_verdict.py).
        """
        if self.effect.num_seeds == 1 or self._decided(self.effect, smallest_effect):
            return False
        ends = self.effect.ends(self.interval.confidence)
        return not any(self._decided(end, smallest_effect, np.inf) for end in ends)

    def _decided(self, effect: Effect, smallest_effect: float, num_seeds: float | None = None) -> bool:
        low, high = effect.interval(self.interval.confidence, num_seeds)
        return low > 0 or high < smallest_effect


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`effect` and `interval` are fractions (0.01 is one percentage point); `sentence` is Markdown-safe plain English.

    `further_seeds`: how many more would be expected to decide it; 0 where it is decided, None where none can be said;
    `hopeless`: no number would, wherever the seeds that were run allow the effect to be; `reason` is why, the end of
    the sentence.
    """

    outcome: Outcome
    effect: float
    interval: tuple[float, float]
    p_value: float
    further_seeds: int | None
    hopeless: bool
    reason: str
    sentence: str


def difference(
    frame: pd.DataFrame,
    *,
    baseline: str,
    candidate: str,
    metric: str = "error_rate",
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> MeasuredEffect:
    """By how much row `candidate` errs less than row `baseline`: the effect of a study of alternatives.

    Raises:
        LabError: the rows are the same, or one is missing; or as `resampled`.
    """
    if baseline == candidate:
        raise LabError(f"baseline and candidate are both {baseline!r}; name two rows")
    for row in (baseline, candidate):
        check_row(frame, row)
    two = resampled(frame[frame["row"].isin([baseline, candidate])], metric, num_resamples)
    rates = dict(zip(two.rows, two.rates.mean(axis=1), strict=True))
    if metric == "error_rate":
        found = (
            f"of the {METRICS[metric].items} {baseline} gets {points(1 - rates[baseline])}% right and {candidate} "
            f"{points(1 - rates[candidate])}%"
        )
    else:  # many errors an item: none is right or wrong as a whole
        found = (
            f"{baseline} has a {metric.replace('_', ' ')} of {points(rates[baseline])}% and {candidate} one of "
            f"{points(rates[candidate])}%"
        )
    words = (f"{candidate} is better", f"{candidate} is worse", "an advantage")
    weights = [1.0 if row == baseline else -1.0 for row in two.rows]
    return _measured(two, weights, metric, confidence, f"{found}, a difference in percentage points of", words)


def interaction(
    frame: pd.DataFrame,
    *,
    baseline: str,
    candidate: str,
    low_rate: int,
    high_rate: int,
    metric: str = "character_error_rate",
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> MeasuredEffect:
    """By how much the gap between two projectors grows with the downsample rate: the effect of a study of rates.

    In error rate: (baseline[high] - candidate[high]) - (baseline[low] - candidate[low]).

    Raises:
        LabError: `low_rate` is not below `high_rate`; the projectors are the same; one of the four cells is missing,
            or two rows fit it; or as `resampled`.
    """
    if low_rate >= high_rate:
        raise LabError(f"the low downsample rate, {low_rate}, must be below the high one, {high_rate}")
    if baseline == candidate:
        raise LabError(f"baseline and candidate are both {baseline!r}; name two projectors")
    cells = {
        (projector, rate): _cell(frame, projector, rate).assign(row=f"{projector} n={rate}")
        for rate in (high_rate, low_rate)
        for projector in (baseline, candidate)
    }
    four = resampled(pd.concat(cells.values()), metric, num_resamples)
    places = [four.rows.index(f"{projector} n={rate}") for projector, rate in cells]
    weights = np.zeros(4)
    weights[places] = [1.0, -1.0, -1.0, 1.0]
    baseline_high, candidate_high, baseline_low, candidate_low = four.rates[places].mean(axis=1)
    found = (
        f"from n = {low_rate} to n = {high_rate} the gap between {baseline} and {candidate} goes from "
        f"{points(baseline_low - candidate_low)} to {points(baseline_high - candidate_high)} percentage points of "
        f"{metric.replace('_', ' ')}, a change of"
    )
    words = ("the gap grows", "the gap shrinks", "growth")
    return _measured(four, weights.tolist(), metric, confidence, found, words)


def _measured(
    rates: Resampled, weights: list[float], metric: str, confidence: float, found: str, words: tuple[str, str, str]
) -> MeasuredEffect:
    effect = rates.effect(weights)
    interval, p_value = rates.interval(effect, confidence), effect.p_value()
    return MeasuredEffect(metric=metric, interval=interval, p_value=p_value, found=found, words=words, effect=effect)


def _cell(frame: pd.DataFrame, projector: str, rate: int) -> pd.DataFrame:
    if missing := [name for name in ("row", "projector", "downsample_rate") if name not in frame]:
        raise LabError(f"results of single items lack the columns {', '.join(missing)}, which say what each cell is")
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


def judge(result: MeasuredEffect, *, smallest_effect: float = 0.01) -> Verdict:
    """Judge the claim that the effect is above 0: the gap grows with the rate, or the candidate errs less.

    `smallest_effect`, a fraction of the error rate, is the smallest that would matter. The claim does not hold where
    the whole interval lies below it: the effect is the other way round, or too small to matter (an interval between 0
    and the smallest effect is that too). It holds where the interval lies above 0 and reaches the smallest effect.
    Else, and with one seed always, it is undecided.

    Raises:
        LabError: `smallest_effect` is negative.
    """
    if smallest_effect < 0:
        raise LabError(f"the smallest effect of interest is {smallest_effect}; it must be 0 or above, in error rate")
    above, below, effect = result.words
    low, high = result.interval.low, result.interval.high
    further, reason = result.seeds_to_decide(smallest_effect)
    outcome: Outcome
    if not result.interval.over_seeds:
        outcome, tail = "undecided", f"{reason}: run at least three"
    elif high < smallest_effect:
        outcome = "does not hold"
        too_small = f"{effect} of {points(smallest_effect)} points, the smallest that would matter, is ruled out"
        tail = below if high < 0 else too_small
    elif low > 0:
        outcome, tail = "holds", above
    elif further is None:
        outcome, tail = "undecided", reason
    else:
        seeds = "1 further seed" if further == 1 else f"{further} further seeds"
        outcome, tail = "undecided", f"{seeds} would decide it {reason}"
    return Verdict(
        outcome=outcome,
        effect=result.interval.estimate,
        interval=(low, high),
        p_value=result.p_value,
        further_seeds=further,
        hopeless=result.hopeless(smallest_effect),
        reason=tail,
        sentence=f"{outcome.capitalize()}: {result.found} {_evidence(result)}; {tail}.",
    )


def _evidence(result: MeasuredEffect) -> str:
    interval = result.interval
    p_value = "p < 0.001" if result.p_value < 0.001 else f"p = {result.p_value:.3f}"
    if (level := round(1 - interval.confidence, 9)) != 0.05:  # whoever reads a p value thinks of 0.05
        p_value += f", to be compared with {level:.3g}"
    seeds = "1 seed" if interval.num_seeds == 1 else f"{interval.num_seeds} seeds"
    confidence = f"{round(100 * interval.confidence, 3):g}%"
    return (
        f"{points(interval.estimate, '+')} ({confidence} interval {points(interval.low, '+')} to "
        f"{points(interval.high, '+')}; {p_value}; {seeds}, {interval.num_utterances} {METRICS[result.metric].items})"
    )


def points(fraction: float, sign: str = "") -> str:
    """Percentage points with two decimals, and never "-0.00"."""
    return f"{round(100 * fraction, 2) + 0.0:{sign}.2f}"
