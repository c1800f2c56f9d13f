"""Semantic deduplication: of texts that say nearly the same, the first stays.

Section 3 of the paper: within each video, over its instructions. Differs from the paper: which model embeds and which
similarity counts as the same are not found there; both are parameters here, and `benchmarks/dedup_thresholds.py` shows
what a threshold does. Axes: `rows`, `width` (of an embedding, of length 1).

**Which one stays.** Rows are judged in their order: a row goes when its cosine with an earlier one *that stays* is at
least the threshold. So whatever goes has a near one that stays, and a chain a ~ b ~ c with a and c far apart loses only
b: a stays, b goes for a, c stays, because b is gone. (SemDeDup, Abbas et al. 2023, arXiv 2303.09540, drops c too.)
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float
from numpy import ndarray

from lab.data.filters.filtering import Reasons, first_reason
from lab.data.filters.sentence_encoders import SentenceEncoder, load_sentence_encoder, sentence_embeddings
from lab.data.filters.step import Columns, CorpusStep, Kind, joined
from lab.errors import LabError, choose

SCOPES = {"corpus": "every row may repeat every earlier one", "group": "only one of its own group, as in the paper"}
# Below this, comparing all with all takes less time than clustering first.
FEWEST_TO_CLUSTER = 4096
_TRAINING_SAMPLES_PER_CLUSTER = 64
_ROUNDS = 8
# Rows judged at a time.
_BLOCK = 1024

_encoder: Callable[[str], SentenceEncoder] = cache(load_sentence_encoder)


@dataclass(frozen=True, kw_only=True)
class SemanticDuplicates(CorpusStep):
    """Of rows whose texts in `columns` are at least `threshold` alike (cosine), keep the first.

    `within` is a key of `SCOPES`; `encoder` a name in `SENTENCE_ENCODERS`, a folder, or a sentence-transformers name.
    Held in memory are four bytes a number of an embedding (1,536 bytes a row for `minilm`).
    """

    threshold: float = 0.8
    within: str = "corpus"
    columns: Columns = ("prompt",)
    encoder: str = "minilm"
    seed: int = 0
    use: ClassVar[str] = "semantic_duplicates"
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise LabError(f"threshold is {self.threshold}, expected a cosine between 0 and 1, such as 0.9")
        choose(SCOPES, self.within, "scope of semantic_duplicates")
        if self.seed < 0:
            raise LabError(f"seed is {self.seed}, expected at least 0")

    def identity(self) -> str:
        """The hash of the encoder.

        Raises:
            LabError: it cannot be loaded.
        """
        return _encoder(self.encoder).sha256

    def needs(self) -> Mapping[str, Kind]:
        """The columns that are compared, and the group's."""
        return dict.fromkeys((*self.columns, *(("group",) if self.within == "group" else ())), "text")

    def texts(self, shard: pa.Table) -> pa.ChunkedArray:
        """The groups, where rows of one group are compared."""
        return pc.fill_null(shard["group"], "") if self.within == "group" else shard["id"]

    def sketch(self, shard: pa.Table) -> ndarray:
        """The embeddings, from the cache where it has them."""
        texts = joined(shard, self.columns).to_pylist()
        return sentence_embeddings(texts, _encoder(self.encoder), ids=shard["id"].to_pylist())

    def decide(self, sketches: Sequence[ndarray], texts: Sequence[Any]) -> Reasons:
        """All pairs of a group, or of a whole corpus those that clusters let find."""
        embeddings = np.concatenate(sketches)
        if self.within == "corpus":
            stays = first_of_like(embeddings, threshold=self.threshold, seed=self.seed)
        else:
            stays = np.empty(len(embeddings), dtype=bool)
            members: dict[str, list[int]] = defaultdict(list)
            for row, group in enumerate(texts):
                members[str(group)].append(row)
            for rows in members.values():
                stays[rows] = first_of_like(embeddings[rows], threshold=self.threshold, share=1.0)
        return first_reason({"means the same as an earlier row": ~stays})


def first_of_like(
    embeddings: Float[ndarray, "rows width"], *, threshold: float, share: float | None = None, seed: int = 0
) -> Bool[ndarray, " rows"]:
    """Which rows stay: those that are not near an earlier one that stays.

    Those that stay are in an index of faiss. Of `FEWEST_TO_CLUSTER` rows or more it has 2 sqrt(rows) clusters, and only
    the `share` of them that is nearest to a row is looked into (1: all, as with fewer rows).
    """
    index = _index(embeddings, share_of_clusters(threshold) if share is None else share, seed)
    stays = np.ones(len(embeddings), dtype=bool)
    for start in range(0, len(embeddings), _BLOCK):
        block = np.ascontiguousarray(embeddings[start : start + _BLOCK], dtype=np.float32)
        own = stays[start : start + _BLOCK]
        if index.ntotal:
            own &= index.search(block, 1)[0][:, 0] < threshold
        near = np.tril(block @ block.T >= threshold, -1)
        for row in np.flatnonzero(near.any(1)):
            own[row] &= not (near[row] & own).any()
        index.add(block[own])
    return stays


def share_of_clusters(threshold: float) -> float:
    """The share of clusters that a row looks into: the farther apart two may be that count as the same, the more.

    Of what all pairs of 12,000 real sentences under MiniLM drop, it finds all at a cosine of 0.9 (5% of the clusters),
    99.7% at 0.8 (20%) and all at 0.7 (45%).
    """
    return min(1.0, 5 * (1 - threshold) ** 2)


def _index(embeddings: Float[ndarray, "rows width"], share: float, seed: int) -> faiss.Index:
    """An empty index of scalar products; its clusters are k-means of a seeded sample, since more moves them little."""
    num_rows, width = embeddings.shape
    whole = faiss.IndexFlatIP(width)
    if num_rows < FEWEST_TO_CLUSTER or share >= 1:
        return whole
    num_clusters = round(2 * math.sqrt(num_rows))
    chosen = np.random.default_rng(seed).permutation(num_rows)[: _TRAINING_SAMPLES_PER_CLUSTER * num_clusters]
    # In half precision, as the embeddings are; as they stand, not as their distance from a cluster's centre.
    half, product = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIVFScalarQuantizer(whole, width, num_clusters, half, product, False)
    index.cp.seed, index.cp.niter, index.cp.spherical = seed, _ROUNDS, True
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _TRAINING_SAMPLES_PER_CLUSTER
    index.train(np.ascontiguousarray(embeddings[np.sort(chosen)], dtype=np.float32))
    index.nprobe = math.ceil(share * num_clusters)
    return index
