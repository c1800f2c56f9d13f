"""The plain steps of a recipe: empty texts, lengths, exact duplicates, a random draw, packs.

None needs more memory than a shard and a hash of 16 bytes a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Int
from numpy import ndarray

from lab.data.filters.filtering import Reasons, first_reason
from lab.data.filters.hashes import hash_texts
from lab.data.filters.step import LENGTHS, Columns, CorpusStep, Kind, Step, text_lengths
from lab.data.packing import pack_best_fit
from lab.errors import LabError, choose


@dataclass(frozen=True, kw_only=True)
class NotEmpty(Step):
    """Drop rows of which one of `columns` is null, empty or blank."""

    columns: Columns = ("prompt", "answer")
    use: ClassVar[str] = "not_empty"

    def judge(self, rows: pa.Table) -> Reasons:
        """The first column that is empty; nothing but blanks is empty."""
        return first_reason({f"empty {name}": text_lengths(rows, [name], "words") == 0 for name in self.columns})


@dataclass(frozen=True, kw_only=True)
class LengthBetween(Step):
    """Keep rows whose texts in `columns` have together at least `least` and at most `most` of `unit`.

    `unit` is a key of `LENGTHS`.
    """

    least: int = 1
    most: int
    unit: str = "words"
    columns: Columns = ("answer",)
    use: ClassVar[str] = "length_between"

    def __post_init__(self) -> None:
        choose(LENGTHS, self.unit, "unit")
        if not 0 <= self.least <= self.most:
            raise LabError(f"least and most are {self.least} and {self.most}, expected 0 <= least <= most")

    def judge(self, rows: pa.Table) -> Reasons:
        """Too short and too long are counted apart."""
        lengths = text_lengths(rows, self.columns, self.unit)
        short, long = f"below {self.least} {self.unit}", f"above {self.most} {self.unit}"
        return first_reason({short: lengths < self.least, long: lengths > self.most})


@dataclass(frozen=True, kw_only=True)
class ExactDuplicates(CorpusStep):
    """Of rows with the same texts in `columns`, keep the first; 16 bytes a row are held."""

    columns: Columns = ("prompt", "answer")
    use: ClassVar[str] = "exact_duplicates"

    def sketch(self, shard: pa.Table) -> ndarray:
        """128 bits of hash."""
        return hash_texts(shard, self.columns)

    def decide(self, sketches: Sequence[ndarray], texts: Sequence[Any]) -> Reasons:
        """Sort by hash; the sorting is stable, so that the first of equal ones is the first of the corpus."""
        hashes = np.concatenate(sketches)
        order = np.lexsort((hashes[:, 1], hashes[:, 0]))
        ordered = hashes[order]
        repeats = np.zeros(len(hashes), dtype=bool)
        repeats[order[1:][(ordered[1:] == ordered[:-1]).all(1)]] = True
        return first_reason({"the same as an earlier row": repeats})


@dataclass(frozen=True, kw_only=True)
class RandomSample(CorpusStep):
    """Draw `num_samples` rows at random; the same ids and the same seed give the same rows, wherever they stand."""

    num_samples: int
    seed: int = 0
    use: ClassVar[str] = "sample"

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.seed < 0:
            raise LabError(f"num_samples and seed are {self.num_samples} and {self.seed}, expected at least 1 and 0")

    def sketch(self, shard: pa.Table) -> ndarray:
        """A hash of the id that the seed chooses stands for a draw from 0 to 1."""
        return hash_texts(shard, ["id"], seed=self.seed)[:, 0]

    def decide(self, sketches: Sequence[ndarray], texts: Sequence[Any]) -> Reasons:
        """The smallest draws stay."""
        draws = np.concatenate(sketches)
        if len(draws) < self.num_samples:
            raise LabError(f"{self.num_samples} rows are asked for and only {len(draws)} are left; ask for fewer")
        left = np.ones(len(draws), dtype=bool)
        left[np.argsort(draws, kind="stable")[: self.num_samples]] = False
        return first_reason({"not drawn": left})


@dataclass(frozen=True, kw_only=True)
class Pack(Step):
    """Join rows to packs of at most `budget`: rows of one pack become neighbours, with its number in `pack`.

    A row's length is that of its `columns` in `unit` (a key of `LENGTHS`, or a column of whole numbers such as token
    counts) and `extra` for what a template adds. Rows longer than the budget are dropped, and so are those of length 0.
    Packs do not cross shards, so that a pack is read in one piece: `pack` counts from 0 in each shard. Shards that
    filters have made small are joined before.
    """

    budget: int
    unit: str = "characters"
    columns: Columns = ("prompt", "answer")
    extra: int = 0
    use: ClassVar[str] = "pack"
    ends: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.budget < 1 or self.extra < 0:
            raise LabError(f"budget and extra are {self.budget} and {self.extra}, expected at least 1 and 0")

    def needs(self) -> dict[str, Kind]:
        """The columns that are measured, or the one that has the numbers."""
        return dict.fromkeys(self.columns, "text") if self.unit in LENGTHS else {self.unit: "whole numbers"}

    def judge(self, rows: pa.Table) -> Reasons:
        """A row that fills a pack alone stays; none is cut short."""
        lengths, long = self._lengths(rows), f"longer than the budget of {self.budget} {self.unit}"
        return first_reason({"nothing in it": lengths <= 0, long: lengths > self.budget})

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
