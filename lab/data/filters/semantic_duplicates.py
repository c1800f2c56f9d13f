"""Semantic deduplication: of texts that say nearly the same, the first stays.

Section 3 of the paper: within each video, over its instructions. Differs from the paper: which model embeds and which
similarity counts as the same are not found there; both are parameters here, and `benchmarks/dedup_thresholds.py` shows
what a threshold does. Axes: `samples`, `width` (of an embedding, of length 1).

**Which one stays.** Samples are judged in their order: a sample goes when its cosine with an earlier one *that stays*
is at least the threshold. So whatever goes has a near one that stays, and a chain a ~ b ~ c with a and c far apart
loses only b: a stays, b goes for a, c stays, because b is gone. (SemDeDup, Abbas et al. 2023, arXiv 2303.09540, drops
c too.)
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from threadpoolctl import threadpool_limits

from lab.data.filters.filtering import Filtered, filtered
from lab.data.filters.neighbourhoods import DEFAULT_REACH, Neighbourhoods, in_groups, near_clusters
from lab.errors import LabError

REPEATS = "says what an earlier sample says"
# Samples judged at a time; a block's own pairs are held, so that this bounds the memory, whatever the corpus.
_BLOCK = 4096
# Similarities that a thread computes at a time, 16 MB.
_PRODUCT = 4_000_000


def semantic_duplicates_in_groups(
    ids: Sequence[str], embeddings: Float[ndarray, "samples width"], groups: Sequence[str], *, threshold: float
) -> Filtered:
    """Deduplicate within each group (the paper's: the instructions of one video), every pair of a group compared.

    Raises:
        LabError: not one embedding and one group a sample, an embedding that is not finite or not of length 1 (the
            sample is named), or a threshold that is not between 0 and 1.
    """
    _check(ids, embeddings, threshold)
    if len(groups) != len(ids):
        raise LabError(f"{len(groups)} groups for {len(ids)} samples; expected one each")
    first = first_of_each(embeddings, in_groups(groups), threshold=threshold)
    return _account(ids, first, "semantic_duplicates_in_groups", {"threshold": threshold})


def semantic_duplicates(
    ids: Sequence[str],
    embeddings: Float[ndarray, "samples width"],
    *,
    threshold: float,
    num_clusters: int | None = None,
    reach: float = DEFAULT_REACH,
    seed: int = 0,
) -> Filtered:
    """Deduplicate a whole corpus: pairs are compared within and across near clusters (see `near_clusters`).

    With `num_clusters` 1 all pairs are compared. Memory beside the embeddings (which may be a memory map in half
    precision): 4 bytes a look and about 300 MB, measured where every sample repeats every other.

    Raises:
        LabError: not one embedding a sample, an embedding that is not finite or not of length 1 (the sample is named),
            a threshold that is not between 0 and 1, or what `near_clusters` refuses.
    """
    _check(ids, embeddings, threshold)
    options: dict[str, Any] = {"num_clusters": num_clusters, "reach": reach, "seed": seed}
    places = near_clusters(embeddings, threshold=threshold, **options)
    first = first_of_each(embeddings, places, threshold=threshold)
    return _account(ids, first, "semantic_duplicates", {"threshold": threshold, **options})


def first_of_each(
    embeddings: Float[ndarray, "samples width"], places: Neighbourhoods, *, threshold: float
) -> Int[ndarray, " samples"]:
    """The number of the earliest sample that stays and that this one repeats; its own number where it stays itself.

    With a, b, c, d in a row, a ~ b ~ c and d like none: 0, 0, 2, 3.
    """
    num_samples = len(embeddings)
    first = np.arange(num_samples)
    stays = np.ones(num_samples, dtype=bool)
    lives: list[Int[ndarray, " members"]] = [np.empty(0, dtype=np.int64) for _ in range(places.num_places)]
    # One thread a neighbourhood: the products are small, and threads that share one wait for each other most of the
    # time (on two busy cores it took seven times as long as the product of all pairs).
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(faiss.omp_get_max_threads()) as pool:
        for start in range(0, num_samples, _BLOCK):
            stop = min(start + _BLOCK, num_samples)
            earlier, later = _pairs_of_block(embeddings, places, lives, start, stop, threshold, pool)
            # In the order of the later one: all that b could repeat is decided before b.
            judged, begins = np.unique(later, return_index=True)
            for j, partners in zip(judged.tolist(), np.split(earlier, begins[1:]), strict=False):
                staying = stays[partners]
                if staying.any():
                    stays[j], first[j] = False, partners[staying.argmax()]
            for place in np.unique(places.home[start:stop]):
                lives[place] = lives[place][stays[lives[place]]]
    return first


def _pairs_of_block(
    embeddings: Float[ndarray, "samples width"],
    places: Neighbourhoods,
    lives: list[Int[ndarray, " members"]],
    start: int,
    stop: int,
    threshold: float,
    pool: Executor,
) -> tuple[Int[ndarray, " pairs"], Int[ndarray, " pairs"]]:
    """Earlier and later sample of each near pair whose later one is in the block; the block moves into `lives`."""
    for place, members in _by_place(places.home[start:stop], np.arange(start, stop)):
        lives[place] = np.concatenate([lives[place], members])
    looks = places.places[places.starts[start] : places.starts[stop]]
    lookers = np.repeat(np.arange(start, stop), np.diff(places.starts[start : stop + 1]))

    def near(place_and_later: tuple[int, Int[ndarray, " lookers"]]) -> list[Int[ndarray, "two pairs"]]:
        place, later = place_and_later
        looking = np.asarray(embeddings[later], dtype=np.float32)
        step = max(1, _PRODUCT // len(later))
        found = []
        for at in range(0, len(lives[place]), step):
            members = lives[place][at : at + step]
            rows, columns = np.nonzero(looking @ np.asarray(embeddings[members], dtype=np.float32).T >= threshold)
            before = members[columns] < later[rows]
            found.append(np.stack([members[columns[before]], later[rows[before]]]).astype(np.int32))
        return found

    found = [pairs for some in pool.map(near, _by_place(looks, lookers)) for pairs in some]
    earlier, later = np.concatenate(found, axis=1) if found else np.empty((2, 0), dtype=np.int32)
    order = np.lexsort((earlier, later))
    return earlier[order], later[order]


def _by_place(
    numbers: Int[ndarray, " samples"], samples: Int[ndarray, " samples"]
) -> Iterator[tuple[int, Int[ndarray, " members"]]]:
    """The samples of each place that has any, in order."""
    order = np.argsort(numbers, kind="stable")
    there, begins = np.unique(numbers[order], return_index=True)
    yield from zip(there.tolist(), np.split(samples[order], begins[1:]), strict=True)


def _account(ids: Sequence[str], first: Int[ndarray, " samples"], name: str, parameters: Mapping[str, Any]) -> Filtered:
    reasons = [None if own else REPEATS for own in first == np.arange(len(first))]
    return filtered(ids, reasons, name=name, parameters=parameters)


def check_threshold(threshold: float) -> None:
    """Refuse what is no cosine.

    Raises:
        LabError: it is not between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise LabError(f"threshold is {threshold}, expected a cosine between 0 and 1, such as 0.9")


def _check(ids: Sequence[str], embeddings: Float[ndarray, "samples width"], threshold: float) -> None:
    check_threshold(threshold)
    if embeddings.ndim != 2 or len(embeddings) != len(ids):
        raise LabError(f"embeddings of shape {embeddings.shape} for {len(ids)} samples; expected one row each")
    for start in range(0, len(ids), _BLOCK):
        lengths = np.linalg.norm(np.asarray(embeddings[start : start + _BLOCK], dtype=np.float32), axis=1)
        # Half precision moves a length by a few ten-thousandths.
        bad = np.flatnonzero(~(np.abs(lengths - 1) < 1e-2))
        if len(bad):
            raise LabError(
                f"the embedding of sample {ids[start + int(bad[0])]!r} has length {lengths[bad[0]]:.3g}, expected 1: "
                "embed with lab.data.filters.sentence_embeddings, or divide by the length"
            )
