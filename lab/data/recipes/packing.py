"""The step of a recipe that packs: rows of one pack become neighbours, and none is cut short.

Section 3 of the paper (packed fine-tuning); the packing itself is `lab.data.packing`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Int
from numpy import ndarray

from lab.data.filters.filtering import Filtered
from lab.data.packing import pack_best_fit
from lab.data.recipes.step import LENGTHS, Kind, RowStep, text_lengths
from lab.errors import LabError


@dataclass(frozen=True, kw_only=True)
class Pack(RowStep):
    """Join rows to packs of at most `budget`: rows of one pack become neighbours, with its number in `pack`.

    A row's length is that of its `columns` in `unit` (a key of `LENGTHS`, or a column of whole numbers such as token
    counts) and `extra` for what a template adds. Rows longer than the budget are dropped, and so are those of length 0.
    Packs do not cross shards, so that a pack is read in one piece: `pack` counts from 0 in each shard. Shards that
    filters have made small are joined before.
    """

    budget: int
    unit: str = "characters"
    columns: tuple[str, ...] = ("prompt", "answer")
    extra: int = 0
    use: ClassVar[str] = "pack"
    ends: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.budget < 1 or self.extra < 0:
            raise LabError(f"budget and extra are {self.budget} and {self.extra}, expected at least 1 and 0")

    def needs(self) -> Mapping[str, Kind]:
        """The columns that are measured, or the one that has the numbers."""
        return dict.fromkeys(self.columns, "text") if self.unit in LENGTHS else {self.unit: "whole numbers"}

    def judge(self, shard: pa.Table) -> Filtered:
        """No row is cut short."""
        lengths = self._lengths(shard)
        codes = (lengths <= 0) + 2 * (lengths > self.budget).astype(np.int8)
        return self.report(shard, codes, ["nothing in it", f"longer than the budget of {self.budget} {self.unit}"])

    def arrange(self, kept: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        """Rows by pack, in a pack as they stood."""
        lengths = self._lengths(kept)
        if not len(lengths):
            return kept.append_column("pack", pa.array([], pa.int64())), {"packs": 0, "used": 0, "places": 0}
        packs = pack_best_fit(lengths, self.budget)
        numbers = np.repeat(np.arange(len(packs)), np.diff(packs.starts))
        arranged = kept.take(packs.samples).append_column("pack", pa.array(numbers, pa.int64()))
        return arranged, {"packs": len(packs), "used": int(lengths.sum()), "places": len(packs) * self.budget}

    def _lengths(self, shard: pa.Table) -> Int[ndarray, " rows"]:
        return text_lengths(shard, self.columns, self.unit) + self.extra
