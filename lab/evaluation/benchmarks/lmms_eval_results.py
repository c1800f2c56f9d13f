"""What lmms-eval has written, as scores and answers: DATE_results.json, and DATE_samples_TASK.jsonl of each task.

A score is lmms-eval's own number. Its interval is the bootstrap's over the items where each is right or wrong and they
average to that number; else 1.96 of lmms-eval's standard errors to each side; without these either, there is none.
Only where a judge marks in points, what it has not marked is left out, and lmms-eval's own number stands beside it.
"""

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import ANSWER_COLUMNS, Score

if TYPE_CHECKING:
    import pandas

Line = Mapping[str, Any]
"""An item, as a line of DATE_samples_TASK.jsonl."""
# Tasks write files of their own beside it (submissions/mmbench_en_dev_static_results.json).
_RESULTS = re.compile(r"\d{8}_\d{6}_results\.json")
_ROUNDED = 1e-4  # MathVista's number has two decimals of a percent
# Where lmms-eval 0.7.3 gives a mapping for an item: the field that is 1 or 0, or two that are equal where it is right.
_RIGHT = ("score", "correct", "true_false")
_SAME = (("pred", "answer"), ("pred", "ground_truth"))
# Items that are no independent witnesses: questions on one video.
_CLUSTERS = ("videoID", "video_name")
_TWO_MARKS = re.compile(r"(10|[1-9])[.,]?\s+(10|[1-9])\.?")
_Z = statistics.NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that lmms-eval gives a task, and how each item of its samples comes to it."""

    key: str
    """lmms-eval's name of it, in its results and in each sample."""
    full: float = 1.0
    """What it calls everything right, 1 or 100; 0 for points, which have no such number."""
    of_items: bool = False
    """Whether lmms-eval divides by the whole benchmark's size, so that a sample's share has to be counted here."""
    in_points: bool = False
    """Whether a judge marks each item as AIR-Bench's does."""

    def counted(self, lines: Sequence[Line]) -> list[Line]:
        """The items that it is a number of."""
        return [line for line in lines if self.key in line]

    def right_of(self, line: Line) -> float | None:
        """How right an item is, 0 to 1, where its sample says so; its points where a judge marks in points."""
        value = line[self.key]
        if not isinstance(value, Mapping):
            return _number(value)
        if self.in_points:
            return mean_mark([str(reply) for reply in value.get("eval_answer") or ()])
        for given, expected in _SAME:
            if given in value and expected in value:
                return float(str(value[given]).strip().lower() == str(value[expected]).strip().lower())
        found = next((value[name] for name in _RIGHT if name in value), None)
        return float(found) if isinstance(found, bool) else _number(found)


def mean_mark(replies: Sequence[str]) -> float | None:
    """An answer's mark of AIR-Bench: the mean of the second of the first reply and the first of the second one.

    >>> mean_mark(["9 6", "7 9"]), mean_mark(["9 6", ""]), mean_mark(["9 0", "7 9"])
    (6.5, None, None)
    """
    marks = [_TWO_MARKS.fullmatch(reply.strip()) for reply in replies]
    if len(marks) != 2 or marks[0] is None or marks[1] is None:
        return None
    return (int(marks[0][2]) + int(marks[1][1])) / 2


@dataclass(frozen=True, kw_only=True)
class Output:
    """One finished run."""

    results: Mapping[str, Mapping[str, Any]]
    """Task -> METRIC,FILTER -> its number."""
    samples: Mapping[str, Sequence[Line]]
    """Task -> its items."""

    def score(self, name: str, metric: Metric, task: str, *, whole: bool) -> Score | None:
        """A task's number; None where a sample (not `whole`) has no item that it is of: MME's cognition comes last.

        Raises:
            LabError: the task or the metric is not there, or is no number.
        """
        if task not in self.results:
            there = ", ".join(sorted(self.results)) or "none"
            raise LabError(f"lmms-eval's results lack task {task!r}; they have: {there}")
        given = self.results[task]
        key = next((key for key in given if key.partition(",")[0] == metric.key), None)
        if key is None:
            if not whole:
                return None
            there = ", ".join(sorted({key.partition(",")[0] for key in given if "," in key and "_stderr" not in key}))
            raise LabError(f"lmms-eval's task {task!r} lacks the metric {metric.key!r}; it has: {there or 'none'}")
        lines = metric.counted(self.samples[task])
        value = _number(given[key])
        if value is None:
            raise LabError(f"lmms-eval's task {task!r} gives {metric.key!r} as {given[key]!r}, which is no number")
        if not metric.full:
            return Score(metric=name, value=value, unit="points", better="higher", num_items=len(lines))
        value /= metric.full
        if scored := score_of_items(name, metric, lines, value):
            return scored
        error = _number(given.get(key.replace(",", "_stderr,", 1)))
        reach = None if error is None else _Z * error / metric.full
        return Score(
            metric=name,
            value=value,
            low=None if reach is None else max(min(value, 0.0), value - reach),
            high=None if reach is None else min(max(value, 1.0), value + reach),
            better="higher",
            num_items=len(lines),
        )

    def answers(self, metrics: Sequence[Metric]) -> "pandas.DataFrame":
        """A line an item: `ANSWER_COLUMNS`, its task, and as JSON what lmms-eval found of it."""
        import pandas as pd

        made = []
        for task, lines in self.samples.items():
            for line in lines:
                there = [metric for metric in metrics if metric.key in line]
                made.append(
                    {
                        "id": str(line.get("doc_id")) if len(self.samples) == 1 else f"{task}/{line.get('doc_id')}",
                        "asked": str(line.get("input", "")),
                        "answer": str(line.get("target", "")),
                        "given": _text(line.get("filtered_resps")),
                        "score": there[0].right_of(line) if there else None,
                        "task": task,
                        "found": json.dumps({metric.key: line[metric.key] for metric in there}, ensure_ascii=False),
                    }
                )
        return pd.DataFrame(made, columns=[*ANSWER_COLUMNS, "task", "found"])


def read_output(folder: Path, tasks: Sequence[str]) -> Output:
    """Read what `--output_path` named.

    Raises:
        LabError: there is no results file, no samples of a task, or a file cannot be read.
    """
    found = sorted(path for path in folder.rglob("*.json") if _RESULTS.fullmatch(path.name))
    if not found:
        raise LabError("lmms-eval has written no results: there is no DATE_results.json in its output")
    try:
        results = json.loads(found[-1].read_text(encoding="utf-8"))["results"]
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"lmms-eval's results file {found[-1].name} cannot be read: {error!r}") from error
    return Output(results=results, samples={task: _samples(found[-1], task) for task in tasks})


def _samples(results: Path, task: str) -> list[Line]:
    path = results.with_name(results.name.replace("_results.json", f"_samples_{task}.jsonl"))
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise LabError(f"lmms-eval has written no samples of task {task!r}: expected {path.name}") from None
    except ValueError as error:
        raise LabError(f"lmms-eval's samples {path.name} cannot be read: {error}") from error


def score_of_items(name: str, metric: Metric, lines: Sequence[Line], value: float) -> Score | None:
    """The items' own accuracy with its interval, where it is the same number as lmms-eval's `value`."""
    from lab.evaluation.benchmarks.scores import accuracy_score

    items = [metric.right_of(line) for line in lines]
    right = [one for one in items if one in (0.0, 1.0)]
    if not right or len(right) < len(items):
        return None
    if not metric.of_items and abs(statistics.fmean(right) - value) > _ROUNDED:
        return None
    first = lines[0][metric.key]
    cluster = next((name for name in _CLUSTERS if isinstance(first, Mapping) and name in first), None)
    clusters = [str(line[metric.key].get(cluster)) for line in lines] if cluster else None
    return accuracy_score(right, clusters=clusters, metric=name)


def marked(metric: Metric, given: Score, lines: Sequence[Line]) -> list[Score]:
    """The score over what a judge has marked; lmms-eval's, in which the rest counts as 0, where there is a rest.

    Raises:
        LabError: the judge has marked less than half of the answers, or others than lmms-eval has counted.
    """
    from lab.evaluation.benchmarks.scores import points_score, unjudged_score

    marks = [metric.right_of(line) for line in lines]
    without = [
        f"replied {line[metric.key].get('eval_answer')!r}"
        for line, mark in zip(lines, marks, strict=True)
        if mark is None
    ]
    unjudged = unjudged_score(without, len(lines))
    score = points_score([mark for mark in marks if mark is not None], metric=given.metric)
    if without:
        return [score, unjudged, replace(given, metric=f"{given.metric}_unjudged_zero")]
    if abs(score.value - given.value) > _ROUNDED:
        raise LabError(f"lmms-eval's {metric.key} is {given.value}, and the marks in its samples average {score.value}")
    return [score, unjudged]


def _number(value: object) -> float | None:
    """A finite number; MathVista's is a text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _text(given: object) -> str:
    return "\n".join(_text(one) for one in given) if isinstance(given, list) else str("" if given is None else given)
