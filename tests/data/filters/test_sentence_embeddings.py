import hashlib
from collections.abc import Sequence

import numpy as np
import pytest

from lab.data.filters import semantic_duplicates as module
from lab.data.filters.semantic_duplicates import SentenceEncoder, sentence_embeddings
from lab.errors import LabError
from lab.paths import cache_dir


class CountingEncoder(SentenceEncoder):
    """Embeds by the text's hash, and writes down what it was asked."""

    def __init__(self, width: int = 4, name: str = "counting", stop_after: int | None = None) -> None:
        self.name, self.width = name, width
        self.sha256 = hashlib.sha256(name.encode()).hexdigest()
        self.batches: list[list[str]] = []
        self._stop_after = stop_after

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        if self._stop_after is not None and len(self.batches) == self._stop_after:
            raise KeyboardInterrupt
        self.batches.append(list(texts))
        return np.stack([expected(text, self.width) for text in texts])


def expected(text: str, width: int = 4) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    row = np.random.default_rng(seed).standard_normal(width)
    return (row / np.linalg.norm(row)).astype(np.float32)


def embeddings(texts: list[str], encoder: SentenceEncoder) -> np.ndarray:
    return sentence_embeddings(texts, encoder, ids=texts)


TEXTS = [f"text {'x' * ((7 * n) % 23)} {n}" for n in range(25)]


def test_rows_come_in_the_order_of_the_texts_and_from_the_cache_the_next_time():
    encoder = CountingEncoder()
    rows = embeddings(TEXTS, encoder)
    assert rows.dtype == np.float16
    np.testing.assert_allclose(rows, np.stack([expected(text) for text in TEXTS]), atol=1e-3)
    again = CountingEncoder()
    assert (embeddings(TEXTS[::-1], again)[::-1] == rows).all()
    assert again.batches == []


def test_a_text_that_comes_twice_is_embedded_once_and_new_ones_alone():
    encoder = CountingEncoder()
    rows = embeddings(["b", "aa", "b"], encoder)
    assert encoder.batches == [["b", "aa"]]
    assert (rows[0] == rows[2]).all()
    more = CountingEncoder()
    embeddings(["aa", "c", "b"], more)
    assert more.batches == [["c"]]


def test_texts_are_embedded_from_short_to_long(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 4)
    encoder = CountingEncoder()
    rows = embeddings(TEXTS, encoder)
    lengths = [len(text) for batch in encoder.batches for text in batch]
    assert lengths == sorted(lengths)
    assert [len(batch) for batch in encoder.batches] == [4] * 6 + [1]
    np.testing.assert_allclose(rows, np.stack([expected(text) for text in TEXTS]), atol=1e-3)


def test_an_interrupted_run_goes_on_where_it_stopped(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 4)
    with pytest.raises(KeyboardInterrupt):
        embeddings(TEXTS, CountingEncoder(stop_after=3))
    rest = CountingEncoder()
    embeddings(TEXTS, rest)
    assert sum(map(len, rest.batches)) == 25 - 12


def test_two_encoders_do_not_share_what_they_keep():
    embeddings(TEXTS, CountingEncoder())
    other = CountingEncoder(name="other")
    embeddings(TEXTS, other)
    assert sum(map(len, other.batches)) == 25
    assert len(list((cache_dir() / "sentence_embeddings").iterdir())) == 2


def test_no_texts_are_no_rows():
    assert embeddings([], CountingEncoder()).shape == (0, 4)


def test_an_empty_text_is_named_before_anything_is_embedded():
    encoder = CountingEncoder()
    with pytest.raises(LabError, match="the text of sample 'second' is empty"):
        sentence_embeddings(["a", "  "], encoder, ids=["first", "second"])
    assert encoder.batches == []


def test_an_embedding_that_is_not_finite_names_its_sample():
    class Broken(CountingEncoder):
        def __call__(self, texts):
            return np.stack([np.full(4, np.nan if text == "bad" else 0.5) for text in texts])

    with pytest.raises(LabError, match="gave sample 'y' an embedding that is not finite"):
        sentence_embeddings(["good", "bad"], Broken(), ids=["x", "y"])
