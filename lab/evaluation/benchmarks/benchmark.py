"""What a benchmark is: the contract between what asks a model and whatever records and shows its answers (section 4).

A benchmark takes the name of a model and gives scores with intervals, and every single answer. `identify` refuses, and
says what the answers will depend on, before anything expensive; `ask` answers. Importing a benchmark's module imports
neither torch nor lm-eval.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from lab.errors import LabError

if TYPE_CHECKING:
    import pandas

Unit = Literal["fraction", "points"]
Options = Mapping[str, str]
Progress = Callable[[int, int], None]
"""Called with how many items are done, and of how many."""

_FAILED = "[LMMS_EVAL_REQUEST_FAILED"


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number of a benchmark, with the 95% interval over its items.

    `value`, `low` and `high` are in `unit`: fractions where they are printed in percent (accuracy, error rates), points
    where they have a scale of their own (BLEU, a judge's 0 to 5).
    """

    metric: str
    value: float
    unit: Unit = "fraction"
    low: float | None = None
    high: float | None = None
    better: Literal["higher", "lower"] = "higher"
    num_items: int


@dataclass(frozen=True, kw_only=True)
class Identity:
    """All that a benchmark's answers depend on, but for how many are asked."""

    model_key: str
    """Names the weights: a hash, or a hub's name with its revision."""
    settings: Mapping[str, str]
    """Normaliser with its version, data source with its revision, decoding, precision."""

    def key(self, benchmark: "Benchmark", limit: int | None) -> str:
        """What this evaluation is called: two that share it have the same answers."""
        named = [benchmark.name, benchmark.version, self.model_key, limit, sorted(self.settings.items())]
        return hashlib.sha256(json.dumps(named, ensure_ascii=False).encode()).hexdigest()[:16]


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
    source: str
    """Where its data come from, for people."""
    version: int = 1
    """Raise it when the same model and data would give other answers or scores."""
    cells: tuple[Fills, ...] = ()

    kind: ClassVar[str]
    models: ClassVar[str]
    """What MODEL may be, for people: "a causal language model: smollm2_135m, a hub name or a folder"."""
    options: ClassVar[Options]
    """What `lab evaluate --option NAME=VALUE` may set -> what it is and its default, for people."""

    @abstractmethod
    def identify(self, model: str, options: Options) -> Identity:
        """Name the weights and all settings; nothing is loaded that takes more than seconds.

        Raises:
            LabError: the model is none of this kind, a package, data or a judge's key is missing, an option is wrong.
        """

    @abstractmethod
    def ask(
        self, model: str, identity: Identity, options: Options, limit: int | None, progress: Progress
    ) -> "tuple[tuple[Score, ...], pandas.DataFrame, Options]":
        """The scores, a line an answer (`id`, `asked`, `answer`, `given`, `score`), and settings that only a run tells.

        `identity` is what `identify` gave of the model and these options. `limit` is items at most, the same ones every
        time (of a harness: of each of its tasks); None for all.

        Raises:
            LabError: the data or the model turn out to be none. What was answered until then is kept.
        """


def mean_score(
    values: Sequence[float], groups: Sequence[str] | None = None, *, metric: str = "accuracy", unit: Unit = "fraction"
) -> Score:
    """The mean of `values`, one an item: 1 where it is right, else 0; or points. A group is drawn together."""
    import pandas as pd

    names = [str(place) for place in range(len(values))]
    counted = {"wrong_answers": list(map(float, values)), "num_questions": 1.0}
    items = pd.DataFrame({"id": names, "group": groups or names, **counted})
    return replace(error_rate_score(items, "error_rate"), metric=metric, unit=unit, better="higher")


def error_rate_score(items: "pandas.DataFrame", counted: str) -> Score:
    """A pooled rate of an item table, a key of `METRICS`; its interval is the studies' bootstrap over groups of items.

    A checkpoint is one, so that nothing is drawn but the items; there is no interval where they are of one group.

    Raises:
        LabError: no item, or a normaliser that does not report the rate.
    """
    from lab.evaluation.statistics import METRICS, bootstrap_interval

    how = METRICS[counted]
    if items.empty:
        raise LabError(f"there is nothing to score: no {how.items} were answered")
    if items["group"].nunique() < 2:
        rate = float(items[how.errors].sum() / items[how.length].sum())
        return Score(metric=counted, value=rate, better="lower", num_items=len(items))
    found = bootstrap_interval(items.assign(row="model", seed=0), "model", metric=counted)
    # The ends are quantiles of draws; of a rate of 0 or 1 they are that very number, but for its last digits.
    low, high = min(found.low, found.estimate), max(found.high, found.estimate)
    return Score(metric=counted, value=found.estimate, low=low, high=high, better="lower", num_items=len(items))


class Unanswered(LabError):
    """An endpoint left more than half of the questions without a text."""


def unanswered(given: Sequence[str]) -> dict[str, str]:
    """How many questions an endpoint left without a text, as a setting that only a run tells.

    lm-eval and lmms-eval make an empty text of null content (a reasoning model that came to its limit) and of what a
    content filter took, and score it as wrong; lmms-eval makes a text of its own of a request that failed.

    Raises:
        Unanswered: it left more than half.
    """
    left = sum(not text.strip() or text.startswith(_FAILED) for text in given)
    if 2 * left > len(given):
        raise Unanswered(
            f"the endpoint gave no text for {left} of {len(given)} questions, which would count as wrong; give a "
            "reasoning model more tokens, and look whether a content filter, a request limit or a timeout is at work"
        )
    return {"unanswered": f"{left} of {len(given)}, counted as wrong"}


def scores_of_items(items: "pandas.DataFrame") -> tuple[Score, ...]:
    """Of an item table: accuracy where there were choices (of each task too, where there are several), else rates."""
    from lab.data.sample import TRANSCRIBE

    def accuracy(items: "pandas.DataFrame", metric: str) -> Score:
        return mean_score((1 - items["wrong_answers"]).tolist(), items["group"].tolist(), metric=metric)

    if items["num_choices"].gt(0).all():
        of_task = list(items.groupby("task", sort=False)) if items["task"].nunique() > 1 else []
        return (accuracy(items, "accuracy"), *(accuracy(own, f"accuracy/{task}") for task, own in of_task))
    rates = ["word_error_rate", "character_error_rate"] if items["num_words"].any() else ["character_error_rate"]
    exact = () if set(items["task"]) == {TRANSCRIBE} else (accuracy(items, "exact_match"),)
    return (*exact, *(error_rate_score(items, rate) for rate in rates))


def reply_text(given: object) -> str:
    """What a model or judge replied as text that a file can hold; of several replies one a line, of none nothing.

    A reply that was cut within an emoji ends in half of it (a surrogate without its pair), which becomes U+FFFD.
    """
    if isinstance(given, list):
        return "\n".join(map(reply_text, given))
    return str("" if given is None else given).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def whole_number(options: Options, name: str, default: int) -> int:
    """An option that counts something; a LabError where it is none."""
    given = options.get(name, str(default))
    if not given.isdecimal() or int(given) < 1:
        raise LabError(f"option {name} is {given!r}; expected a whole number from 1")
    return int(given)


def model_arguments(options: Options) -> str:
    """The option `model_args`, which is recorded in a file that git has.

    Raises:
        LabError: it is of another form, or holds a key.
    """
    given = options.get("model_args", "")
    parts = [part.partition("=") for part in given.split(",") if given]
    if any(name == "api_key" for name, _, _ in parts):
        raise LabError("option model_args holds an api_key; set the environment variable OPENAI_API_KEY instead")
    if not all(name and equals for name, equals, _ in parts):
        raise LabError(f"option model_args is {given!r}; expected NAME=VALUE,NAME=VALUE")
    return given


def sampled(num_items: int, limit: int | None) -> list[int]:
    """Which items a limit leaves, in their order: the same ones every time, spread over all.

    >>> sampled(3, None), sampled(2, 5), len(sampled(100, 7))
    ([0, 1, 2], [0, 1], 7)
    """
    import numpy as np

    if limit is None or limit >= num_items:
        return list(range(num_items))
    return sorted(np.random.default_rng(0).permutation(num_items)[:limit].tolist())
