"""Near-duplicate text over a whole corpus: MinHash and locality-sensitive hashing, then the exact overlap.

Section 3 of the paper describes semantic deduplication; this finds, without any model, texts whose *wording* overlaps.
The similarity is Jaccard's, of sets of shingles: shared / all. MinHash signatures (Broder 1997) are datasketch's. Its
index would hold kilobytes a sample in memory; here the hashes of the bands stand in one array, and samples that share
a band with an earlier one are compared by their own shingles, so that a false collision costs time and never a sample.

Which one stays is as in `lab.data.filters.semantic_duplicates`: in order, a sample goes if it overlaps one that stays.
Axes: `samples`, `bands`.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from zlib import crc32

import numpy as np
from datasketch import MinHash
from jaxtyping import Int, UInt32, UInt64
from numpy import ndarray

from lab.data.filters.filtering import Filtered, filtered
from lab.data.filters.words import plain, words
from lab.errors import LabError, choose

REPEATS = "reads as an earlier sample"
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


def near_duplicates(
    ids: Sequence[str],
    texts: Sequence[str],
    *,
    threshold: float,
    shingles: str = "characters",
    shingle_size: int = 5,
    num_permutations: int = 128,
    seed: int = 1,
) -> Filtered:
    """Keep the first of all texts whose shingles overlap by at least `threshold` (Jaccard, 0 to 1; 1: the same set).

    Of pairs just at the threshold `LEAST_FOUND` are found, above it more, and none below it. Memory beside the texts:
    about 16 bytes a band and sample (see `bands_and_rows`), whatever the corpus says.
    Differs from the paper: neither this filter nor a threshold is found there.

    Raises:
        LabError: not one text a sample, an empty text (the sample is named), an unknown kind of shingles, or a
            threshold, size or number of permutations out of range.
    """
    check_shingling(threshold, shingles, shingle_size, num_permutations)
    _check_texts(ids, texts)
    cut = cutter(shingles, shingle_size)
    first = first_of_each_text(texts, cut, threshold=threshold, num_permutations=num_permutations, seed=seed)
    parameters = {
        "threshold": threshold,
        "shingles": shingles,
        "shingle_size": shingle_size,
        "num_permutations": num_permutations,
        "seed": seed,
    }
    reasons = [None if own else REPEATS for own in first == np.arange(len(texts))]
    return filtered(ids, reasons, name="near_duplicates", parameters=parameters)


def first_of_each_text(
    texts: Sequence[str],
    cut: Callable[[str], set[str]],
    *,
    threshold: float,
    num_permutations: int = 128,
    seed: int = 1,
) -> Int[ndarray, " samples"]:
    """The number of the earliest text that stays and that this one overlaps; its own number where it stays itself."""
    hashes = band_hashes(texts, cut, threshold=threshold, num_permutations=num_permutations, seed=seed)
    return first_of_bands(hashes, texts, cut, threshold=threshold)


def first_of_bands(
    band_hashes: UInt64[ndarray, "samples bands"],
    texts: Sequence[str],
    cut: Callable[[str], set[str]],
    *,
    threshold: float,
) -> Int[ndarray, " samples"]:
    """As `first_of_each_text`, from hashes that were made before, a part of the corpus at a time.

    Of `texts` only those are read that share a band with another, so they may lie on the disk.
    """
    first = np.arange(len(texts))
    if not len(texts):
        return first
    buckets, num_buckets = _buckets(band_hashes)

    @functools.lru_cache(maxsize=_REMEMBERED)
    def hashes(sample: int) -> UInt32[ndarray, " shingles"]:
        return np.unique(np.fromiter((crc32(s.encode()) for s in cut(texts[sample])), np.uint32))

    # Chains of those that stay, from the latest to the earliest of each bucket.
    latest = np.full(num_buckets, -1, dtype=np.int32)
    before = np.full(buckets.shape, -1, dtype=np.int32)
    for sample in np.flatnonzero((buckets >= 0).any(1)).tolist():
        candidates: set[int] = set()
        own = [(band, bucket) for band, bucket in enumerate(buckets[sample].tolist()) if bucket >= 0]
        for band, bucket in own:
            at = int(latest[bucket])
            while at >= 0:
                candidates.add(at)
                at = int(before[at, band])
        for earlier in sorted(candidates):
            if _overlap(hashes(earlier), hashes(sample)) >= threshold:
                first[sample] = earlier
                break
        else:
            for band, bucket in own:
                before[sample, band], latest[bucket] = latest[bucket], sample
    return first


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


def band_hashes(
    texts: Sequence[str],
    cut: Callable[[str], set[str]],
    *,
    threshold: float,
    num_permutations: int = 128,
    seed: int = 1,
) -> UInt64[ndarray, "samples bands"]:
    """One number for each band of each signature: equal for equal bands, and hardly ever otherwise."""
    bands, rows = bands_and_rows(threshold, num_permutations)
    factors = np.random.default_rng(seed).integers(1 << 63, size=rows, dtype=np.uint64) | np.uint64(1)
    hashes = np.empty((len(texts), bands), dtype=np.uint64)
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        # datasketch mixes the hash once more, so that CRC-32, the quickest at hand, serves as well as SHA-1.
        made = MinHash.generator(_encoded(batch, cut), num_perm=num_permutations, seed=seed, hashfunc=crc32)
        signatures = np.stack([minhash.hashvalues[: bands * rows] for minhash in made]).astype(np.uint64)
        hashes[start : start + len(batch)] = (signatures.reshape(-1, bands, rows) * factors).sum(2)
    return hashes


def _encoded(texts: Sequence[str], cut: Callable[[str], set[str]]) -> Iterator[list[bytes]]:
    for text in texts:
        yield [shingle.encode("utf-8", "surrogatepass") for shingle in cut(text)]


def _buckets(hashes: UInt64[ndarray, "samples bands"]) -> tuple[Int[ndarray, "samples bands"], int]:
    """Number the buckets of all bands that hold two samples or more; -1 for a sample that is alone in its bucket."""
    buckets = np.full(hashes.shape, -1, dtype=np.int32)
    num_buckets = 0
    for band in range(hashes.shape[1]):
        _, inverse, counts = np.unique(hashes[:, band], return_inverse=True, return_counts=True)
        numbers = np.where(counts > 1, np.cumsum(counts > 1) - 1 + num_buckets, -1).astype(np.int32)
        buckets[:, band] = numbers[inverse]
        num_buckets += int((counts > 1).sum())
    return buckets, num_buckets


def cutter(shingles: str, size: int) -> Callable[[str], set[str]]:
    """The function that cuts a text into shingles of a kind in `SHINGLES`."""
    make = SHINGLES[shingles]
    return lambda text: make(text, size)


def check_shingling(threshold: float, shingles: str, size: int, num_permutations: int) -> None:
    """Refuse parameters that no corpus could be looked at with.

    Raises:
        LabError: an unknown kind of shingles, or a threshold, size or number of permutations out of range.
    """
    choose(SHINGLES, shingles, "kind of shingles")
    if not 0 < threshold <= 1:
        raise LabError(f"threshold is {threshold}, expected an overlap above 0 and up to 1, such as 0.8")
    if size < 1 or num_permutations < _FEWEST_PERMUTATIONS:
        raise LabError(
            f"shingle_size and num_permutations are {size} and {num_permutations}, "
            f"expected at least 1 and {_FEWEST_PERMUTATIONS}"
        )


def _check_texts(ids: Sequence[str], texts: Sequence[str]) -> None:
    if len(ids) != len(texts):
        raise LabError(f"{len(texts)} texts for {len(ids)} samples; expected one each")
    for name, text in zip(ids, texts, strict=True):
        if not text.strip():
            raise LabError(f"the text of sample {name!r} is empty: it cannot be compared; drop empty texts first")


SHINGLES: dict[str, Callable[[str, int], set[str]]] = {"characters": character_shingles, "words": word_shingles}
