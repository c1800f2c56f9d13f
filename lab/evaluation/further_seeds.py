"""How many more seeds would decide a claim: the plan that an undecided verdict ends with."""

import numpy as np

from lab.evaluation.crossed import METRICS, Effect
from lab.evaluation.statistics import Interval

MOST_SEEDS = 1_000


def seeds_to_decide(
    effect: Effect, interval: Interval, metric: str, smallest_effect: float = 0.0
) -> tuple[int | None, str]:
    """How many further seeds would decide it if the effect and both variances stay what they seem, and why.

    Decided means: the interval is above 0, or below `smallest_effect`. More seeds shrink the seeds' part of the
    interval and free more degrees of freedom; the items' part stays. None where that part alone leaves it open, where
    more than 1,000 seeds would be needed, or where one seed shows no variance to plan with. A number to plan with, no
    promise: new seeds move the effect as well, so it decides in about half of all cases.
    """

    def decided(num_seeds: float) -> bool:
        low, high = effect.interval(interval.confidence, num_seeds)
        return low > 0 or high < smallest_effect

    run = effect.num_seeds
    if run == 1:
        return None, "one seed does not show how much seeds differ"
    if decided(run):
        return 0, "decided"
    if not decided(np.inf):
        return None, f"{interval.num_utterances} {METRICS[metric].items} leave it open however many seeds are run"
    if not decided(MOST_SEEDS):
        return None, f"more than {MOST_SEEDS} seeds would be needed"
    low, high = run, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high - run, "if the effect and the spread between seeds stay as estimated"
