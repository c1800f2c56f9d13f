"""Steps of a recipe that have to know all rows: duplicates, a random draw.

Section 3 of the paper. Held in memory are hashes and numbers, a few bytes a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Int8
from numpy import ndarray

from lab.data.recipes.hashes import hash_texts
from lab.data.recipes.step import CorpusStep, Kind
from lab.errors import LabError


@dataclass(frozen=True, kw_only=True)
class ExactDuplicates(CorpusStep):
    """Of rows with the same texts in `columns`, keep the first; 16 bytes a row are held."""

    columns: tuple[str, ...] = ("prompt", "answer")
    use: ClassVar[str] = "exact_duplicates"

    def needs(self) -> Mapping[str, Kind]:
        """The columns that are compared."""
        return dict.fromkeys(self.columns, "text")

    def reasons(self) -> tuple[str, ...]:
        """The only one."""
        return ("the same as an earlier row",)

    def sketch(self, shard: pa.Table) -> ndarray:
        """128 bits of hash."""
        return hash_texts(shard, self.columns)

    def decide(self, sketches: Sequence[ndarray], texts: Sequence[str]) -> Int8[ndarray, " rows"]:
        """Sort by hash; the sorting is stable, so that the first of equal ones is the first of the corpus."""
        hashes = np.concatenate(sketches)
        order = np.lexsort((hashes[:, 1], hashes[:, 0]))
        ordered = hashes[order]
        codes = np.zeros(len(hashes), dtype=np.int8)
        codes[order[1:][(ordered[1:] == ordered[:-1]).all(1)]] = 1
        return codes


@dataclass(frozen=True, kw_only=True)
class Sample(CorpusStep):
    """Draw `num_samples` rows at random; the same ids and the same seed give the same rows, wherever they stand."""

    num_samples: int
    seed: int = 0
    use: ClassVar[str] = "sample"

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.seed < 0:
            raise LabError(f"num_samples and seed are {self.num_samples} and {self.seed}, expected at least 1 and 0")

    def reasons(self) -> tuple[str, ...]:
        """The only one."""
        return ("not drawn",)

    def sketch(self, shard: pa.Table) -> ndarray:
        """A hash of the id that the seed chooses stands for a draw from 0 to 1."""
        return hash_texts(shard, ["id"], seed=self.seed)[:, 0]

    def decide(self, sketches: Sequence[ndarray], texts: Sequence[str]) -> Int8[ndarray, " rows"]:
        """The smallest draws stay."""
        draws = np.concatenate(sketches)
        if len(draws) < self.num_samples:
            raise LabError(f"{self.num_samples} rows are asked for and only {len(draws)} are left; ask for fewer")
        codes = np.ones(len(draws), dtype=np.int8)
        codes[np.argsort(draws, kind="stable")[: self.num_samples]] = 0
        return codes
