"""Evaluations of real checkpoints: each an MLflow run, its scores lines of `ablations/results/evaluations.csv`.

The file's first line holds the SHA-256 of the rest, as that of a study's results. A line is known by its `key`, a hash
of benchmark, version, weights, settings and limit, and by its metric. What has a key there is not asked again, and no
line is written over.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lab import paths
from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Benchmark, Options, Progress, Score
from lab.study.results import lock, read_table, write_table
from lab.study.tracking import own_run


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One score of one evaluation, a line of the file."""

    benchmark: str
    version: int
    model: str
    model_key: str
    metric: str
    value: float
    unit: str
    low: float | None
    high: float | None
    better: str
    num_items: int
    limit: int | None
    key: str
    """Of the whole evaluation: `Identity.key`."""
    settings: str
    """As JSON: normalisers with their versions, the state of the data, the precision."""
    run_id: str
    as_row: str
    """The model of the paper's tables that it stands for; empty where for none."""
    date: str


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The lines of one evaluation, and whether they had been there before it was asked."""

    lines: tuple[Evaluation, ...]
    was_there: bool


def evaluations_path() -> Path:
    """The tracked file."""
    return paths.repository_root() / "ablations" / "results" / "evaluations.csv"


def read_evaluations() -> list[Evaluation]:
    """Every line, in the order in which they were measured, as `lab.study.results.read_table`."""
    lines = read_table(evaluations_path(), ", for it holds what was measured")
    return [_LINE.validate_python({**line, **{x: line[x] or None for x in ("low", "high", "limit")}}) for line in lines]


def evaluate(
    benchmark: Benchmark,
    model: str,
    *,
    options: Options,
    limit: int | None = None,
    as_row: str = "",
    progress: Progress,
) -> Recorded:
    """Evaluate and track, or find what was evaluated before.

    Args:
        as_row: the model of the paper's tables that this one is; what was evaluated without gets it now.

    Raises:
        LabError: as the benchmark's `identify` and `ask`; the file was changed by hand; or an evaluation that is there
            stands for another row.
    """
    before = read_evaluations()
    identity = benchmark.identify(model, options)
    key = identity.key(benchmark, limit)
    if any(line.key == key for line in before):
        return Recorded(lines=_named(key, as_row), was_there=True)
    asked: dict[str, Any] = {
        "benchmark": benchmark.name,
        "version": benchmark.version,
        "model": model,
        "model_key": identity.model_key,
        "limit": limit,
        "as_row": as_row,
    }
    parameters = {**asked, **{f"settings.{setting}": value for setting, value in identity.settings.items()}}
    with own_run(f"{benchmark.name}, {model}", parameters, {"kind": "evaluation", "key": key}) as run:
        scores, answers, told = benchmark.ask(model, identity, options, limit, progress)
        settings = {**identity.settings, **told}
        run.log_table(answers, "answers")
        run.log_json(settings, "settings")
        run.set_results({name: value for score in scores for name, value in _numbers(score).items()})
    facts: dict[str, Any] = {"key": key, "run_id": run.run_id, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    written = json.dumps(settings, ensure_ascii=False, sort_keys=True)
    lines = [Evaluation(**asked, **asdict(score), **facts, settings=written) for score in scores]
    with lock("evaluations"):
        there = read_evaluations()
        if all(line.key != key for line in there):  # else another process was first
            _write([*there, *lines])
    return Recorded(lines=tuple(lines), was_there=False)


def _numbers(score: Score) -> dict[str, float]:
    ends = {"low": score.low, "high": score.high}
    return {score.metric: score.value, **{f"{score.metric}.{end}": x for end, x in ends.items() if x is not None}}


def _named(key: str, as_row: str) -> tuple[Evaluation, ...]:
    """The lines of a key, which stand for `as_row` from now on where it is one."""
    with lock("evaluations"):
        every = read_evaluations()
        mine = [line for line in every if line.key == key]
        other = next((line.as_row for line in mine if line.as_row and line.as_row != as_row), "")
        if as_row and other:
            raise LabError(
                f"the evaluation of {mine[0].model!r} on {mine[0].benchmark!r} stands for {other!r} (run "
                f"{mine[0].run_id}), so not for {as_row!r}; one checkpoint is one model of the paper's"
            )
        if as_row and mine[0].as_row != as_row:
            every = [replace(line, as_row=as_row) if line.key == key else line for line in every]
            _write(every)
    return tuple(line for line in every if line.key == key)


def _write(lines: Sequence[Evaluation]) -> None:
    write_table(evaluations_path(), [field.name for field in fields(Evaluation)], map(asdict, lines))


_LINE = TypeAdapter(Evaluation)
