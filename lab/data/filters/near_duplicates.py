"""Near-duplicate text over a whole corpus: MinHash and locality-sensitive hashing, then the exact overlap.

Section 3 of the paper describes semantic deduplication; this finds, without any model, texts whose *wording* overlaps.
The similarity is Jaccard's, of sets of shingles: shared / all. MinHash signatures (Broder 1997) are datasketch's. Its
index would hold kilobytes a sample in memory; here the hashes of the bands stand in one array, and samples that share
a band with an earlier one are compared by their own shingles, so that a false collision costs time and never a sample.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasketch import MinHash
from jaxtyping import Bool, Int, UInt32, UInt64
from numpy import ndarray

from lab.data.filters.filtering import Reasons, first_reason
from lab.data.filters.step import Columns, CorpusStep, joined
from lab.data.filters.words import plain, words
from lab.errors import LabError, choose

# Of pairs just at the threshold; those above it are found more often, equal texts always.
LEAST_FOUND = 0.95
_BATCH = 4096
_REMEMBERED = 65_536
_FEWEST_PERMUTATIONS = 16


def character_shingles(text: str, size: int) -> set[str]:
    """Every `size` neighbouring characters of the plain text; the whole text where it is shorter. For any language.

    >>> sorted(character_shingles("Abba!", 3))
    ['abb', 'ba!', 'bba']
    """
    text = plain(text)
    return {text[i : i + size] for i in range(max(1, len(text) - size + 1))}


def word_shingles(text: str, size: int) -> set[str]:
    """Every `size` neighbouring words (of Chinese: characters); the whole where there are fewer."""
    found = words(plain(text)) or [plain(text)]
    return {" ".join(found[i : i + size]) for i in range(max(1, len(found) - size + 1))}


@dataclass(frozen=True, kw_only=True)
class NearDuplicates(CorpusStep):
    """Of rows whose texts in `columns` overlap by `threshold` or more (Jaccard; 1: the same set), keep the first.

    In order, a row goes if it overlaps an earlier one that stays. Of pairs just at the threshold `LEAST_FOUND` are
    found, above it more, and none below it. Held in memory are about 16 bytes a band and row (18 bands at a threshold
    of 0.8); the texts that have to be compared stay on the disk. Rows without any text are dropped before, or it is an
    error. Differs from the paper: neither this filter nor a threshold is found there.
    """

    threshold: float = 0.8
    columns: Columns = ("prompt", "answer")
    shingles: str = "characters"
    shingle_size: int = 5
    num_permutations: int = 128
    seed: int = 1
    use: ClassVar[str] = "near_duplicates"

    def __post_init__(self) -> None:
        choose(SHINGLES, self.shingles, "kind of shingles")
        if not 0 < self.threshold <= 1:
            raise LabError(f"threshold is {self.threshold}, expected an overlap above 0 and up to 1, such as 0.8")
        if self.shingle_size < 1 or self.num_permutations < _FEWEST_PERMUTATIONS:
            raise LabError(
                f"shingle_size and num_permutations are {self.shingle_size} and {self.num_permutations}, "
                f"expected at least 1 and {_FEWEST_PERMUTATIONS}"
            )

    def texts(self, shard: pa.Table) -> pa.ChunkedArray:
        """All columns' texts, one behind the other.

        Raises:
            LabError: a row has none.
        """
        texts = joined(shard, self.columns)
        if (row := pc.index(pc.equal(pc.utf8_trim_whitespace(texts), ""), True).as_py()) >= 0:
            raise LabError(
                f"the text of sample {str(shard['id'][row])!r} is empty; a step not_empty before it drops such"
            )
        return texts

    def sketch(self, shard: pa.Table) -> UInt64[ndarray, "rows bands"]:
        """One number for each band of each signature: equal for equal bands, and hardly ever otherwise."""
        bands, rows = bands_and_rows(self.threshold, self.num_permutations)
        factors = np.random.default_rng(self.seed).integers(1 << 63, size=rows, dtype=np.uint64) | np.uint64(1)
        hashes = np.empty((shard.num_rows, bands), dtype=np.uint64)
        texts = self.texts(shard)
        for start in range(0, len(texts), _BATCH):
            batch = texts.slice(start, _BATCH).to_pylist()
            encoded = ([shingle.encode("utf-8", "surrogatepass") for shingle in self._cut(text)] for text in batch)
            # datasketch mixes the hash once more, so that CRC-32, the quickest at hand, serves as well as SHA-1.
            made = MinHash.generator(encoded, num_perm=self.num_permutations, seed=self.seed, hashfunc=crc32)
            signatures = np.stack([minhash.hashvalues[: bands * rows] for minhash in made]).astype(np.uint64)
            hashes[start : start + len(batch)] = (signatures.reshape(-1, bands, rows) * factors).sum(2)
        return hashes

    def decide(self, sketches: Sequence[ndarray], texts: Sequence[Any]) -> Reasons:
        """Rows that share a band are compared, each with the earlier ones that stay."""
        first = self.first_of_each(np.concatenate(sketches), texts)
        return first_reason({"reads as an earlier row": first != np.arange(len(first))})

    def first_of_each(self, bands: UInt64[ndarray, "rows bands"], texts: Sequence[Any]) -> Int[ndarray, " rows"]:
        """The number of the earliest row that stays and that this one overlaps; its own number where it stays itself.

        Of `texts` only those are read that share a band with another.
        """
        first = np.arange(len(bands))
        shared = _shared(bands)

        @functools.lru_cache(maxsize=_REMEMBERED)
        def hashes(row: int) -> UInt32[ndarray, " shingles"]:
            return np.unique(np.fromiter((crc32(s.encode()) for s in self._cut(str(texts[row]))), np.uint32))

        # Rows that stay, by what a band holds. Two bands that hold the same cost a comparison, and so have one entry.
        staying: dict[int, list[int]] = defaultdict(list)
        for row in np.flatnonzero(shared.any(1)).tolist():
            own = bands[row, shared[row]].tolist()
            for earlier in sorted({earlier for band in own for earlier in staying[band]}):
                if _overlap(hashes(earlier), hashes(row)) >= self.threshold:
                    first[row] = earlier
                    break
            else:
                for band in own:
                    staying[band].append(row)
        return first

    def _cut(self, text: str) -> set[str]:
        return SHINGLES[self.shingles](text, self.shingle_size)


def bands_and_rows(threshold: float, num_permutations: int) -> tuple[int, int]:
    """Split the signature into as few bands as find `LEAST_FOUND` of the pairs at the threshold.

    A row agrees with the probability of the overlap, a band if all of its rows do. datasketch's own choice weighs the
    errors over all overlaps as if each were as frequent; at 0.8 it would miss half of the pairs at the threshold.

    >>> bands_and_rows(0.8, 128)
    (18, 7)
    """
    return next(
        (num_permutations // rows, rows)
        for rows in range(num_permutations, 0, -1)
        if rows == 1 or 1 - (1 - threshold**rows) ** (num_permutations // rows) >= LEAST_FOUND
    )


def _overlap(one: UInt32[ndarray, " shingles"], other: UInt32[ndarray, " shingles"]) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def _shared(bands: UInt64[ndarray, "rows bands"]) -> Bool[ndarray, "rows bands"]:
    """Which bands of a row another row has too."""
    shared = np.empty(bands.shape, dtype=bool)
    for number, column in enumerate(bands.T):
        _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
        shared[:, number] = (counts > 1)[inverse]
    return shared


SHINGLES: Mapping[str, Callable[[str, int], set[str]]] = {"characters": character_shingles, "words": word_shingles}
