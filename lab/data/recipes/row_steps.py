"""Steps of a recipe that look at one row: empty texts, lengths.

Section 3 of the paper. They need no more memory than a shard.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from lab.data.filters.filtering import Filtered
from lab.data.recipes.step import LENGTHS, Kind, RowStep, text_lengths
from lab.errors import LabError, choose


@dataclass(frozen=True, kw_only=True)
class NotEmpty(RowStep):
    """Drop rows of which one of `columns` is null, empty or blank."""

    columns: tuple[str, ...] = ("prompt", "answer")
    use: ClassVar[str] = "not_empty"

    def needs(self) -> Mapping[str, Kind]:
        """The columns that have to hold something."""
        return dict.fromkeys(self.columns, "text")

    def judge(self, shard: pa.Table) -> Filtered:
        """The first column that is empty is the reason."""
        codes = np.zeros(shard.num_rows, dtype=np.int8)
        for code, name in reversed(list(enumerate(self.columns, 1))):
            codes[text_lengths(shard, [name], "words") == 0] = code
        return self.report(shard, codes, [f"empty {name}" for name in self.columns])


@dataclass(frozen=True, kw_only=True)
class LengthBetween(RowStep):
    """Keep rows whose texts in `columns` have together at least `least` and at most `most` of `unit`.

    `unit` is a key of `LENGTHS`.
    """

    least: int = 1
    most: int
    unit: str = "words"
    columns: tuple[str, ...] = ("answer",)
    use: ClassVar[str] = "length_between"

    def __post_init__(self) -> None:
        choose(LENGTHS, self.unit, "unit")
        if not 0 <= self.least <= self.most:
            raise LabError(f"least and most are {self.least} and {self.most}, expected 0 <= least <= most")

    def needs(self) -> Mapping[str, Kind]:
        """The columns that are measured."""
        return dict.fromkeys(self.columns, "text")

    def judge(self, shard: pa.Table) -> Filtered:
        """Too short and too long are counted apart."""
        lengths = text_lengths(shard, self.columns, self.unit)
        codes = (lengths < self.least) + 2 * (lengths > self.most).astype(np.int8)
        return self.report(shard, codes, [f"below {self.least} {self.unit}", f"above {self.most} {self.unit}"])
