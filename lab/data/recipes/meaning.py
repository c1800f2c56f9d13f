"""The step of a recipe that finds rows which mean the same, by sentence embeddings.

Section 3 of the paper deduplicates within each video, over its instructions; model and threshold are not found. The
method is `lab.data.filters.semantic_duplicates`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int8
from numpy import ndarray

from lab.data.filters.neighbourhoods import in_groups, near_clusters
from lab.data.filters.semantic_duplicates import check_threshold, first_of_each
from lab.data.filters.sentence_embeddings import sentence_embeddings
from lab.data.filters.sentence_encoders import SentenceEncoder, load_sentence_encoder
from lab.data.recipes.step import CorpusStep, Kind
from lab.errors import LabError, choose

_encoder: Callable[[str], SentenceEncoder] = cache(load_sentence_encoder)

SCOPES = {"corpus": "every row may repeat every earlier one", "group": "only one of its own group, as in the paper"}


@dataclass(frozen=True, kw_only=True)
class SemanticDuplicates(CorpusStep):
    """Of rows whose texts in `columns` are at least `threshold` alike (cosine), keep the first.

    `within` is a key of `SCOPES`; `encoder` a name in `SENTENCE_ENCODERS`, a folder, or a sentence-transformers name.
    Held in memory are two bytes a number of an embedding (768 bytes a row for `minilm`).
    """

    threshold: float = 0.8
    within: str = "corpus"
    columns: tuple[str, ...] = ("prompt",)
    encoder: str = "minilm"
    seed: int = 0
    use: ClassVar[str] = "semantic_duplicates"

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
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

    def texts(self, shard: pa.Table) -> pa.Array:
        """The groups, or nothing."""
        groups = shard["group"] if self.within == "group" else pa.chunked_array([pa.array([""] * shard.num_rows)])
        return pc.fill_null(groups, "").combine_chunks()

    def reasons(self) -> tuple[str, ...]:
        """The only one."""
        return ("means the same as an earlier row",)

    def sketch(self, shard: pa.Table) -> ndarray:
        """The embeddings, from the cache where it has them."""
        parts = [pc.fill_null(shard[name], "") for name in self.columns]
        texts = pc.binary_join_element_wise(*parts, "\n").to_pylist()
        return sentence_embeddings(texts, _encoder(self.encoder), ids=shard["id"].to_pylist())

    def decide(self, sketches: Sequence[ndarray], texts: Sequence[str]) -> Int8[ndarray, " rows"]:
        """All pairs of a group, or those of near clusters."""
        embeddings = np.concatenate(sketches)
        if self.within == "group":
            places = in_groups([texts[row] for row in range(len(embeddings))])
        else:
            places = near_clusters(embeddings, threshold=self.threshold, seed=self.seed)
        first = first_of_each(embeddings, places, threshold=self.threshold)
        return (first != np.arange(len(first))).astype(np.int8)
