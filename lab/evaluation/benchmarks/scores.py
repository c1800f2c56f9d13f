"""Scores with the 95% interval over a benchmark's items: of right answers, of errors, of a judge's marks (section 4).

A checkpoint is one: nothing is drawn but the items, by cluster (items of one cluster are no independent witnesses).
Rates have the bootstrap that the studies use.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Score
from lab.evaluation.benchmarks.judge import Mark
from lab.evaluation.crossed import METRICS
from lab.evaluation.items import TRANSCRIBE
from lab.evaluation.statistics import NUM_RESAMPLES, bootstrap_interval


def accuracy_score(right: Sequence[float], *, clusters: Sequence[str] | None = None, metric: str = "accuracy") -> Score:
    """The share of `right` (1 or 0 an item); items of one cluster are drawn together.

    Raises:
        LabError: no item.
    """
    names = [str(place) for place in range(len(right))]
    frame = pd.DataFrame(
        {
            "id": names,
            "group": names if clusters is None else list(clusters),
            "wrong_answers": [1.0 - float(one) for one in right],
            "num_questions": 1.0,
        }
    )
    low, wrong, high = _rate(frame, "error_rate")
    return Score(
        metric=metric,
        value=1.0 - wrong,
        low=None if high is None else 1.0 - high,
        high=None if low is None else 1.0 - low,
        better="higher",
        num_items=len(frame),
    )


def error_rate_score(errors: pd.DataFrame, counted: str, *, metric: str) -> Score:
    """A pooled rate of an item table; groups are drawn: sentences, with all who said them.

    Args:
        errors: the table.
        counted: `word_error_rate` or `character_error_rate`.
        metric: what the score is called.

    Raises:
        LabError: no utterance, or a normaliser that does not report the rate.
    """
    low, rate, high = _rate(errors, counted)
    return Score(metric=metric, value=rate, low=low, high=high, better="lower", num_items=len(errors))


def scores_of_items(items: pd.DataFrame) -> tuple[Score, ...]:
    """Of an item table: accuracy where there were choices (of each task too, where there are several), else rates.

    Raises:
        LabError: no item.
    """
    if items["num_choices"].gt(0).all():
        found = [_accuracy(items, "accuracy")]
        of_task = list(items.groupby("task", sort=False)) if items["task"].nunique() > 1 else []
        return (*found, *(_accuracy(own, f"accuracy/{task}") for task, own in of_task))
    rates = ["word_error_rate", "character_error_rate"] if items["num_words"].any() else ["character_error_rate"]
    exact = () if set(items["task"]) == {TRANSCRIBE} else (_accuracy(items, "exact_match"),)
    return (*exact, *(error_rate_score(items, rate, metric=rate) for rate in rates))


def _accuracy(items: pd.DataFrame, metric: str) -> Score:
    return accuracy_score((1 - items["wrong_answers"]).tolist(), clusters=items["group"].tolist(), metric=metric)


def _rate(frame: pd.DataFrame, counted: str) -> tuple[float | None, float, float | None]:
    """Low end, rate and high end; without ends where there is one cluster only."""
    how = METRICS[counted]
    if frame.empty:
        raise LabError(f"there is nothing to score: no {how.items} were answered")
    if frame["group"].nunique() < 2:
        return None, float(frame[how.errors].sum() / frame[how.length].sum()), None
    found = bootstrap_interval(frame.assign(row="model", seed=0), "model", metric=counted)
    # The ends are quantiles of draws; of a rate of 0 or 1 they are that very number, but for its last digits.
    return min(found.low, found.estimate), found.estimate, max(found.high, found.estimate)


def judged_scores(marks: Sequence[Mark]) -> tuple[Score, ...]:
    """`unjudged` always; `accuracy` and `judge_score` (0 to 5) over the judged, and `accuracy_unjudged_wrong` over all.

    Raises:
        LabError: no answer, or as `unjudged_score`.
    """
    if not marks:
        raise LabError("no answer was judged, so there is nothing to score")
    unjudged = [mark.unjudged for mark in marks if mark.score is None]
    found = [
        unjudged_score(unjudged, len(marks)),
        points_score([mark.score for mark in marks if mark.score is not None], metric="judge_score"),
    ]
    right = [float(mark.correct) for mark in marks if mark.correct is not None]
    if right:
        found.insert(0, accuracy_score(right))
        if unjudged:
            found.append(accuracy_score([float(bool(one.correct)) for one in marks], metric="accuracy_unjudged_wrong"))
    return tuple(found)


def unjudged_score(unjudged: Sequence[str], num_answers: int) -> Score:
    """The share of answers that a judge has not marked.

    Args:
        unjudged: why, for each of them.
        num_answers: with those that are marked.

    Raises:
        LabError: more answers unjudged than judged; a number over what is left would be the judge's choice of
            questions.
    """
    num_judged = num_answers - len(unjudged)
    if len(unjudged) > num_judged:
        raise LabError(
            f"the judge gave no verdict on {len(unjudged)} of {num_answers} answers, and a score over the other "
            f"{num_judged} would say nothing of the model (the first: {unjudged[0]}); take another judge"
        )
    return Score(metric="unjudged", value=len(unjudged) / num_answers, better="lower", num_items=num_answers)


def points_score(points: Sequence[float], *, metric: str) -> Score:
    """The mean of a judge's points, with the percentile interval of items drawn with replacement."""
    array, rng = np.asarray(points, dtype=float), np.random.default_rng(0)
    # One after the other: 10,000 draws of a whole benchmark at once would not fit in memory.
    means = [array[rng.integers(len(array), size=len(array))].mean() for _ in range(NUM_RESAMPLES)]
    mean, (low, high) = float(array.mean()), np.quantile(means, [0.025, 0.975])
    return Score(
        metric=metric,
        value=mean,
        unit="points",
        low=min(float(low), mean),
        high=max(float(high), mean),
        better="higher",
        num_items=len(points),
    )
