"""What a benchmark is: the contract between a kind of questions and whatever asks, records and shows them (section 4).

A benchmark takes the name of a model and gives scores with intervals, and every single answer. It is asked twice:
`check` refuses, and says what the answers will depend on, before anything expensive; `evaluate` answers. A kind of
questions writes `identify` and `ask`. Importing a benchmark's module imports neither torch nor lm-eval.
"""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from lab.errors import LabError, choose

if TYPE_CHECKING:
    import pandas

Kind = Literal["language", "speech", "translation", "open", "multimodal", "samples"]
Unit = Literal["fraction", "points"]
Progress = Callable[[int, int], None]
"""Called with how many items are done, and of how many."""

ANSWER_COLUMNS = ("id", "asked", "answer", "given", "score")
"""Of every benchmark's answers, named as in `lab.evaluation.items`; it may have more."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number of a benchmark, with the 95% interval over its items.

    `value`, `low` and `high` are in `unit`: fractions where they are printed in percent (accuracy, error rates), points
    where they have a scale of their own (BLEU, a judge's 0 to 5).

    Raises:
        LabError: a value that is no finite number or outside its own interval, or only one end of it.
    """

    metric: str
    value: float
    unit: Unit = "fraction"
    low: float | None = None
    high: float | None = None
    better: Literal["higher", "lower"]
    num_items: int

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise LabError(f"score {self.metric!r} is {self.value}, which is no finite number")
        if (self.low is None) != (self.high is None):
            raise LabError(f"score {self.metric!r} has one end of an interval only; give both or none")
        if self.low is not None and self.high is not None and not self.low <= self.value <= self.high:
            raise LabError(f"score {self.metric!r} is {self.value}, outside its interval {self.low} to {self.high}")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """All that a benchmark's answers depend on, but for how many are asked."""

    model_key: str
    """Names the weights: a hash, or a hub's name with its revision."""
    settings: Mapping[str, str]
    """Prompt version, normaliser with its version, data source with its revision, decoding, precision."""

    def key(self, benchmark: "Benchmark", limit: int | None) -> str:
        """What this evaluation is called: two that share it have the same answers."""
        named = [benchmark.name, benchmark.version, self.model_key, limit, sorted(self.settings.items())]
        return hashlib.sha256(json.dumps(named, ensure_ascii=False).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What a benchmark found of a model.

    Raises:
        LabError: the answers lack one of `ANSWER_COLUMNS`, or two scores share a name.
    """

    benchmark: str
    model: str
    model_key: str
    scores: tuple[Score, ...]
    answers: "pandas.DataFrame"
    """One line a sample: `ANSWER_COLUMNS`, and what else the benchmark knows of it."""
    settings: Mapping[str, str]
    """As `Identity.settings`; it may say more that only the run itself tells, such as a metric's signature."""

    def __post_init__(self) -> None:
        if missing := [name for name in ANSWER_COLUMNS if name not in self.answers]:
            raise LabError(f"the answers of benchmark {self.benchmark!r} lack the columns {', '.join(missing)}")
        names = [score.metric for score in self.scores]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise LabError(f"benchmark {self.benchmark!r} has two scores called {', '.join(twice)}")


@dataclass(frozen=True)
class Fills:
    """A place of the paper's tables that a benchmark measures; which model's cell of it, `lab evaluate --as` says."""

    table: str
    """As in `lab/paper/ledger/tables.toml`: table_1."""
    place: str
    """The table's column, where models are its rows (MMLU); its row, where they are its columns (Fleurs test-en)."""
    metric: str
    """The cell's, as in `cells.csv`: accuracy, score, WER, CER, BLEU."""
    score: str
    """The benchmark's own `Score.metric` that is this number."""


@dataclass(frozen=True, kw_only=True)
class Benchmark(ABC):
    """Questions with answers that are known, and how a model's are scored."""

    name: str
    kind: Kind
    models: str
    """What MODEL may be, for people: "a causal language model: smollm2_135m, a hub name or a folder"."""
    source: str
    """Where its data come from, with their revision."""
    version: int = 1
    """Raise it when the same model and data would give other answers or scores."""
    cells: tuple[Fills, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    """What `lab evaluate --option NAME=VALUE` may set -> what it is and its default, for people."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise LabError(f"benchmark {self.name!r} is of kind {self.kind!r}; expected {', '.join(get_args(Kind))}")

    @classmethod
    def from_table(cls, name: str, table: Mapping[str, Any]) -> "Benchmark":
        """A table of `benchmarks.toml`: the fields, with `fills` for `cells`, and `options` by their names."""
        told: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
        cells = tuple(Fills(*places) for places in told.pop("fills", ()))
        names = told.pop("options", None)
        made = cls(name=name, cells=cells, **told)
        return made if names is None else replace(made, options={option: made.options[option] for option in names})

    def check(self, model: str, *, options: Mapping[str, str]) -> Identity:
        """Say what the answers will depend on; nothing is loaded that takes more than seconds.

        Raises:
            LabError: an option that the benchmark does not have (its options are listed), or as `identify`.
        """
        for name in options:
            if not self.options:
                raise LabError(f"benchmark {self.name!r} has no options, and {name!r} was given")
            choose(self.options, name, f"option of benchmark {self.name!r}")
        return self.identify(model, options)

    def evaluate(self, model: str, *, options: Mapping[str, str], limit: int | None, progress: Progress) -> Evaluated:
        """Ask the model, score its answers; answers given before are read from the cache.

        Args:
            model: as `models` says.
            options: those of `self.options`.
            limit: items at most, the same ones every time for one limit (a seeded sample); None for all.
            progress: told how far it is.

        Raises:
            LabError: as `check_limit`, `check` and `ask`.
        """
        check_limit(limit)
        identity = self.check(model, options=options)
        scores, answers, told = self.ask(model, identity, options, limit, progress)
        return Evaluated(
            benchmark=self.name,
            model=model,
            model_key=identity.model_key,
            scores=scores,
            answers=answers,
            settings={**identity.settings, **told},
        )

    @abstractmethod
    def identify(self, model: str, options: Mapping[str, str]) -> Identity:
        """Name the weights and all settings.

        Raises:
            LabError: the model is none of this kind, a package or the data is missing, or an option's value is wrong.
        """

    @abstractmethod
    def ask(
        self, model: str, identity: Identity, options: Mapping[str, str], limit: int | None, progress: Progress
    ) -> "tuple[tuple[Score, ...], pandas.DataFrame, Mapping[str, str]]":
        """The scores, the answers, and settings that only the run itself tells.

        Raises:
            LabError: the data or the model turn out to be none. What was answered until then is kept.
        """


def whole_number(options: Mapping[str, str], name: str, default: str) -> int:
    """An option that counts something; a LabError where it is none."""
    given = options.get(name, default)
    if not given.isdecimal() or int(given) < 1:
        raise LabError(f"option {name} is {given!r}; expected a whole number from 1")
    return int(given)


def check_limit(limit: int | None) -> None:
    """Raise a LabError where `limit` is no number of items."""
    if limit is not None and limit < 1:
        raise LabError(f"limit is {limit}, expected at least 1 item")


def sampled(num_items: int, limit: int | None) -> list[int]:
    """Which items a limit leaves, in their order: the same ones every time, spread over all.

    >>> sampled(3, None), sampled(2, 5), len(sampled(100, 7))
    ([0, 1, 2], [0, 1], 7)

    Raises:
        LabError: as `check_limit`.
    """
    import numpy as np

    check_limit(limit)
    if limit is None or limit >= num_items:
        return list(range(num_items))
    return sorted(np.random.default_rng(0).permutation(num_items)[:limit].tolist())
