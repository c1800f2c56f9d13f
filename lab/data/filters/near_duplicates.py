"""Near-duplicate text over a whole corpus: MinHash and locality-sensitive hashing, then the exact overlap.

Section 3 of the paper describes semantic deduplication; this finds, without any model, texts whose *wording* overlaps.
The similarity is Jaccard's, of sets of shingles: shared / all. MinHash signatures (Broder 1997) are datasketch's. Its
index would hold kilobytes a sample in memory; here the hashes of the bands stand in one array, and samples that share
a band with an earlier one are compared by their own shingles, so that a false collision costs time and never a sample.
"""

import functools
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from typing import Annotated, ClassVar
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasketch import MinHash
from jaxtyping import UInt32
from numpy import ndarray
from pydantic import Field

from lab.data.filters.filtering import Reasons, first_reason
from lab.data.filters.step import Columns, Step, as_array, as_column, joined
from lab.errors import LabError

# Of pairs just at the threshold; those above it are found more often, equal texts always.
LEAST_FOUND = 0.95
_BATCH = 4096
_REMEMBERED = 65_536


def shingles(text: str, size: int) -> set[str]:
    """Every `size` neighbouring characters of the text in plain form; the whole text where it is shorter.

    Plain are NFKC (full-width forms become simple), lower case, and single blanks. For any language.

    >>> sorted(shingles("Abba!", 3))
    ['abb', 'ba!', 'bba']
    """
    text = " ".join(unicodedata.normalize("NFKC", text).lower().split())
    return {text[i : i + size] for i in range(max(1, len(text) - size + 1))}


@dataclass(frozen=True, kw_only=True)
class NearDuplicates(Step):
    """Of rows whose texts in `columns` overlap by `threshold` or more (Jaccard; 1: the same set), keep the first.

    In order, a row goes if it overlaps an earlier one that stays. Of pairs just at the threshold `LEAST_FOUND` are
    found, above it more, and none below it. Held in memory are about 16 bytes a band and row (18 bands at a threshold
    of 0.8); the texts that have to be compared stay on the disk. Rows without any text are dropped before, or it is an
    error. Differs from the paper: neither this filter nor a threshold is found there.
    """

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    columns: Columns = ("prompt", "answer")
    shingle_size: Annotated[int, Field(ge=1)] = 5
    num_permutations: Annotated[int, Field(ge=16)] = 128
    seed: int = 1
    use: ClassVar[str] = "near_duplicates"
    version: ClassVar[int] = 2
    whole_corpus: ClassVar[bool] = True

    def sketch(self, rows: pa.Table) -> pa.Table:
        """The texts, and one number for each band of each signature: equal for equal bands, hardly ever otherwise."""
        texts = joined(rows, self.columns)
        if (row := pc.index(pc.equal(pc.utf8_trim_whitespace(texts), ""), True).as_py()) >= 0:
            raise LabError(
                f"the text of sample {str(rows['id'][row])!r} is empty; a step not_empty before it drops such"
            )
        bands, length = bands_and_rows(self.threshold, self.num_permutations)
        factors = np.random.default_rng(self.seed).integers(1 << 63, size=length, dtype=np.uint64) | np.uint64(1)
        hashes = np.empty((len(texts), bands), dtype=np.uint64)
        for start in range(0, len(texts), _BATCH):
            batch = texts.slice(start, _BATCH).to_pylist()
            encoded = ([s.encode() for s in shingles(text, self.shingle_size)] for text in batch)
            # datasketch mixes the hash once more, so that CRC-32, the quickest at hand, serves as well as SHA-1.
            made = MinHash.generator(encoded, num_perm=self.num_permutations, seed=self.seed, hashfunc=crc32)
            signatures = np.stack([minhash.hashvalues[: bands * length] for minhash in made]).astype(np.uint64)
            hashes[start : start + len(batch)] = (signatures.reshape(-1, bands, length) * factors).sum(2)
        return pa.table({"text": texts, "bands": as_column(hashes)})

    def judge(self, known: pa.Table) -> Reasons:
        """Rows that share a band are compared, each with the earlier ones that stay; of others no text is read."""
        import pandas as pd  # half a second that only this needs

        texts, bands = known["text"], as_array(known["bands"])
        # Which bands of a row another row has too.
        shared = np.stack([pd.Series(band).duplicated(keep=False) for band in bands.T], axis=1)
        repeats = np.zeros(len(bands), dtype=bool)

        @functools.lru_cache(maxsize=_REMEMBERED)
        def hashes(row: int) -> UInt32[ndarray, " shingles"]:
            found = shingles(texts[row].as_py(), self.shingle_size)
            return np.unique(np.fromiter((crc32(s.encode()) for s in found), np.uint32))

        # Rows that stay, by what a band holds. Two bands that hold the same cost a comparison, and so have one entry.
        staying: dict[int, list[int]] = defaultdict(list)
        for row in np.flatnonzero(shared.any(1)).tolist():
            own = bands[row, shared[row]].tolist()
            near = sorted({earlier for band in own for earlier in staying[band]})
            repeats[row] = any(_overlap(hashes(earlier), hashes(row)) >= self.threshold for earlier in near)
            if not repeats[row]:
                for band in own:
                    staying[band].append(row)
        return first_reason({"reads as an earlier row": repeats})


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
