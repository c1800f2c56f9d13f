"""Scores with the 95% interval over a benchmark's items: of right answers and marks, and of errors (section 4).

A checkpoint is one: nothing is drawn but the items, by group (items of one group are no independent witnesses), in the
bootstrap that the studies use.
"""

from collections.abc import Sequence

import pandas as pd

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Score, Unit
from lab.evaluation.items import TRANSCRIBE
from lab.evaluation.statistics import METRICS, bootstrap_interval


def mean_score(
    values: Sequence[float], groups: Sequence[str] | None = None, *, metric: str = "accuracy", unit: Unit = "fraction"
) -> Score:
    """The mean of `values`, one an item: 1 where it is right, else 0; or points. Those of a group are drawn together.

    Raises:
        LabError: no item.
    """
    names = [str(place) for place in range(len(values))]
    counted = {"wrong_answers": list(map(float, values)), "num_questions": 1.0}
    low, mean, high = _rate(pd.DataFrame({"id": names, "group": groups or names, **counted}), "error_rate")
    return Score(metric=metric, value=mean, unit=unit, low=low, high=high, num_items=len(values))


def error_rate_score(items: pd.DataFrame, counted: str, *, metric: str) -> Score:
    """A pooled rate of an item table: `counted` is `word_error_rate` or `character_error_rate`.

    Raises:
        LabError: no item, or a normaliser that does not report the rate.
    """
    low, rate, high = _rate(items, counted)
    return Score(metric=metric, value=rate, low=low, high=high, better="lower", num_items=len(items))


def scores_of_items(items: pd.DataFrame) -> tuple[Score, ...]:
    """Of an item table: accuracy where there were choices (of each task too, where there are several), else rates.

    Raises:
        LabError: no item.
    """
    if items["num_choices"].gt(0).all():
        of_task = list(items.groupby("task", sort=False)) if items["task"].nunique() > 1 else []
        return (_accuracy(items, "accuracy"), *(_accuracy(own, f"accuracy/{task}") for task, own in of_task))
    rates = ["word_error_rate", "character_error_rate"] if items["num_words"].any() else ["character_error_rate"]
    exact = () if set(items["task"]) == {TRANSCRIBE} else (_accuracy(items, "exact_match"),)
    return (*exact, *(error_rate_score(items, rate, metric=rate) for rate in rates))


def _accuracy(items: pd.DataFrame, metric: str) -> Score:
    return mean_score((1 - items["wrong_answers"]).tolist(), items["group"].tolist(), metric=metric)


def _rate(frame: pd.DataFrame, counted: str) -> tuple[float | None, float, float | None]:
    """Low end, rate and high end; without ends where there is one group only."""
    how = METRICS[counted]
    if frame.empty:
        raise LabError(f"there is nothing to score: no {how.items} were answered")
    if frame["group"].nunique() < 2:
        return None, float(frame[how.errors].sum() / frame[how.length].sum()), None
    found = bootstrap_interval(frame.assign(row="model", seed=0), "model", metric=counted)
    # The ends are quantiles of draws; of a rate of 0 or 1 they are that very number, but for its last digits.
    return min(found.low, found.estimate), found.estimate, max(found.high, found.estimate)
