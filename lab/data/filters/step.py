"""What a filter of a recipe is: a step, a class whose fields are its parameters, which looks at one shard at a time.

Where whether a row stays depends on all the others the step is a `CorpusStep`: it first takes from each shard a small
array (a hash, a loss: what is kept in memory is that, never a text), then decides over all of them, and each shard is
told which of its rows stay. Either kind judges a whole table at once by `apply`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int, Integer
from numpy import ndarray

from lab.data.filters.filtering import Filtered, filtered_by_code

Kind = Literal["text", "whole numbers"]
KINDS: Mapping[Kind, Callable[[pa.DataType], bool]] = {
    "text": pa.types.is_string,
    "whole numbers": pa.types.is_integer,
}


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """What every step has; `version` goes up when its rows change, so that older ones in the cache are not used."""

    use: ClassVar[str]
    version: ClassVar[int] = 1
    ends: ClassVar[bool] = False
    """Whether no other step may follow."""

    def parameters(self) -> dict[str, Any]:
        """The parameters as they stand in the card and in the cache's key."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def identity(self) -> str:
        """The hash of what the step reads besides its rows; empty for most."""
        return ""

    def needs(self) -> Mapping[str, Kind]:
        """The columns that it reads, and what has to be in them: texts in those that its `columns` names."""
        return dict.fromkeys(getattr(self, "columns", ()), "text")

    @abstractmethod
    def reasons(self) -> tuple[str, ...]:
        """Why a row is dropped, by its code from 1; code 0 stays."""

    @abstractmethod
    def apply(self, rows: pa.Table) -> Filtered:
        """Judge rows that are all there are.

        Raises:
            LabError: the step cannot be done over these rows.
        """

    def report(self, shard: pa.Table, codes: Integer[ndarray, " rows"]) -> Filtered:
        """Which rows of a shard stay, and the account of the others.

        Raises:
            LabError: not one code a row.
        """
        parameters = self.parameters()
        return filtered_by_code(shard["id"], codes, self.reasons(), name=self.use, parameters=parameters)


@dataclass(frozen=True, kw_only=True)
class RowStep(Step):
    """A step that looks at one row, or at the rows of one shard."""

    @abstractmethod
    def judge(self, shard: pa.Table) -> Integer[ndarray, " rows"]:
        """The code of every row."""

    def apply(self, rows: pa.Table) -> Filtered:
        """Judge rows that are all there are."""
        return self.report(rows, self.judge(rows))

    def arrange(self, kept: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        """Give the rows that stay another order or further columns, never another number; and numbers for the card."""
        return kept, {}


@dataclass(frozen=True, kw_only=True)
class CorpusStep(Step):
    """A step that has to know all rows before it can say of one whether it stays."""

    @abstractmethod
    def sketch(self, shard: pa.Table) -> ndarray:
        """What has to be known of a shard's rows, an entry a row."""

    def texts(self, shard: pa.Table) -> pa.ChunkedArray:
        """What `decide` may have to read again of a few rows; it stays on the disk."""
        return shard["id"]

    @abstractmethod
    def decide(self, sketches: Sequence[ndarray], texts: Sequence[Any]) -> Integer[ndarray, " rows"]:
        """The code of every row, in the order of the shards; `texts` are Arrow's, an entry a row.

        Raises:
            LabError: the step cannot be done over these rows.
        """

    def apply(self, rows: pa.Table) -> Filtered:
        """Judge rows that are all there are."""
        return self.report(rows, self.decide([self.sketch(rows)], self.texts(rows)))


def joined(shard: pa.Table, columns: Sequence[str]) -> pa.ChunkedArray:
    """The texts of the columns, one behind the other, of each row; null is empty."""
    return pc.binary_join_element_wise(*(pc.fill_null(shard[name], "") for name in columns), "\n")


# How a text's length is counted; a word is what stands between blanks, so Chinese is counted in characters.
LENGTHS: Mapping[str, Any] = {
    "bytes": pc.binary_length,
    "characters": pc.utf8_length,
    "words": lambda texts: pc.count_substring_regex(texts, pattern=r"[^\s\p{Z}]+"),
}


def text_lengths(shard: pa.Table, columns: Sequence[str], unit: str) -> Int[ndarray, " rows"]:
    """The length of each row's texts together; null is 0. A `unit` that is not in `LENGTHS` is a column of numbers."""
    if unit not in LENGTHS:
        return pc.fill_null(shard[unit], 0).to_numpy().astype(np.int64)
    total = np.zeros(shard.num_rows, dtype=np.int64)
    for name in columns:
        total += LENGTHS[unit](pc.fill_null(shard[name], "")).to_numpy()
    return total
