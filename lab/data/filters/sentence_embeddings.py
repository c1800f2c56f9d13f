"""Sentence embeddings of a corpus, each text embedded once and kept: the cache by which an interrupted run goes on.

Section 3 of the paper (semantic deduplication). Axes: `texts`, `width`. A text is known by its SHA-256 and an encoder
by its own, so that a corpus that grows, or comes in another order, only pays for what is new. Kept in half precision:
that moves a cosine by less than 0.0005.
"""

import errno
import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
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
    texts: Sequence[str],
    encoder: SentenceEncoder,
    *,
    ids: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float16[ndarray, "texts width"]:
    """Embed texts, in their order; what the cache has is read, the rest is embedded from short to long.

    Memory: 2 bytes a number (768 a text for a width of 384) and about 150 bytes a text. `progress` is told how many of
    those that had to be embedded are done, and of how many.

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
            wanted = {key: i for i, key in reversed(list(enumerate(keys)))}
            for key in _known(store, list(wanted)):
                wanted.pop(key, None)
            _embed_missing(store, texts, wanted, encoder, names, progress)
            _read(store, keys, rows)
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


def _known(store: sqlite3.Connection, keys: list[bytes]) -> Iterator[bytes]:
    for start in range(0, len(keys), _ASKED):
        asked = keys[start : start + _ASKED]
        found = store.execute(f"SELECT text FROM embeddings WHERE text IN ({', '.join('?' * len(asked))})", asked)
        yield from (key for (key,) in found)


def _embed_missing(
    store: sqlite3.Connection,
    texts: Sequence[str],
    wanted: dict[bytes, int],
    encoder: SentenceEncoder,
    names: Sequence[str],
    progress: Callable[[int, int], None] | None,
) -> None:
    """From short to long, so that a batch pads little; each chunk is kept before the next is begun."""
    order = sorted(wanted, key=lambda key: len(texts[wanted[key]]))
    for start in range(0, len(order), _CHUNK):
        chunk = order[start : start + _CHUNK]
        rows = encoder([texts[wanted[key]] for key in chunk])
        if rows.shape != (len(chunk), encoder.width):
            raise LabError(
                f"sentence encoder {encoder.name!r} gave embeddings of shape {rows.shape} for {len(chunk)} texts, "
                f"expected {(len(chunk), encoder.width)}"
            )
        bad = np.flatnonzero(~np.isfinite(rows).all(1))
        if len(bad):
            name = names[wanted[chunk[int(bad[0])]]]
            raise LabError(f"sentence encoder {encoder.name!r} gave sample {name!r} an embedding that is not finite")
        kept = [(key, row.tobytes()) for key, row in zip(chunk, rows.astype("<f2"), strict=True)]
        with store:
            store.executemany("INSERT OR IGNORE INTO embeddings VALUES (?, ?)", kept)
        if progress:
            progress(min(start + _CHUNK, len(order)), len(order))


def _read(store: sqlite3.Connection, keys: list[bytes], rows: Float16[ndarray, "texts width"]) -> None:
    for start in range(0, len(keys), _ASKED):
        asked = keys[start : start + _ASKED]
        marks = ", ".join("?" * len(asked))
        found = dict(store.execute(f"SELECT text, row FROM embeddings WHERE text IN ({marks})", asked))
        for place, key in enumerate(asked, start):
            rows[place] = np.frombuffer(found[key], dtype="<f2")
