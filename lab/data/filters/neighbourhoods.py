"""Which samples are compared in the search for near duplicates: all with all, within groups, or near in a clustering.

Section 3 of the paper (semantic deduplication). Axes: `samples`, `width` (of an embedding), `clusters`. Embeddings are
of length 1, so that a scalar product is the cosine of the angle and |x - y|^2 = 2 - 2 x.y.

A sample *lives* in one neighbourhood and *looks into* its own and perhaps some more; of a pair, the later sample is
compared with the earlier one when it looks into the neighbourhood where that lives.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from lab.errors import LabError

# Below this, comparing all with all takes less time than clustering first.
FEWEST_TO_CLUSTER = 4096
# Of the distance at the threshold, how far behind a border of clusters a twin is looked for. Of the near pairs of
# 12,000 real sentences under MiniLM, 0.25 finds 98.1% at a cosine of 0.9, 98.8% at 0.8 and 96.4% at 0.7; 0.4 finds all,
# all and 99.2%, by looking into 14, 49 and 98 of 219 clusters. Pairs that differ in a random direction, as in
# `benchmarks/dedup.py`, are all found with 0.1. 1 is a proof: none is missed.
DEFAULT_REACH = 0.4
_TRAINING_SAMPLES_PER_CLUSTER = 64
_ROUNDS = 8
_BLOCK = 8192


@dataclass(frozen=True, kw_only=True)
class Neighbourhoods:
    """Where each sample lives, and where else it looks: `places[starts[i]:starts[i + 1]]`, its own home included.

    >>> pairs = in_groups(["film 1", "film 1", "film 2"])
    >>> pairs.home.tolist(), pairs.looks(1).tolist()
    ([0, 0, 1], [0])
    """

    home: Int[ndarray, " samples"]
    starts: Int[ndarray, " samples_and_one"]
    places: Int[ndarray, " looks"]
    num_places: int

    def looks(self, sample: int) -> Int[ndarray, " looks"]:
        """The neighbourhoods that a sample looks into."""
        return self.places[self.starts[sample] : self.starts[sample + 1]]

    def compares(self, earlier: Int[ndarray, " pairs"], later: Int[ndarray, " pairs"]) -> Bool[ndarray, " pairs"]:
        """Whether a search compares these pairs; `earlier` comes before `later` in the order of the samples."""
        return np.fromiter(
            (self.home[i] in self.looks(j) for i, j in zip(earlier, later, strict=True)), bool, len(earlier)
        )

    @property
    def looks_per_sample(self) -> float:
        """How many neighbourhoods a sample looks into, on average; 0 without samples."""
        return len(self.places) / max(1, len(self.home))


def everywhere(num_samples: int) -> Neighbourhoods:
    """One neighbourhood: every sample is compared with every other."""
    home = np.zeros(num_samples, dtype=np.int32)
    return Neighbourhoods(home=home, starts=np.arange(num_samples + 1), places=home, num_places=1)


def in_groups(groups: Sequence[str]) -> Neighbourhoods:
    """A neighbourhood for each group: every sample is compared with all of its own group and no other."""
    numbers: dict[str, int] = {}
    home = np.fromiter((numbers.setdefault(group, len(numbers)) for group in groups), np.int32, len(groups))
    return Neighbourhoods(home=home, starts=np.arange(len(home) + 1), places=home, num_places=max(1, len(numbers)))


def near_clusters(
    embeddings: Float[ndarray, "samples width"],
    *,
    threshold: float,
    num_clusters: int | None = None,
    reach: float = DEFAULT_REACH,
    seed: int = 0,
) -> Neighbourhoods:
    """k-means on the sphere (faiss); a sample looks over every border that is near enough to hide a twin behind it.

    Two samples with a cosine of at least `threshold` are at most d = sqrt(2 - 2 threshold) apart. A sample lies at some
    distance from the border between its own cluster and another; a twin in that other cluster lies behind the border,
    so if the distance exceeds d there can be none. With `reach` 1, those within d of a border look over it, and no pair
    is missed. In many dimensions hardly any twin lies straight across: `reach` x d finds nearly all of them for a
    fraction of the looks. `num_clusters` is 2 sqrt(samples) where it is not given: assigning and comparing then cost
    about the same, and both grow as samples^1.5.

    Fewer than `FEWEST_TO_CLUSTER` samples are one neighbourhood, unless `num_clusters` is given.

    Raises:
        LabError: a reach outside 0 to 1, or clusters fewer than 1 or more than samples.
    """
    num_samples = len(embeddings)
    if not 0 <= reach <= 1:
        raise LabError(f"reach is {reach}, expected 0 (own cluster only) to 1 (no pair is missed)")
    if num_clusters is None:
        num_clusters = 1 if num_samples < FEWEST_TO_CLUSTER else round(2 * math.sqrt(num_samples))
    if num_clusters == 1 or num_samples == 0:
        return everywhere(num_samples)
    if not 1 <= num_clusters <= num_samples:
        raise LabError(f"num_clusters is {num_clusters}, expected 1 to {num_samples}, the number of samples")
    centroids = _centroids(embeddings, num_clusters, seed)
    apart = np.sqrt(np.maximum(2 - 2 * centroids @ centroids.T, 0))
    distance = reach * math.sqrt(2 - 2 * threshold)
    home = np.zeros(num_samples, dtype=np.int32)
    counts, places = [np.zeros(1, dtype=np.int64)], []
    for start in range(0, num_samples, _BLOCK):
        near = np.asarray(embeddings[start : start + _BLOCK], dtype=np.float32) @ centroids.T
        own = near.argmax(1)
        home[start : start + _BLOCK] = own
        to_border = near[np.arange(len(near)), own][:, None] - near
        looks = to_border <= distance * apart[own]
        looks[np.arange(len(near)), own] = True
        counts.append(looks.sum(1))
        places.append(np.nonzero(looks)[1].astype(np.int32))
    starts = np.cumsum(np.concatenate(counts))
    return Neighbourhoods(home=home, starts=starts, places=np.concatenate(places), num_places=num_clusters)


def _centroids(
    embeddings: Float[ndarray, "samples width"], num_clusters: int, seed: int
) -> Float[ndarray, "clusters width"]:
    """Centres of length 1, from a seeded sample: more of the corpus moves them too little to be worth its time."""
    num_samples, width = embeddings.shape
    chosen = np.random.default_rng(seed).permutation(num_samples)[: _TRAINING_SAMPLES_PER_CLUSTER * num_clusters]
    sample = np.ascontiguousarray(embeddings[np.sort(chosen)], dtype=np.float32)
    most = {"min_points_per_centroid": 1, "max_points_per_centroid": _TRAINING_SAMPLES_PER_CLUSTER}
    means = faiss.Kmeans(width, num_clusters, niter=_ROUNDS, seed=seed, spherical=True, **most)
    means.train(sample)
    assert means.centroids is not None
    return means.centroids
