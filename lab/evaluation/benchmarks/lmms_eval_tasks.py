"""What a benchmark is where lmms-eval runs it: which of its tasks, and how their numbers are read.

Names of tasks, metrics and fields are those of lmms-eval 0.7.3. Where an item is right or wrong, the field of its
sample that says so is named, so that a score has an interval over the items.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lab.evaluation.benchmarks.benchmark import Fills

DEFAULT_JUDGE = "gpt-4o-2024-11-20"
"""lmms-eval's own default of MODEL_VERSION."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that lmms-eval gives a task."""

    key: str
    """lmms-eval's name of it, in its results and in each sample."""
    full: float = 1.0
    """What it calls everything right, 1 or 100; 0 for points, which have no such number."""
    right: tuple[str, ...] = ()
    """Where a sample's value is a mapping: the field that is 1 or 0, or the two that are equal where it is right."""
    cluster: str = ""
    """The field whose items are no independent witnesses: the video."""
    of_items: bool = False
    """Whether lmms-eval divides by the whole benchmark's size, so that a sample's share has to be counted here."""
    replies: str = ""
    """Where a judge marks in points: the field of what it replied."""
    mark: Callable[[Sequence[str]], float | None] | None = None
    """Reads an item's points from these replies; None for one that they do not mark, which lmms-eval counts as 0."""


@dataclass(frozen=True, kw_only=True)
class LmmsEvalTask:
    """A benchmark as lmms-eval runs it."""

    tasks: tuple[str, ...]
    dataset: str
    """Of the hub; a branch after `@`."""
    metrics: Mapping[str, Metric]
    """Our names of the scores -> lmms-eval's."""
    split: str = "test"
    combined: Literal["", "mean", "sum"] = ""
    """How `main` is made of the metrics, where there are several; of one metric's tasks it is the mean."""
    main: str = "accuracy"
    """The score that fills the paper's cells."""
    judge: str = ""
    """The model that reads or marks answers at an endpoint, as lmms-eval names it by default; empty for none."""
    judge_variable: str = "MODEL_VERSION"
    """The environment variable that names another judge; empty where lmms-eval asks always this one."""
    together: int = 1
    """Items of one question, which a sample must not part."""
    cells: tuple[Fills, ...] = ()


def fills(table: str, place: str, metric: str, score: str = "accuracy") -> tuple[Fills, ...]:
    """The one place of the paper's tables that a task fills."""
    return (Fills(table=table, place=place, metric=metric, score=score),)
