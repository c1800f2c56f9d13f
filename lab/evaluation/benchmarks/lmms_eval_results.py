"""What lmms-eval has written, as scores and answers: DATE_results.json, and DATE_samples_TASK.jsonl of each task.

A score is lmms-eval's own number. Its interval is the bootstrap's over the items where each is right or wrong and they
average to that number; else 1.96 of lmms-eval's standard errors to each side; without these either, there is none.
"""

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Score
from lab.evaluation.benchmarks.vision_tasks import Metric, VisionTask

if TYPE_CHECKING:
    import pandas

# Tasks write files of their own beside it (submissions/mmbench_en_dev_static_results.json).
_RESULTS = re.compile(r"\d{8}_\d{6}_results\.json")
_ROUNDED = 1e-4  # MathVista's number has two decimals of a percent
_Z = statistics.NormalDist().inv_cdf(0.975)

Sample = Mapping[str, Any]


def read_output(folder: Path, task: VisionTask, *, whole: bool = True) -> tuple[tuple[Score, ...], "pandas.DataFrame"]:
    """The scores and the answers of one finished run.

    Args:
        folder: what `--output_path` named.
        whole: whether every item was asked. A sample may leave out a metric (MME's cognition comes last).

    Raises:
        LabError: there is no results file, it lacks a task or a metric, or a file cannot be read.
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
        scores += parts
        if len(task.tasks) > 1 and len(parts) == len(task.tasks):
            scores.insert(0, _over_tasks(name, metric, parts, [line for one in samples.values() for line in one]))
    if task.combined and len(scores) == len(task.metrics):
        scores.insert(0, _combined(task, scores))
    if not scores:
        asked = ", ".join(metric.key for metric in task.metrics.values())
        raise LabError(f"lmms-eval's sample of {', '.join(task.tasks)} holds no item that {asked} counts; ask more")
    return tuple(scores), _answers(task, samples)


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


def _label(task: VisionTask, name: str, one: str) -> str:
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
    value = _number(given[key])
    if value is None:
        raise LabError(f"lmms-eval's task {task!r} gives {metric.key!r} as {given[key]!r}, which is no number")
    if not metric.full:
        return Score(metric=name, value=value, unit="points", better="higher", num_items=len(counted))
    value /= metric.full
    if scored := _of_items(name, metric, counted, value):
        return scored
    error = _number(given.get(key.replace(",", "_stderr,", 1)))
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

    items = [_right(line.get(metric.key), metric) for line in samples]
    right = [one for one in items if one in (0.0, 1.0)]
    if not right or len(right) < len(items):
        return None
    if not metric.of_items and abs(statistics.fmean(right) - value) > _ROUNDED:
        return None
    clusters = [str(line[metric.key].get(metric.cluster)) for line in samples] if metric.cluster else None
    return accuracy_score(right, clusters=clusters, metric=name)


def _over_tasks(name: str, metric: Metric, parts: Sequence[Score], samples: Sequence[Sample]) -> Score:
    value = statistics.fmean(part.value for part in parts)
    counted = [line for line in samples if metric.key in line]
    return _of_items(name, metric, counted, value) or Score(
        metric=name, value=value, better="higher", num_items=len(counted)
    )


def _combined(task: VisionTask, scores: Sequence[Score]) -> Score:
    values = [score.value for score in scores]
    value = sum(values) if task.combined == "sum" else statistics.fmean(values)
    # Metrics of one item (HallusionBench) or each of its own (MME): items are counted once.
    num_items = sum(score.num_items for score in scores) if task.combined == "sum" else scores[0].num_items
    return Score(metric=task.main, value=value, unit=scores[0].unit, better="higher", num_items=num_items)


def _number(value: object) -> float | None:
    """A finite number; MathVista's is a text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _right(value: object, metric: Metric) -> float | None:
    """How right an item is, 0 to 1, where its sample says so."""
    if not isinstance(value, Mapping):
        return _number(value)
    if not metric.right or any(name not in value for name in metric.right):
        return None
    if len(metric.right) == 2:
        one, other = (str(value[name]).strip().lower() for name in metric.right)
        return float(one == other)
    found = value[metric.right[0]]
    return float(found) if isinstance(found, bool) else _number(found)


def _answers(task: VisionTask, samples: Mapping[str, Sequence[Sample]]) -> "pandas.DataFrame":
    import pandas as pd

    lines = []
    for name, of_task in samples.items():
        for line in of_task:
            rights = [_right(line[one.key], one) for one in task.metrics.values() if one.key in line]
            lines.append(
                {
                    "id": str(line.get("doc_id")) if len(samples) == 1 else f"{name}/{line.get('doc_id')}",
                    "prompt": str(line.get("input", "")),
                    "reference": str(line.get("target", "")),
                    "answer": _text(line.get("filtered_resps")),
                    "score": rights[0] if rights else None,
                    "task": name,
                }
            )
    return pd.DataFrame(lines, columns=["id", "prompt", "reference", "answer", "score", "task"])


def _text(given: object) -> str:
    return "\n".join(_text(one) for one in given) if isinstance(given, list) else str("" if given is None else given)
