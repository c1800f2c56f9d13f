"""What a step of a recipe is: a class whose fields are its parameters, which says of each row why it goes.

A further step is such a class and its name in `lab.data.filters.steps.STEPS`. Most look at the rows of one shard. Where
whether a row stays depends on all the others (`whole_corpus`), the step first takes from each shard what has to be
known of its rows (a hash, a text: it stays on the disk, where `judge` reads what it needs), then judges all at once.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int, Shaped, UInt64
from numpy import ndarray
from pydantic import AfterValidator, Field

from lab.data.filters.filtering import Filtered, Reasons
from lab.data.instructions.instructions import COLUMNS, media_of
from lab.errors import choose


def one_of(choices: Mapping[str, Any], what: str) -> AfterValidator:
    """The type of a parameter that is one of these names: `unit: Annotated[str, one_of(LENGTHS, "unit")]`."""

    def known(name: str) -> str:
        choose(choices, name, what)
        return name

    return AfterValidator(known)


TEXTS = [field.name for field in COLUMNS if pa.types.is_string(field.type)]
# Those whose texts a step looks at, and reads as one.
Columns = Annotated[tuple[Annotated[str, one_of(dict.fromkeys(TEXTS), "column")], ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """A step of a recipe; what the types of its fields say is checked when the recipe is read.

    `version` goes up when its rows change, so that older ones in the cache are not used. Nothing may follow a step
    that `ends` a recipe.
    """

    use: ClassVar[str]
    version: ClassVar[int] = 1
    whole_corpus: ClassVar[bool] = False
    ends: ClassVar[bool] = False

    def parameters(self) -> dict[str, Any]:
        """The parameters as they stand in the card and in the cache's key."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return found

    def identity(self) -> str:
        """The hash of what the step reads besides its rows; empty for most."""
        return ""

    def sketch(self, rows: pa.Table) -> pa.Table:
        """What `judge` has to know of the rows of a shard, an entry a row."""
        return rows

    @abstractmethod
    def judge(self, known: pa.Table) -> Reasons:
        """Why each row goes, or None; `known` is the sketch of a shard, or of all shards in their order.

        Raises:
            LabError: the step cannot be done over these rows.
        """

    def apply(self, rows: pa.Table, reasons: Reasons | None = None) -> Filtered:
        """The account of rows that have been judged, or are all there are."""
        reasons = self.judge(self.sketch(rows)) if reasons is None else reasons
        return Filtered(rows["id"], reasons, name=self.use, parameters=self.parameters())

    def arrange(self, kept: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        """Give the rows that stay another order or further columns, never another number; and numbers for the card."""
        return kept, {}


def media(rows: pa.Table) -> pa.Array:
    """What each row shows and lets hear, as one text; empty where it holds text alone."""
    return pa.array(["\n".join(found) for found in media_of(rows)], pa.string())


def joined(rows: pa.Table, columns: Sequence[str]) -> pa.ChunkedArray:
    """The texts of the columns, one behind the other, of each row; null is empty."""
    return pc.binary_join_element_wise(*(pc.fill_null(rows[name], "") for name in columns), "\n")


# How a text's length is counted; a word is what stands between blanks, so Chinese is counted in characters.
LENGTHS: Mapping[str, Any] = {
    "bytes": pc.binary_length,
    "characters": pc.utf8_length,
    "words": lambda texts: pc.count_substring_regex(texts, pattern=r"[^\s\p{Z}]+"),
}


def text_lengths(rows: pa.Table, columns: Sequence[str], unit: str) -> Int[ndarray, " rows"]:
    """The length of each row's texts together, in a key of `LENGTHS`; null is 0."""
    return sum(LENGTHS[unit](pc.fill_null(rows[name], "")).to_numpy().astype(np.int64) for name in columns)


def hash_texts(rows: pa.Table, columns: Sequence[str], *, seed: int = 0) -> UInt64[ndarray, "rows 2"]:
    """128 bits a row over the texts of `columns`; null and empty count as the same.

    Two of 1,000,000,000 different rows agree by chance with a probability of 1 in 10^21.
    """
    key = seed.to_bytes(8, "little", signed=True)
    texts = [pc.fill_null(rows[name], "").to_pylist() for name in columns]
    digests = bytearray()
    for row in zip(*texts, strict=True):
        # A text that holds the separator cannot be mistaken for two, since each is led by its length.
        whole = "".join(f"{len(text)}:{text}" for text in row)
        digests += hashlib.blake2b(whole.encode(), digest_size=16, key=key).digest()
    return np.frombuffer(bytes(digests), dtype="<u8").reshape(-1, 2)


def as_column(array: Shaped[ndarray, "rows width"]) -> pa.FixedSizeListArray:
    """The rows of an array as a column of a sketch."""
    return pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), array.shape[1])


def as_array(column: pa.ChunkedArray) -> Shaped[ndarray, "rows width"]:
    """The rows of an array again."""
    parts = [chunk.flatten().to_numpy() for chunk in column.chunks]
    return np.concatenate(parts or [np.empty(0)]).reshape(-1, column.type.list_size)
