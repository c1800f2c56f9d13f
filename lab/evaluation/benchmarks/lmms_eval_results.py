"""What lmms-eval has written, as scores and answers: DATE_results.json, and DATE_samples_TASK.jsonl of each task.

A score is lmms-eval's own number. Its interval is the bootstrap's over the items where each is right or wrong and they
average to that number; else 1.96 of lmms-eval's standard errors to each side; without these either, there is none.
Only where a judge marks in points, what it has not marked is left out, and lmms-eval's own number stands beside it.
"""

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Score
from lab.evaluation.benchmarks.lmms_eval_items import Sample, answers_of, number_of, right_of
from lab.evaluation.benchmarks.lmms_eval_tasks import LmmsEvalTask, Metric

if TYPE_CHECKING:
    import pandas

# Tasks write files of their own beside it (submissions/mmbench_en_dev_static_results.json).
_RESULTS = re.compile(r"\d{8}_\d{6}_results\.json")
_ROUNDED = 1e-4  # MathVista's number has two decimals of a percent
_Z = statistics.NormalDist().inv_cdf(0.975)


def read_output(
    folder: Path, task: LmmsEvalTask, *, whole: bool = True
) -> tuple[tuple[Score, ...], "pandas.DataFrame"]:
    """The scores and the answers of one finished run.

    Args:
        folder: what `--output_path` named.
        whole: whether every item was asked. A sample may leave out a metric (MME's cognition comes last).

    Raises:
        LabError: there is no results file, it lacks a task or a metric, or a file cannot be read; or a judge has marked
            less than half of the answers, or others than lmms-eval has counted.
    """
    path, results = _results(folder)
    samples = {name: _samples(path, name) for name in task.tasks}
    scores: list[Score] = []
    for name, metric in task.metrics.items():
        parts = [
            found
            for one in task.tasks
            if (found := _score(_label(task, name, one), metric, results, samples[one], one, whole=whole))
        ]
        scores += parts if metric.mark is None else _marked(name, metric, parts, samples[task.tasks[0]])
        if len(task.tasks) > 1 and len(parts) == len(task.tasks):
            scores.insert(0, _over_tasks(name, metric, parts, [line for one in samples.values() for line in one]))
    if task.combined and len(scores) == len(task.metrics):
        scores.insert(0, _combined(task, scores))
    if not scores:
        asked = ", ".join(metric.key for metric in task.metrics.values())
        raise LabError(f"lmms-eval's sample of {', '.join(task.tasks)} holds no item that {asked} counts; ask more")
    return tuple(scores), answers_of(task, samples)


def _results(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    found = sorted(path for path in folder.rglob("*.json") if _RESULTS.fullmatch(path.name))
    if not found:
        raise LabError("lmms-eval has written no results: there is no DATE_results.json in its output")
    try:
        return found[-1], json.loads(found[-1].read_text(encoding="utf-8"))["results"]
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"lmms-eval's results file {found[-1].name} cannot be read: {error!r}") from error


def _samples(results: Path, task: str) -> list[Sample]:
    path = results.with_name(results.name.replace("_results.json", f"_samples_{task}.jsonl"))
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise LabError(f"lmms-eval has written no samples of task {task!r}: expected {path.name}") from None
    except ValueError as error:
        raise LabError(f"lmms-eval's samples {path.name} cannot be read: {error}") from error


def _label(task: LmmsEvalTask, name: str, one: str) -> str:
    return name if len(task.tasks) == 1 else f"{name}.{one}"


def _score(
    name: str, metric: Metric, results: Mapping[str, Any], samples: Sequence[Sample], task: str, *, whole: bool
) -> Score | None:
    if task not in results:
        raise LabError(f"lmms-eval's results lack task {task!r}; they have: {', '.join(sorted(results)) or 'none'}")
    given = results[task]
    keys = [key for key in given if key.partition(",")[0] == metric.key]  # METRIC,FILTER
    if not keys:
        if not whole:
            return None
        there = ", ".join(sorted({key.partition(",")[0] for key in given if "," in key and "_stderr" not in key}))
        raise LabError(f"lmms-eval's task {task!r} lacks the metric {metric.key!r}; it has: {there or 'none'}")
    key = keys[0]
    counted = [line for line in samples if metric.key in line]
    value = number_of(given[key])
    if value is None:
        raise LabError(f"lmms-eval's task {task!r} gives {metric.key!r} as {given[key]!r}, which is no number")
    if not metric.full:
        return Score(metric=name, value=value, unit="points", better="higher", num_items=len(counted))
    value /= metric.full
    if scored := _of_items(name, metric, counted, value):
        return scored
    error = number_of(given.get(key.replace(",", "_stderr,", 1)))
    if error is None:
        return Score(metric=name, value=value, better="higher", num_items=len(counted))
    reach = _Z * error / metric.full
    return Score(
        metric=name,
        value=value,
        low=max(min(value, 0.0), value - reach),
        high=min(max(value, 1.0), value + reach),
        better="higher",
        num_items=len(counted),
    )


def _of_items(name: str, metric: Metric, samples: Sequence[Sample], value: float) -> Score | None:
    """The items' own accuracy with its interval, where it is the same number."""
    from lab.evaluation.benchmarks.intervals import accuracy_score

    items = [right_of(line.get(metric.key), metric) for line in samples]
    right = [one for one in items if one in (0.0, 1.0)]
    if not right or len(right) < len(items):
        return None
    if not metric.of_items and abs(statistics.fmean(right) - value) > _ROUNDED:
        return None
    clusters = [str(line[metric.key].get(metric.cluster)) for line in samples] if metric.cluster else None
    return accuracy_score(right, clusters=clusters, metric=name)


def _marked(name: str, metric: Metric, given: Sequence[Score], samples: Sequence[Sample]) -> list[Score]:
    """The score over what the judge has marked; lmms-eval's, in which the rest counts as 0, where there is a rest."""
    from lab.evaluation.benchmarks.judged_scores import points_score, unjudged_score

    if not given or not given[0].num_items:
        return []
    lines = [line for line in samples if metric.key in line]
    marks = [right_of(line[metric.key], metric) for line in lines]
    without = [
        f"replied {line[metric.key].get(metric.replies)!r}"
        for line, mark in zip(lines, marks, strict=True)
        if mark is None
    ]
    unjudged = unjudged_score(without, len(lines))
    score = points_score([mark for mark in marks if mark is not None], metric=name)
    if without:
        return [score, unjudged, replace(given[0], metric=f"{name}_unjudged_zero")]
    if abs(score.value - given[0].value) > _ROUNDED:
        raise LabError(
            f"lmms-eval's {metric.key} is {given[0].value}, and the marks in its samples average {score.value}"
        )
    return [score, unjudged]


def _over_tasks(name: str, metric: Metric, parts: Sequence[Score], samples: Sequence[Sample]) -> Score:
    value = statistics.fmean(part.value for part in parts)
    counted = [line for line in samples if metric.key in line]
    return _of_items(name, metric, counted, value) or Score(
        metric=name, value=value, better="higher", num_items=len(counted)
    )


def _combined(task: LmmsEvalTask, scores: Sequence[Score]) -> Score:
    values = [score.value for score in scores]
    value = sum(values) if task.combined == "sum" else statistics.fmean(values)
    # Metrics of one item (HallusionBench) or each of its own (MME): items are counted once.
    num_items = sum(score.num_items for score in scores) if task.combined == "sum" else scores[0].num_items
    return Score(metric=task.main, value=value, unit=scores[0].unit, better="higher", num_items=num_items)
