"""What lmms-eval writes of an item: whether it is right, the points that a judge gave it, and a line of our answers."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lab.evaluation.benchmarks.benchmark import ANSWER_COLUMNS
from lab.evaluation.benchmarks.lmms_eval_tasks import LmmsEvalTask, Metric

if TYPE_CHECKING:
    import pandas

Sample = Mapping[str, Any]
"""A line of DATE_samples_TASK.jsonl."""


def number_of(value: object) -> float | None:
    """A finite number; MathVista's is a text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def right_of(value: object, metric: Metric) -> float | None:
    """How right an item is, 0 to 1, where its sample says so; its points where a judge marks in points."""
    if not isinstance(value, Mapping):
        return number_of(value)
    if metric.mark is not None:
        return metric.mark([str(reply) for reply in value.get(metric.replies) or ()])
    if not metric.right or any(name not in value for name in metric.right):
        return None
    if len(metric.right) == 2:
        one, other = (str(value[name]).strip().lower() for name in metric.right)
        return float(one == other)
    found = value[metric.right[0]]
    return float(found) if isinstance(found, bool) else number_of(found)


def answers_of(task: LmmsEvalTask, samples: Mapping[str, Sequence[Sample]]) -> "pandas.DataFrame":
    """A line an item: `ANSWER_COLUMNS`, its task, and what a judge replied that marks in points."""
    import pandas as pd

    lines = []
    for name, of_task in samples.items():
        for line in of_task:
            there = [one for one in task.metrics.values() if one.key in line]
            rights = [right_of(line[one.key], one) for one in there]
            lines.append(
                {
                    "id": str(line.get("doc_id")) if len(samples) == 1 else f"{name}/{line.get('doc_id')}",
                    "prompt": str(line.get("input", "")),
                    "reference": str(line.get("target", "")),
                    "answer": _text(line.get("filtered_resps")),
                    "score": rights[0] if rights else None,
                    "task": name,
                    **{column: _text(line[one.key].get(one.replies)) for one in there if (column := one.replies)},
                }
            )
    return pd.DataFrame(lines, columns=None if lines else [*ANSWER_COLUMNS, "task"])


def _text(given: object) -> str:
    return "\n".join(_text(one) for one in given) if isinstance(given, list) else str("" if given is None else given)
