"""What a filter of a recipe is: a step, a class whose fields are its parameters, which looks at one shard at a time.

Where whether a row stays depends on all the others the step is a `CorpusStep`: it first takes from each shard a small
array (a hash, a loss: what is kept in memory is that, never a text), then decides over all of them.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int
from numpy import ndarray
from pydantic import Field

from lab.data.filters.filtering import Filtered, Reasons

# Those whose texts a step looks at, and reads as one.
Columns = Annotated[tuple[str, ...], Field(min_length=1)]
Kind = Literal["text", "whole numbers"]
KINDS: Mapping[Kind, Callable[[pa.DataType], bool]] = {
    "text": pa.types.is_string,
    "whole numbers": pa.types.is_integer,
}


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """A step that looks at one row, or at the rows of one shard.

    `version` goes up when its rows change, so that older ones in the cache are not used.
    """

    use: ClassVar[str]
    version: ClassVar[int] = 1
    ends: ClassVar[bool] = False
    """Whether no other step may follow."""

    def parameters(self) -> dict[str, Any]:
        """The parameters as they stand in the card and in the cache's key."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return found

    def identity(self) -> str:
        """The hash of what the step reads besides its rows; empty for most."""
        return ""

    def needs(self) -> Mapping[str, Kind]:
        """The columns that it reads, and what has to be in them: texts in those that its `columns` names."""
        return dict.fromkeys(getattr(self, "columns", ()), "text")

    @abstractmethod
    def judge(self, rows: pa.Table) -> Reasons:
        """Why each row goes, or None; `rows` are one shard, or all there are.

        Raises:
            LabError: the step cannot be done over these rows.
        """

    def apply(self, rows: pa.Table, reasons: Reasons | None = None) -> Filtered:
        """The account of rows that are judged, or have been."""
        reasons = self.judge(rows) if reasons is None else reasons
        return Filtered(rows["id"], reasons, name=self.use, parameters=self.parameters())

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
    def decide(self, sketches: Sequence[ndarray], texts: Sequence[Any]) -> Reasons:
        """Why each row goes, in the order of the shards; `texts` are Arrow's, an entry a row.

        Raises:
            LabError: the step cannot be done over these rows.
        """

    def judge(self, rows: pa.Table) -> Reasons:
        """Over rows that are all there are."""
        return self.decide([self.sketch(rows)], self.texts(rows))


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
