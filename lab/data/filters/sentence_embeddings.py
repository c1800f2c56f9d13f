"""Sentence embeddings of a corpus, each text embedded once and kept: the cache by which an interrupted run goes on.

Axes: `texts`, `width`. A text is known by its SHA-256 and an encoder by its own, so that a corpus that grows, or comes
in another order, only pays for what is new. Kept in half precision: that moves a cosine by less than 0.0005.
"""

import errno
import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from jaxtyping import Float16
from numpy import ndarray

from lab.data.filters.sentence_encoders import SentenceEncoder
from lab.errors import LabError
from lab.paths import cache_dir

# Kept together, whole or not at all: what an interruption loses at most.
_CHUNK = 1024
# SQLite's own limit on what one question may name is 32,766.
_ASKED = 10_000


def sentence_embeddings(
    texts: Sequence[str], encoder: SentenceEncoder, *, ids: Sequence[str] | None = None
) -> Float16[ndarray, "texts width"]:
    """Embed texts, in their order; what the cache has is read, the rest is embedded from short to long.

    Memory: 2 bytes a number (768 a text for a width of 384) and about 150 bytes a text. `ids` name the samples in
    messages.

    Raises:
        LabError: an empty text (the sample is named), not one id a text, an encoder whose embeddings are of another
            width than it says or not finite, or a full disk.
    """
    names = [str(i) for i in range(len(texts))] if ids is None else ids
    if len(names) != len(texts):
        raise LabError(f"{len(names)} ids for {len(texts)} texts; expected one each")
    for name, text in zip(names, texts, strict=True):
        if not text.strip():
            raise LabError(f"the text of sample {name!r} is empty: it has no embedding; drop empty texts first")
    keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
    rows = np.empty((len(texts), encoder.width), dtype=np.float16)
    path = cache_dir() / "sentence_embeddings" / f"{encoder.sha256[:16]}-{encoder.width}.sqlite"
    try:
        with closing(_opened(path)) as store:
            missing = {key: i for i, key in reversed(list(enumerate(keys)))}
            for key, _ in _kept(store, list(missing), "text, NULL"):
                del missing[key]
            # From short to long, so that a batch pads little; each chunk is kept before the next is begun.
            order = sorted(missing.values(), key=lambda i: (len(texts[i]), i))
            for start in range(0, len(order), _CHUNK):
                chunk = order[start : start + _CHUNK]
                made = _embedded([texts[i] for i in chunk], encoder, [names[i] for i in chunk])
                with store:
                    kept = ((keys[i], row.tobytes()) for i, row in zip(chunk, made, strict=True))
                    store.executemany("INSERT OR IGNORE INTO embeddings VALUES (?, ?)", kept)
            for start in range(0, len(keys), _ASKED):
                asked = keys[start : start + _ASKED]
                found = dict(_kept(store, asked, "text, row"))
                rows[start : start + _ASKED] = [np.frombuffer(found[key], dtype="<f2") for key in asked]
    except (OSError, sqlite3.OperationalError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "disk is full" in str(error):
            raise LabError(f"no space is left for the sentence embeddings in {path.parent}") from error
        raise
    return rows


def _opened(path: Path) -> sqlite3.Connection:
    """The cache of one encoder; several processes may write to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    store = sqlite3.connect(path, timeout=600)
    store.execute("PRAGMA journal_mode = WAL")
    store.execute("CREATE TABLE IF NOT EXISTS embeddings (text BLOB PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID")
    return store


def _kept(store: sqlite3.Connection, keys: list[bytes], columns: str) -> Iterator[tuple[bytes, bytes]]:
    for start in range(0, len(keys), _ASKED):
        asked = keys[start : start + _ASKED]
        marks = ", ".join("?" * len(asked))
        yield from store.execute(f"SELECT {columns} FROM embeddings WHERE text IN ({marks})", asked).fetchall()


def _embedded(texts: list[str], encoder: SentenceEncoder, names: list[str]) -> Float16[ndarray, "texts width"]:
    rows = encoder(texts)
    if rows.shape != (len(texts), encoder.width):
        raise LabError(
            f"sentence encoder {encoder.name!r} gave embeddings of shape {rows.shape} for {len(texts)} texts, "
            f"expected {(len(texts), encoder.width)}"
        )
    if len(bad := np.flatnonzero(~np.isfinite(rows).all(1))):
        raise LabError(
            f"sentence encoder {encoder.name!r} gave sample {names[bad[0]]!r} an embedding that is not finite"
        )
    return rows.astype("<f2")
