"""The step of a recipe that finds near duplicates over all rows, in the memory that hashes take.

The method is `lab.data.filters.near_duplicates` (MinHash, bands, then the exact overlap); the paper's section 3 has
deduplication by meaning, whose model and threshold are not found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int8
from numpy import ndarray

from lab.data.filters.near_duplicates import band_hashes, check_shingling, cutter, first_of_bands
from lab.data.recipes.step import CorpusStep, Kind
from lab.errors import LabError


@dataclass(frozen=True, kw_only=True)
class NearDuplicates(CorpusStep):
    """Of rows whose texts in `columns` overlap by `threshold` or more, keep the first: `filters.near_duplicates`.

    Held in memory are about 16 bytes a band and row (18 bands at a threshold of 0.8); the texts that have to be
    compared stay on the disk. Rows without any text are dropped before, or it is an error.
    """

    threshold: float = 0.8
    columns: tuple[str, ...] = ("prompt", "answer")
    shingles: str = "characters"
    shingle_size: int = 5
    num_permutations: int = 128
    seed: int = 1
    use: ClassVar[str] = "near_duplicates"

    def __post_init__(self) -> None:
        check_shingling(self.threshold, self.shingles, self.shingle_size, self.num_permutations)

    def needs(self) -> Mapping[str, Kind]:
        """The columns that are compared."""
        return dict.fromkeys(self.columns, "text")

    def texts(self, shard: pa.Table) -> pa.Array:
        """All columns' texts, one behind the other.

        Raises:
            LabError: a row has none.
        """
        parts = [pc.fill_null(shard[name], "") for name in self.columns]
        texts = pc.binary_join_element_wise(*parts, "\n").combine_chunks()
        empty = pc.equal(pc.utf8_trim_whitespace(texts), "")
        if (row := pc.index(empty, True).as_py()) >= 0:
            raise LabError(
                f"the text of sample {shard['id'][row].as_py()!r} is empty; a step not_empty before it drops such"
            )
        return texts

    def reasons(self) -> tuple[str, ...]:
        """The only one."""
        return ("reads as an earlier row",)

    def sketch(self, shard: pa.Table) -> ndarray:
        """The hashes of the bands of each row's signature."""
        return band_hashes(
            self.texts(shard).to_pylist(),
            self._cut(),
            threshold=self.threshold,
            num_permutations=self.num_permutations,
            seed=self.seed,
        )

    def decide(self, sketches: Sequence[ndarray], texts: Sequence[str]) -> Int8[ndarray, " rows"]:
        """Rows that share a band are compared, each with the earlier ones that stay."""
        hashes = np.concatenate(sketches)
        first = first_of_bands(hashes, texts, self._cut(), threshold=self.threshold)
        return (first != np.arange(len(first))).astype(np.int8)

    def _cut(self) -> Callable[[str], set[str]]:
        return cutter(self.shingles, self.shingle_size)
