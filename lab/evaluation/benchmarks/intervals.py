"""Scores with the 95% interval over a benchmark's items, by the bootstrap that the studies use.

A checkpoint is one: nothing is drawn but the items, by cluster (items of one cluster are no independent witnesses).
"""

from collections.abc import Sequence

import pandas as pd

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Score
from lab.evaluation.crossed import METRICS
from lab.evaluation.statistics import bootstrap_interval


def accuracy_score(right: Sequence[float], *, clusters: Sequence[str] | None = None, metric: str = "accuracy") -> Score:
    """The share of `right` (1 or 0 an item); items of one cluster are drawn together.

    Raises:
        LabError: no item.
    """
    names = [str(place) for place in range(len(right))]
    frame = pd.DataFrame(
        {
            "question": names,
            "group": names if clusters is None else list(clusters),
            "wrong_answers": [1.0 - float(one) for one in right],
            "num_questions": 1.0,
        }
    )
    low, wrong, high = _rate(frame, "error_rate")
    if low is None or high is None:
        return Score(metric=metric, value=1.0 - wrong, better="higher", num_items=len(frame))
    return Score(
        metric=metric, value=1.0 - wrong, low=1.0 - high, high=1.0 - low, better="higher", num_items=len(frame)
    )


def error_rate_score(errors: pd.DataFrame, counted: str, *, metric: str) -> Score:
    """A pooled error rate of `utterance_errors`; sentences are drawn, with all who said them.

    Args:
        counted: `word_error_rate` or `character_error_rate`.
        metric: what the score is called.

    Raises:
        LabError: no utterance, or a normaliser that does not report the rate.
    """
    low, rate, high = _rate(errors, counted)
    return Score(metric=metric, value=rate, low=low, high=high, better="lower", num_items=len(errors))


def _rate(frame: pd.DataFrame, counted: str) -> tuple[float | None, float, float | None]:
    """Low end, rate and high end; without ends where there is one cluster only."""
    how = METRICS[counted]
    if frame.empty:
        raise LabError(f"there is nothing to score: no {how.items} were answered")
    if frame[how.cluster].nunique() < 2:
        return None, float(frame[how.errors].sum() / frame[how.length].sum()), None
    found = bootstrap_interval(frame.assign(row="model", seed=0), "model", metric=counted)
    # The ends are quantiles of draws; of a rate of 0 or 1 they are that very number, but for its last digits.
    return min(found.low, found.estimate), found.estimate, max(found.high, found.estimate)
