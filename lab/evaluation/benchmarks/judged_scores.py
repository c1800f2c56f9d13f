"""Scores of judged answers: over those that the judge has judged, beside how many it has not (section 4)."""

from collections.abc import Sequence

import numpy as np

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Score
from lab.evaluation.benchmarks.intervals import accuracy_score
from lab.evaluation.benchmarks.verdicts import Verdict

NUM_RESAMPLES = 10_000


def judged_scores(verdicts: Sequence[Verdict]) -> tuple[Score, ...]:
    """`unjudged` always; `accuracy` and `judge_score` (0 to 5) over the judged, and `accuracy_unjudged_wrong` over all.

    Raises:
        LabError: no verdict at all, or more answers unjudged than judged: a number over what is left would be the
            judge's choice of questions.
    """
    if not verdicts:
        raise LabError("no answer was judged, so there is nothing to score")
    unjudged = [verdict.unjudged for verdict in verdicts if verdict.score is None]
    found = [
        unjudged_score(unjudged, len(verdicts)),
        points_score([verdict.score for verdict in verdicts if verdict.score is not None], metric="judge_score"),
    ]
    right = [float(verdict.correct) for verdict in verdicts if verdict.correct is not None]
    if right:
        found.insert(0, accuracy_score(right))
        if unjudged:
            everything = [float(bool(verdict.correct)) for verdict in verdicts]
            found.append(accuracy_score(everything, metric="accuracy_unjudged_wrong"))
    return tuple(found)


def unjudged_score(unjudged: Sequence[str], num_answers: int) -> Score:
    """The share of answers without a verdict.

    Args:
        unjudged: why each of them has none.
        num_answers: with those that have one.

    Raises:
        LabError: more answers unjudged than judged.
    """
    num_judged = num_answers - len(unjudged)
    if len(unjudged) > num_judged:
        raise LabError(
            f"the judge gave no verdict on {len(unjudged)} of {num_answers} answers, and a score over the other "
            f"{num_judged} would say nothing of the model (the first: {unjudged[0]}); take another judge"
        )
    return Score(metric="unjudged", value=len(unjudged) / num_answers, better="lower", num_items=num_answers)


def points_score(marks: Sequence[float], *, metric: str) -> Score:
    """The mean of a judge's marks, with its interval over the items."""
    low, high = mean_interval(marks)
    mean = float(np.mean(marks))
    return Score(
        metric=metric,
        value=mean,
        unit="points",
        low=min(low, mean),
        high=max(high, mean),
        better="higher",
        num_items=len(marks),
    )


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95% percentile interval of a mean, items drawn with replacement."""
    array = np.asarray(values, dtype=float)
    rng = np.random.default_rng(0)
    # In blocks: 10,000 draws of a whole benchmark at once would not fit in memory.
    means = [array[rng.integers(len(array), size=len(array))].mean() for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
