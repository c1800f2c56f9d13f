"""What the numbers say of a claim, in words: that an error grows less with the rate, or that one row beats another."""

from dataclasses import dataclass
from typing import Literal

from lab.errors import LabError
from lab.evaluation.contrasts import Difference, Interaction, MeasuredEffect
from lab.evaluation.crossed import METRICS

Outcome = Literal["holds", "does not hold", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`effect` and `interval` are fractions (0.01 is one percentage point); `sentence` is Markdown-safe plain English.

    `further_seeds`: how many more would be expected to decide it; 0 where it is decided, None where no number would or
    none can be said; `reason` is why, the end of the sentence.
    """

    outcome: Outcome
    effect: float
    interval: tuple[float, float]
    p_value: float
    further_seeds: int | None
    reason: str
    sentence: str


def judge_interaction(result: Interaction, *, smallest_effect: float = 0.01) -> Verdict:
    """Judge the claim "the gap between baseline and candidate grows from the low to the high downsample rate".

    `smallest_effect`, a fraction of the error rate, is the smallest growth that would matter. The claim does not hold
    where the whole interval lies below it: the gap shrinks, or grows by too little to matter (an interval between 0
    and the smallest effect is that too). It holds where the interval lies above 0 and reaches the smallest effect.
    Else, and with one seed always, it is undecided.

    Raises:
        LabError: `smallest_effect` is negative.
    """
    return _judge(result, smallest_effect, _growth(result), ("the gap grows", "the gap shrinks", "growth"))


def judge_difference(result: Difference, *, smallest_effect: float = 0.01) -> Verdict:
    """Judge the claim "the candidate errs less than the baseline", by the same rules.

    Raises:
        LabError: `smallest_effect` is negative.
    """
    said = (f"{result.candidate} is better", f"{result.candidate} is worse", "an advantage")
    return _judge(result, smallest_effect, _advantage(result), said)


def _judge(result: MeasuredEffect, smallest_effect: float, finding: str, words: tuple[str, str, str]) -> Verdict:
    if smallest_effect < 0:
        raise LabError(f"the smallest effect of interest is {smallest_effect}; it must be 0 or above, in error rate")
    above, below, effect = words
    low, high = result.interval.low, result.interval.high
    further, reason = result.seeds_to_decide(smallest_effect)
    outcome: Outcome
    if not result.interval.over_seeds:
        outcome, tail = "undecided", f"{reason}: run at least three"
    elif high < smallest_effect:
        outcome = "does not hold"
        if high < 0:
            tail = below
        else:
            tail = f"{effect} of {_points(smallest_effect)} points, the smallest that would matter, is ruled out"
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
        reason=tail,
        sentence=f"{outcome.capitalize()}: {finding}; {tail}.",
    )


def _growth(result: Interaction) -> str:
    return (
        f"from n = {result.low_rate} to n = {result.high_rate} the gap between {result.baseline} and "
        f"{result.candidate} goes from {_points(result.gap_low)} to {_points(result.gap_high)} percentage points of "
        f"{result.metric.replace('_', ' ')}, a change of {_evidence(result)}"
    )


def _advantage(result: Difference) -> str:
    if result.metric != "error_rate":  # many errors an item: none is right or wrong as a whole
        return (
            f"{result.baseline} has a {result.metric.replace('_', ' ')} of {_points(result.rate_baseline)}% and "
            f"{result.candidate} one of {_points(result.rate_candidate)}%, a difference in percentage points of "
            f"{_evidence(result)}"
        )
    return (
        f"of the {METRICS[result.metric].items} {result.baseline} gets {_points(1 - result.rate_baseline)}% right and "
        f"{result.candidate} {_points(1 - result.rate_candidate)}%, a difference in percentage points of "
        f"{_evidence(result)}"
    )


def _evidence(result: MeasuredEffect) -> str:
    interval = result.interval
    p_value = "p < 0.001" if result.p_value < 0.001 else f"p = {result.p_value:.3f}"
    if (level := round(1 - interval.confidence, 9)) != 0.05:  # whoever reads a p value thinks of 0.05
        p_value += f", to be compared with {level:.3g}"
    seeds = "1 seed" if interval.num_seeds == 1 else f"{interval.num_seeds} seeds"
    confidence = f"{round(100 * interval.confidence, 3):g}%"
    return (
        f"{_points(interval.estimate, '+')} ({confidence} interval {_points(interval.low, '+')} to "
        f"{_points(interval.high, '+')}; {p_value}; {seeds}, {interval.num_utterances} {METRICS[result.metric].items})"
    )


def _points(fraction: float, sign: str = "") -> str:
    """Percentage points with two decimals, and never "-0.00"."""
    return f"{round(100 * fraction, 2) + 0.0:{sign}.2f}"
